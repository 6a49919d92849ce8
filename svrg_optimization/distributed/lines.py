"""Messages through a socket: JSON, one a line. Whatever else comes is refused, and so are long lines."""

import contextlib
import json
import socket
from typing import Any, Dict, List

_LONGEST = 4096  # bytes of a line


class Lines:
    """The messages that come and go through a connection, which doesn't block from now on."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection, self._rest = connection, b""

    def fileno(self) -> int:
        """The connection's, for `select`."""
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Send a message. If that isn't possible, `receive` finds out that the connection has ended."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> List[Dict[str, Any]]:
        """The messages that have come.

        Raises ConnectionError if the connection has ended, and ValueError for what is no message.
        """
        try:
            data = self._connection.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ConnectionError(str(error)) from None
        if not data:
            raise ConnectionError("the connection has ended")
        *whole, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > _LONGEST for line in (*whole, self._rest)):
            raise ValueError("a line is too long")
        return [read(line) for line in whole]

    def close(self) -> None:
        """End the connection; what waits for it wakes up."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def forget(self) -> None:
        """Close this process's copy of the connection, and leave that of the process it was forked from."""
        self._connection.close()


def read(line: bytes) -> Dict[str, Any]:
    """The message of a line. Raises ValueError if there is none.

    >>> read(b'{"count": 3}')
    {'count': 3}
    """
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("a line is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a line is no message")
    return message

"""Who takes part in a job, as its scheduler hears it: who hasn't come, who has died, who has left too early."""

from typing import Any, Dict, Hashable, List, Mapping, NamedTuple, Optional

_LONGEST_NAME = 200


class Member(NamedTuple):
    """What a process says of itself."""

    role: str  # "worker" or "server"
    name: str  # for messages
    operations: int  # how many operations that wait for all workers it has begun
    leaves: bool = False  # it is at its end, and waits for the other workers
    gone: bool = False  # it has left; when its connection ends, that is no death


def read_member(message: Mapping[str, Any]) -> Member:
    """What a message says of the process that has sent it. Raises ValueError for any other message.

    >>> read_member({'role': 'worker', 'name': 'worker 1', 'operations': 3})
    Member(role='worker', name='worker 1', operations=3, leaves=False, gone=False)
    """
    role, name, operations = message.get("role"), message.get("name"), message.get("operations")
    if role not in ("worker", "server") or not isinstance(name, str) or type(operations) is not int:
        raise ValueError("no member of a job says {!r}".format(message))
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError("the name {!r} is none".format(name))
    return Member(role, name, operations, message.get("leaves") is True, message.get("gone") is True)


class Attendance:
    """The processes of a job with so many workers and servers, each under the key of its connection.

    `is_over` says whether all workers have left after they have trained.
    """

    def __init__(self, workers: int, servers: int) -> None:
        self.is_over = False
        self._expected = {"server": servers, "worker": workers}
        self._members: Dict[Hashable, Member] = {}
        self._ended = False  # the workers have been let go after they have trained

    def __contains__(self, key: Hashable) -> bool:
        return key in self._members

    def hear(self, key: Hashable, member: Member) -> None:
        """A process has said something. Raises ValueError if the job has all its processes without this one."""
        if key not in self._members and len(self._of(member.role)) == self._expected[member.role]:
            raise ValueError("the job has all its {}s".format(member.role))
        self._members[key] = member
        if member.gone:
            del self._members[key]
            self.is_over = self._ended and not self._of("worker")

    def lose(self, key: Hashable) -> str:
        """A connection has ended; who is dead, if that was a process of the job that hasn't left, otherwise ""."""
        member = self._members.pop(key, None)
        return "" if member is None else "{} has ended".format(member.name)

    def name(self, key: Hashable) -> str:
        """The name of a process."""
        return self._members[key].name

    def who_left_too_early(self) -> Optional[Hashable]:
        """The key of a worker that leaves although another one has begun an operation that waits for it.

        Nobody does once all have been let go: what they still begin is the last barrier, together.
        """
        if self._ended:
            return None
        workers = self._of("worker")
        most = max((member.operations for member in workers.values()), default=0)
        early = (key for key, member in workers.items() if member.leaves and member.operations < most)
        return next(early, None)

    def let_go(self) -> List[Hashable]:
        """The keys of the workers that needn't wait any longer: all leave, after the same operations.

        A worker that has come to the job but not to us can't say that it leaves. So once there has been an operation
        of all workers, nobody waits for those who aren't here.
        """
        workers = self._of("worker")
        operations = {member.operations for member in workers.values()}
        all_here = len(workers) == self._expected["worker"] or max(operations, default=0) > 1
        if not workers or not all_here or len(operations) > 1 or not all(each.leaves for each in workers.values()):
            return []
        # Workers that have begun nothing may come back: `python -c 'import svrg_optimization'` before the training.
        self._ended = operations != {0}
        return list(workers)

    def missing(self) -> str:
        """Who hasn't come yet; "" if all have, or if nobody has come."""
        found = []
        for role, expected in self._expected.items():
            names = sorted(member.name for member in self._of(role).values())
            if self._members and len(names) < expected:
                here = "; here: {}".format(", ".join(names)) if names else ""
                if role == "worker" and not names:
                    here = ", which have not yet imported svrg_optimization"
                found.append("{} of {} {}s{}".format(expected - len(names), expected, role, here))
        return "waiting for {}".format(", and for ".join(found)) if found and not self._ended else ""

    def _of(self, role: str) -> Dict[Hashable, Member]:
        return {key: member for key, member in self._members.items() if member.role == role}

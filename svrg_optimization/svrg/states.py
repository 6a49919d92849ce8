"""The states of a network (``Module.set_states``) at the snapshot, in steps and in full passes.

A state that is the same for all batches is an input like any other. A state that each batch hands on to the next one,
as in language models, makes a batch's gradient depend on the batches before. Then the snapshot has states of its own,
which its own outputs hand on, in steps as in full passes: so the mean of its gradients over an epoch is the full
gradient.
"""

import contextlib
from typing import Any, Iterator, Mapping, Optional, Sequence, Tuple

_CHANGED = (
    "set_states() between the steps: the full gradient was computed with the states that were set before, so the steps "
    "would be biased. If each batch hands its states on to the next one, say which outputs become them: "
    "SVRGModule(..., next_states={'state': 'name_output'}). If they are the same for all batches, set them before "
    "update_full_grads()"
)


class States:
    """What the user has set, and what the snapshot's network has to have.

    `next_states` has for each of the `names` the output that becomes this state in the next batch. Without it, no state
    may change between batches. ValueError if it doesn't fit.
    """

    def __init__(self, names: Sequence[str], outputs: Sequence[str], next_states: Optional[Mapping[str, str]]) -> None:
        given = dict(next_states or {})
        if next_states is not None and not (sorted(given) == sorted(names) and set(given.values()) <= set(outputs)):
            raise ValueError(
                "next_states={!r} must have one of the outputs {} for each of the states {}".format(
                    given, ", ".join(outputs), ", ".join(names) or "(none)"
                )
            )
        self.any, self.carried = bool(names), bool(given)
        self._successors = [list(outputs).index(given[name]) for name in names if given]
        # How often states were set; the number they were last set to, None if arrays; the last number before that.
        self._calls = 0
        self._value: Any = 0
        self._start: Any = 0
        # What was set when the last full pass began, and which call the snapshot's network has followed since.
        self._of_pass: Optional[Tuple[int, Any]] = None
        self._followed: Optional[int] = None
        # Whether a full pass is under way, and whether states were set in the last one: by the iterator, for each
        # batch.
        self._passing = self._of_batches = False

    def set(self, states: Any, value: Any) -> None:
        """The user has set the states: to arrays, or to a number."""
        self._calls += 1
        self._of_batches = self._of_batches or self._passing
        self._value = value if states is None else None
        if states is None:
            self._start = value

    def check(self) -> None:
        """Raise RuntimeError if the full gradient was computed with other states than those of the coming step."""
        calls, value = self._of_pass = self._of_pass or (self._calls, self._value)
        unchanged = calls == self._calls or (value is not None and value == self._value)
        if self.any and not (self.carried or self._of_batches or unchanged):
            raise RuntimeError(_CHANGED)

    def follow(self, snapshot: Any, live: Any) -> None:
        """Give the snapshot's network the states of the coming step."""
        if self.carried and self._followed is not None:
            if self._calls != self._followed:
                self._hand_on(snapshot, self._value)
        elif self.any:
            snapshot.set_states(states=live.get_states(merge_multi_context=False))
        self._followed = self._calls

    @contextlib.contextmanager
    def of_pass(self) -> Iterator[None]:
        """The states in a full pass."""
        self._of_pass, self._followed = (self._calls, self._value), None
        self._passing, self._of_batches = True, False
        try:
            yield
        finally:
            self._passing = False

    def follow_in_pass(self, snapshot: Any, live: Any, is_first: bool) -> None:
        """Give the snapshot's network the states of the coming batch of a full pass."""
        if self.carried:
            self._hand_on(snapshot, self._start if is_first else None)
        elif self.any:
            snapshot.set_states(states=live.get_states(merge_multi_context=False))

    def _hand_on(self, snapshot: Any, value: Any) -> None:
        if value is not None:
            snapshot.set_states(value=value)
            return
        outputs = snapshot.get_outputs(merge_multi_context=False)
        # Copies: the outputs are written anew while the states are read.
        snapshot.set_states(states=[[array.copy() for array in outputs[number]] for number in self._successors])

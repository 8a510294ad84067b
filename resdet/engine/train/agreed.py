"""The batches of a training in several processes, which go on together or stop together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resdet.data.batches.loader import LoadedBatch
from resdet.engine.distributed import World
from resdet.engine.signals import StopRequest
from resdet.errors import UserError


class AgreedBatches:
    """Gives a batch only if every process has one and none was asked to stop; so all stop at the same step.

    Several processes read one batch ahead, and ask one another about it while the step before is computed: no step
    waits for the answer. They stop two steps after a signal at most. `problem` is the reason why this process has no
    batch, other than a signal.
    """

    def __init__(self, batches: Iterator[LoadedBatch], world: World, stop: StopRequest) -> None:
        self.problem: UserError | None = None
        self._batches, self._world, self._stop = batches, world, stop
        self._ahead: tuple[LoadedBatch | None, Callable[[], bool]] | None = None

    def next(self, *, more: bool) -> LoadedBatch | None:
        """The next batch; None if the processes stop. `more` says whether a step will follow on this one; it must be
        the same in every process.
        """
        loaded, answer = self._ahead or self._asked()
        self._ahead = None
        if answer() or loaded is None:
            return None
        if more and self._world.size > 1:
            self._ahead = self._asked()
        return loaded

    def _asked(self) -> tuple[LoadedBatch | None, Callable[[], bool]]:
        """The next batch of this process, and what waits for the answer whether a process has none."""
        loaded = None
        try:
            loaded = self._stop.next(self._batches)
        except UserError as problem:
            self.problem = problem
        return loaded, self._world.ask_any(self._stop.requested or loaded is None)

"""The time budget of a launch."""

import time

from cluster.history import History


class Budget:
    """So many seconds for the trials of a role, counted as the ledger counts them: a rescue's and a start-up's are not.

    `end` is what the ledger will have counted when they are used up, None without a budget.
    """

    def __init__(self, history: History, role: str, seconds: float | None) -> None:
        self._history, self._role, self._written = history, role, time.monotonic()
        self.end = None if seconds is None else self._counted() + seconds

    def row_written(self) -> None:
        """Take note that the history has one more row."""
        self._written = time.monotonic()

    @property
    def used_up(self) -> bool:
        """Whether nothing is left of it."""
        return self.end is not None and self._counted() >= self.end

    def _counted(self) -> float:
        passes = self._history.counting == self._role
        return self._history.seconds[self._role] + (time.monotonic() - self._written if passes else 0.0)

"""What the observers of a search share: one that fails is dropped, and never takes the search with it."""

import contextlib
import sys

from cluster.history import History
from cluster.record import Row


class Guarded:
    """An observer whose failure is said once, on stderr; from then on it does nothing.

    Subclasses give `_observe` and `_finish`, which may raise. `name` says what the user then misses.
    """

    name = "the display"

    def __init__(self) -> None:
        self.failed = False

    def observe(self, row: Row, history: History) -> None:
        """Take note of one row, which the history already holds; never raises."""
        if self.failed:
            return
        try:
            self._observe(row, history)
        except Exception as error:
            self._drop(error)

    def close(self) -> None:
        """Finish: nothing more will be observed; never raises."""
        if self.failed:
            return
        try:
            self._finish()
        except Exception as error:
            self._drop(error)

    def _observe(self, row: Row, history: History) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Free what the observer holds; it may be called after a failure."""

    def _drop(self, error: Exception) -> None:
        self.failed = True
        with contextlib.suppress(Exception):
            self._finish()
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, or stderr closed
            print(f"{self.name} stopped ({type(error).__name__}: {error}); the search goes on", file=sys.stderr)

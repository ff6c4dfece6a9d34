"""How Python's garbage collector treats a driver: while it starts, and when its trials become more and more."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

OLDEST = 2  # the generation that a full collection goes through


@contextmanager
def nothing_is_collected() -> Iterator[None]:
    """Let the garbage collector rest within a block that imports, for it would go through all that is imported.

    torch and Ray's Tune take 1.9 s of a core instead of 2.6.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def what_is_kept_is_passed_over() -> Iterator[None]:
    """Let the garbage collector leave alone, within the block, what has outlived one full collection.

    Such a collection goes through all that is kept: what was imported, what Ray keeps of every trial, the history. That
    takes longer the more trials there are, and no slot gets a new one meanwhile. What nothing refers to any more is
    freed at once all the same; only objects that refer to each other in a circle, and became garbage after they had
    outlived a collection, stay until the end of the block.
    """

    def keep(phase: str, about: Mapping[str, Any]) -> None:
        if phase == "stop" and about["generation"] == OLDEST:
            gc.freeze()

    gc.freeze()
    gc.callbacks.append(keep)
    try:
        yield
    finally:
        gc.callbacks.remove(keep)
        gc.unfreeze()

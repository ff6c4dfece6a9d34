"""Private parts of the pinned Ray that are replaced for a while; a test fails where one is no longer there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, instead: Any) -> Iterator[None]:
    """Let `instead` take the place of what `owner` has under this name; AttributeError where it has none."""
    original = getattr(owner, name)
    setattr(owner, name, instead)
    try:
        yield
    finally:
        setattr(owner, name, original)

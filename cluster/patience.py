"""Patience with a store: what it refuses for a moment, or while it cannot be reached, is asked again. And its end."""

import errno
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

BRIEF_SECONDS = 10.0  # of a command that somebody looks at
LONG_SECONDS = 60.0  # of a search: its lease, lost after 45 s, comes first where nothing of the store answers
SILENT_SECONDS, SLOWEST_BYTES_PER_SECOND = 10.0, 100_000.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 2.0

# What a server that is busy or away leads to. All else (no such object, not allowed, a full disk here) stays as it is.
PASSING = frozenset(
    {errno.EIO, errno.EBUSY, errno.EAGAIN, errno.EPIPE, errno.ETIMEDOUT}
    | {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH}
)


class Patient(Protocol):
    """Whatever says for how long it is to be asked again."""

    patience_seconds: float


Asked = TypeVar("Asked", bound=Patient)
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
Method = Callable[Concatenate[Asked, Given], Answer]


def asked_again(method: Method[Asked, Given, Answer]) -> Method[Asked, Given, Answer]:
    """Let a method be called again while it raises a passing OSError, until `patience_seconds` after the first.

    The clock starts with the first refusal: what takes minutes by itself is given a second try all the same. Pauses
    grow, and are random: many workers shall not all come back at once.
    """

    @wraps(method)
    def again(self: Asked, /, *given: Given.args, **named: Given.kwargs) -> Answer:
        first, pause = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                return method(self, *given, **named)
            except OSError as error:
                now = time.monotonic()
                first = now if first is None else first
                if error.errno not in PASSING or now + pause - first > self.patience_seconds:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    return again


def sent(size: int, system: Any, method: str, *given: Any, **named: Any) -> None:
    """Call a method of an fsspec file system that sends so many bytes; TimeoutError where the store takes none.

    aiohttp waits without any limit for the word that a body may come (`Expect: 100-continue`), and for room to send
    it: a store that took the connection and then fell silent held a process for more than a quarter of an hour.
    """
    if not system.async_impl:
        getattr(system, method)(*given, **named)
        return
    from fsspec.asyn import sync

    allowed = SILENT_SECONDS + size / SLOWEST_BYTES_PER_SECOND
    try:
        sync(system.loop, getattr(system, f"_{method}"), *given, timeout=allowed, **named)
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"it did not answer within {allowed:.0f} s") from error

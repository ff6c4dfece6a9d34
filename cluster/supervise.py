"""The small parent: it holds an experiment's lock, runs the driver as its child, and starts it again when it dies.

It imports neither Ray nor torch, so that what kills the driver finds little to kill here. The child inherits the
lock and dies with its parent, so an experiment never has two writers, and never an unwatched one.
"""

import atexit
import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster.ledger import LEDGER, read_rows
from cluster.lock import Lock
from foundation import HaltError, RequestError, count

DONE, FAILED, REFUSED, CRASHED, INTERRUPTED = 0, 1, 2, 70, 130
MAX_RESTARTS = 10  # in a row: a driver that lasted SOUND_SECONDS begins the count anew
MAX_FRUITLESS = 2
SOUND_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 60.0
GENTLE_SECONDS = 20  # how long a driver that was asked to stop may take before it is killed
ORPHANS_SECONDS = 10.0
SAME_SIGNAL_SECONDS = 1.0  # a terminal signals the whole process group, and `ray job stop` every process
PROGRESS = frozenset({"calibrated", "epoch", "ended", "chosen", "test_opened"})

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def supervise(folder: Path, drive: Callable[[Lock], int], say: Callable[[str], None]) -> int:
    """Run `drive` in a child process until it comes to an end of its own, and return its exit code.

    A driver that was killed or crashed is started again, after a pause that doubles each time; not when it was asked
    to stop, when two drivers in a row added nothing to the ledger, or for the tenth time in a row. A signal is passed
    on to the driver; a second one, a second or more later, kills it, and so does taking too long to stop.
    Raises `RequestError` when another process holds the experiment, `HaltError` when it is lost to another or its
    storage is.
    """
    lock = Lock(folder, say)
    try:
        return _Parent(folder, lock, drive, say).run()
    finally:
        lock.release()


class _Parent:
    def __init__(self, folder: Path, lock: Lock, drive: Callable[[Lock], int], say: Callable[[str], None]) -> None:
        self.folder, self.lock, self.drive, self.say = folder, lock, drive, say
        self.child: int | None = None
        self.asked_to_stop: float | None = None  # when, on the monotonic clock
        self._lost: str | None = None  # why the experiment is no longer ours to write
        self._verdict: int | None = None  # of a driver that came to an end of its own; Ray may end it with any code

    def run(self) -> int:
        if self.lock.lease:
            self.lock.lease.on_lost = self._on_lost
        self._not_ours = frozenset(_descendants(os.getpid()))
        _adopt_orphans()
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        alarm = signal.signal(signal.SIGALRM, self._kill)
        try:
            return self._until_it_ends()
        finally:
            signal.alarm(0)
            for number, handler in {**before, signal.SIGALRM: alarm}.items():
                signal.signal(number, handler)

    def _until_it_ends(self) -> int:
        restarts = fruitless = 0
        while True:
            known, began = self._progress(), time.monotonic()
            code = self._run_child()
            if self._lost:
                _show_cursor()
                raise HaltError(self._lost)
            if self.asked_to_stop is not None:
                return INTERRUPTED if self._verdict in (None, CRASHED) else self._verdict
            if self._verdict is not None and self._verdict != CRASHED:
                return self._verdict
            _show_cursor()
            how = f"was killed ({signal.Signals(-code).name})" if code < 0 else "crashed"
            if time.monotonic() - began > SOUND_SECONDS:
                restarts = 0
            restarts, fruitless = restarts + 1, 0 if self._progress() > known else fruitless + 1
            if fruitless >= MAX_FRUITLESS or restarts > MAX_RESTARTS:
                why = "without getting any further" if fruitless else f"after {count(MAX_RESTARTS, 'restart')}"
                self.say(f"The driver {how} again {why}: given up. What was learned is kept.")
                return FAILED
            pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** (restarts - 1))
            self.say(f"The driver {how}; it starts again in {pause:g} s, from the ledger.")
            if self._interrupted_within(pause):
                return INTERRUPTED

    def _run_child(self) -> int:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        reading, writing = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the child would take one for its parent's, and forget it
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside NumPy's threads; those are idle here, and OpenBLAS minds forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            with self.lock.at_rest():
                self.child = os.fork()
        if self.child == 0:
            os.close(reading)
            self._be_the_driver(parent, writing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(writing)
        if self.asked_to_stop is not None:  # the signal came just before the fork
            self._signal_child(signal.SIGINT)
        if self._lost:
            self._kill()
        _, status = os.waitpid(self.child, 0)
        self.child = None
        _end_orphans(self._not_ours)
        said = os.read(reading, 1)
        os.close(reading)
        self._verdict = said[0] if said else None
        return os.waitstatus_to_exitcode(status)

    def _be_the_driver(self, parent: int, verdict: int) -> NoReturn:
        code = CRASHED
        try:
            _die_with(parent)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            interrupt_once()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = self.drive(self.lock)
            atexit._run_exitfuncs()
            os.write(verdict, bytes([code]))
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked_to_stop is None:
            self.asked_to_stop = now
            signal.alarm(GENTLE_SECONDS)
            self._signal_child(number)
        elif now - self.asked_to_stop >= SAME_SIGNAL_SECONDS:
            self._kill()

    def _on_lost(self, why: str) -> None:
        self._lost = why
        self._kill()

    def _kill(self, *_: object) -> None:
        if self.child:
            self._signal_child(signal.SIGKILL)
            _show_cursor()

    def _signal_child(self, number: int) -> None:
        if self.child:
            with suppress(ProcessLookupError):  # it has just ended, and is being waited for
                os.kill(self.child, number)

    def _interrupted_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.asked_to_stop is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))  # a signal's handler does not end a sleep
        return self.asked_to_stop is not None

    def _progress(self) -> int:
        """Return how much the ledger says has been done; 0 where it cannot be read."""
        try:
            return sum(row["event"] in PROGRESS for row in read_rows(self.folder / LEDGER))
        except (OSError, RequestError):
            return 0


def interrupt_once() -> None:
    """Make the first signal that asks this process to stop raise KeyboardInterrupt, and no other: a driver that does
    not come to its end then is its parent's business."""
    asked = False

    def on_signal(*_: object) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, on_signal)


def _adopt_orphans() -> None:
    """Let what a dead driver leaves behind become children of this process (Linux): some of Ray's live on for 30 s."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_orphans(spared: frozenset[int]) -> None:
    """Kill all that has come of the driver and still runs; one that the kernel cannot end is left after a while."""
    end = time.monotonic() + ORPHANS_SECONDS
    while (orphans := set(_descendants(os.getpid())) - spared) and time.monotonic() < end:
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # a grandchild, until its parent is gone
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    """Return every process below one, as /proc tells it; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies (Linux); elsewhere the lock is held until it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(CRASHED)


def _show_cursor() -> None:
    """Bring back the cursor that a live table had hidden; its process can no longer."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()

"""Ends workers that hang: an epoch that takes far longer than the trial's own before it."""

import threading
import time
from collections.abc import Callable

from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.record import Row, TrialRecord
from foundation import HaltError, count, duration

# An epoch may take ten times the trial's longest so far, or two minutes: a busy machine or a slow disk is no hang.
TIMES_LONGEST, LEAST_SECONDS = 10.0, 120.0
# A first epoch, of all or of other layers, is measured against any trial's: other models may be much slower.
TIMES_ANY, FIRST_LEAST_SECONDS = 30.0, 900.0
TICK_SECONDS = 1.0
SAID_SECONDS, HOSTLESS_SECONDS = 60.0, 1800.0  # a cloud's host with its packages comes within ten minutes


def allowed_seconds(history: History, record: TrialRecord, epoch_timeout: float | None) -> float | None:
    """Return how long the trial's next epoch may take; None where nothing is known to measure it against."""
    if epoch_timeout is not None:
        return epoch_timeout
    stages = _stages(record)
    whole = record.epoch_seconds()
    others = history.longest_first.get(len(stages) - 1)
    first = None if others is None else max(FIRST_LEAST_SECONDS, TIMES_ANY * others)
    if not (own := whole[len(whole) - len(stages[-1]) :]):
        return first
    allowed = max(LEAST_SECONDS, TIMES_LONGEST * float(max(own)))
    # What frozen layers gave was read so far; of the next augmented view, or on another host, it has to be computed.
    return max(allowed, first or FIRST_LEAST_SECONDS) if record.epochs[-1].get("reads_features") else allowed


def _stages(record: TrialRecord) -> list[list[Row]]:
    """Return the epochs of a trial, apart where other layers trained: those may take a hundred times as long."""
    stages: list[list[Row]] = [[]]
    for row in record.epochs:
        stages[-1].append(row)
        if row.get("layers_change"):
            stages.append([])
    return stages


class Standstill:
    """Notices that trials were handed out and none has begun, and halts a launch that no host is there for.

    `rooms()` is how many trials the living hosts hold. Where they are held by others' work, or fetch what they need,
    that is only said: nobody can know for how long. Where all that there are could not get what trials need, it halts
    at once.
    """

    def __init__(self, dispatcher: Dispatcher, rooms: Callable[[], int], tell: Callable[[str], None]) -> None:
        self.dispatcher, self.rooms, self.tell = dispatcher, rooms, tell
        self._idle_seconds = self._hostless_seconds = 0.0
        self._said = False

    def tick(self, seconds: float) -> None:
        """Let so much time pass."""
        begun = set(self.dispatcher.running) & set(self.dispatcher.beats)
        if begun or not self.dispatcher.running or self.dispatcher.stopping:
            self._idle_seconds, self._said = 0.0, False
            return
        unfit = self.dispatcher.sharing.place.unfit if self.dispatcher.sharing.place else {}
        if unfit and self.rooms() == 0:
            self._halt(f"no other host has room for a trial, and {'; '.join(sorted(set(unfit.values())))}")
            return
        self._idle_seconds += seconds
        if self._idle_seconds < SAID_SECONDS:
            return
        there = self.rooms() > 0
        self._hostless_seconds = 0.0 if there else self._hostless_seconds + seconds
        waited = duration(self._idle_seconds)
        if not self._said:
            why = "the hosts are taken by others, or fetch the images" if there else "no living host has room for one"
            goes_on = "" if there else f"; stops after {duration(HOSTLESS_SECONDS)} without one"
            self.tell(f"{count(len(self.dispatcher.running), 'trial')} waiting for {waited}: {why}{goes_on}.")
            self._said = True
        if self._hostless_seconds >= HOSTLESS_SECONDS:
            self._halt(f"no host with room for a trial for {duration(self._hostless_seconds)} (`ray status` says why)")

    def _halt(self, why: str) -> None:
        self.dispatcher.halt = HaltError(why)
        self.dispatcher.wake()


class Watchdog:
    """Watches the workers of a dispatcher from a thread of its own while it is entered, and that there are some.

    `end(node, pid)` kills a worker; that its trial has hung is noted in `dispatcher.hung` before. Time is counted in
    ticks of a monotonic clock, none longer than two: while the machine slept, no trial was late. Nor is one whose
    worker waits for a store: its time begins anew while `store_answers()` is false.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        end: Callable[[str, int], None],
        epoch_timeout: float | None = None,
        standstill: Standstill | None = None,
        store_answers: Callable[[], bool] = lambda: True,
    ) -> None:
        self.dispatcher, self.end, self.epoch_timeout = dispatcher, end, epoch_timeout
        self.standstill, self.store_answers = standstill, store_answers
        self.clock = 0.0
        self._since: dict[str, tuple[Row, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def tick(self, seconds: float) -> None:
        """Let so much time pass, and end the workers whose epoch takes too long."""
        seconds = min(seconds, 2 * TICK_SECONDS)
        self.clock += seconds
        if self.standstill:
            self.standstill.tick(seconds)
        beats = dict(self.dispatcher.beats)
        known = self._since
        self._since = {
            key: known[key] if key in known and known[key][0] is beat else (beat, self.clock)
            for key, beat in beats.items()
        }
        for key, (beat, since) in self._since.items():
            trial = self.dispatcher.running.get(key)
            if trial is None or key in self.dispatcher.hung:
                continue
            record, waited = self.dispatcher.history.trials[trial], self.clock - since
            allowed = allowed_seconds(self.dispatcher.history, record, self.epoch_timeout)
            if allowed is not None and waited > allowed:
                if not self.store_answers():
                    self._since[key] = (beat, self.clock)
                    continue
                epoch = len(record.epochs) + 1
                self.dispatcher.hung[key] = (
                    f"epoch {epoch} hung: no end after {waited:.0f} s, {allowed:.0f} are allowed"
                )
                self.end(beat["node"], beat["pid"])

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK_SECONDS):
            now = time.monotonic()
            self.tick(now - before)
            before = now

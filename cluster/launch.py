"""Launch trials under Ray Tune: the only `Tuner` in the project."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cluster.asking import requested
from cluster.dispatch import Dispatcher
from cluster.garbage import what_is_kept_is_passed_over
from cluster.mirror import fetch_validated, store_answers
from cluster.resources import Place
from cluster.storage import TRIALS
from cluster.watchdog import Standstill, Watchdog


@contextmanager
def gentle_stop(dispatcher: Dispatcher) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the trials gently: `fit()` returns within some seconds.

    Tune listens to SIGUSR1. A second signal, a second or more after the first, ends the process at once: two within
    a second are one, since a terminal, or `ray job stop`, sends them to the whole process group.
    """
    first = 0.0

    def on_signal(number: int, _: Any) -> None:
        nonlocal first
        now = time.monotonic()
        if dispatcher.interrupted and now - first > 1:
            os._exit(130)
        if not dispatcher.interrupted:
            first, dispatcher.interrupted = now, True
            os.kill(os.getpid(), signal.SIGUSR1)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    dispatcher.wake = lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in signals}
    usr1 = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        dispatcher.wake = lambda: None
        signal.signal(signal.SIGUSR1, usr1)
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(
    trainable: type,
    dispatcher: Dispatcher,
    place: Place,
    parameters: dict[str, Any],
    tell: Callable[[str], None] = lambda _: None,
) -> bool:
    """Run the dispatcher's trials under Ray Tune until nothing is left; return False when it was interrupted.

    `parameters` reach the trainable's `setup`, once per worker process; `tell` is given sentences for the user. Ray
    must be connected. Raises what made the dispatcher halt.
    """
    from cluster.tune_hooks import living_hosts, patched_tune

    def fit(scratch: Path) -> None:
        with patched_tune():
            _tuner(trainable, dispatcher, place, parameters, scratch).fit()

    def rooms() -> int:
        return (dispatcher.sharing.place or place).room(living_hosts())

    return launched(dispatcher, place, fit, Standstill(dispatcher, rooms, tell))


def launched(
    dispatcher: Dispatcher, place: Place, fit: Callable[[Path], None], standstill: Standstill | None = None
) -> bool:
    """Let `fit(scratch)` run the dispatcher's trials; return False when it was interrupted.

    Whatever Ray keeps goes to the scratch folder, which is deleted: the ledger is the only state. Raises what made
    the dispatcher halt.
    """
    from cluster.connect import end_process

    dispatcher.sharing.place = place
    scratch = Path(tempfile.mkdtemp(prefix="convscout-ray-"))
    answers = partial(store_answers, dispatcher.ledger.path.parent)
    try:
        watching = Watchdog(dispatcher, end_process, place.epoch_timeout, standstill, answers)
        with gentle_stop(dispatcher), watching, what_is_kept_is_passed_over():
            fit(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        dispatcher.close()
    if dispatcher.halt:
        raise dispatcher.halt
    fetch_validated(dispatcher.ledger.path.parent, TRIALS)
    if dispatcher.interrupted:
        dispatcher.ledger.append("interrupted")  # its observers are closed: the live table would begin again
    return not dispatcher.interrupted


def _tuner(trainable: type, dispatcher: Dispatcher, place: Place, parameters: dict[str, Any], scratch: Path) -> Any:
    from ray import tune

    from cluster.tune_hooks import Room, SchedulerHook, SearcherHook

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1000000"  # the room says how many: Ray would start one at a time
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **parameters), requested),
        tune_config=tune.TuneConfig(
            search_alg=SearcherHook(dispatcher, Room(place)),
            scheduler=SchedulerHook(dispatcher),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )

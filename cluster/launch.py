"""Launch trials under Ray Tune: the only `Tuner` in the project."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.dispatch import Dispatcher
from cluster.resources import Slot


@contextmanager
def gentle_stop(dispatcher: Dispatcher) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the trials gently; a second one ends the process at once.

    The first writes `interrupted` and makes Tune return (it listens to SIGUSR1). Two signals within a second are
    one: a terminal, or `ray job stop`, sends them to the whole process group.
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
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in signals}
    usr1 = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, usr1)
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(
    trainable: type,
    dispatcher: Dispatcher,
    slot: Slot,
    slots: int,
    parameters: dict[str, Any],
    max_concurrent: int | None = None,
) -> bool:
    """Run the dispatcher's trials under Ray Tune until nothing is left; return False when it was interrupted.

    `slots` is how many trials fit side by side now. `parameters` reach the trainable's `setup`, once per worker
    process. Ray must be connected. Whatever Ray keeps goes to a scratch folder that is deleted: the ledger is the
    only state.
    """
    from ray import tune

    from cluster.tune_hooks import SchedulerHook, SearcherHook

    # Ray starts one worker at a time unless more trials may wait; but each that waits was proposed knowing less.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, slots // 2))
    scratch = Path(tempfile.mkdtemp(prefix="convscout-ray-"))
    resources = {"cpu": slot.cpus, "gpu": slot.gpus}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **parameters), resources),
        tune_config=tune.TuneConfig(
            search_alg=SearcherHook(dispatcher),
            scheduler=SchedulerHook(dispatcher),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=max_concurrent,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        with gentle_stop(dispatcher):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if dispatcher.interrupted:
            dispatcher.write("interrupted")
        for observer in dispatcher.observers:
            observer.close()
    return not dispatcher.interrupted

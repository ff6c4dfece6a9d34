"""Trials under Ray Tune: how many at a time, in which processes, and what is kept of them."""

import gc
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.connect import connect, disconnect
from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.launch import launch, launched
from cluster.ledger import LEDGER, Ledger, read_rows
from cluster.proposal import Proposal
from cluster.resources import Host, Place, Slot

TRIALS = 8


def trainable() -> type:
    """Return a trainable whose second worker starts only after three trials, and whose fifth trial waits for it."""
    from ray.tune import Trainable

    class Waiting(Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any], folder: str = "") -> None:
            self.folder = Path(folder)
            (self.folder / f"process-{os.getpid()}").touch()
            try:
                (self.folder / "first").touch(exist_ok=False)
                self.name = "first"
            except FileExistsError:
                self.until(lambda: len(list(self.folder.glob("trial-*"))) >= 3)
                self.name = "second"
            self.reset_config(config)

        def until(self, fulfilled: Any) -> None:
            end = time.monotonic() + 60
            while not fulfilled():
                if time.monotonic() > end:
                    raise TimeoutError
                time.sleep(0.01)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.given, self.begun = json.loads(new_config["handed_out"]), False
            return True

        def step(self) -> dict[str, Any]:
            attempt = {"attempt": self.given["attempt"]}
            if not self.begun:
                self.begun = True
                (self.folder / self.name).touch()
                if self.given["trial"] == 5:
                    self.until((self.folder / "second").exists)
                return {
                    "report": json.dumps(
                        {"kind": "started", "host": "here", "node": "here", "pid": 1, "epochs": [], **attempt}
                    )
                }
            (self.folder / f"trial-{self.given['trial']}").touch()
            row = dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "seconds"), 0.5) | {"epoch": 1}
            return {"report": json.dumps({"kind": "epoch", "epoch": row, **attempt})}

    return Waiting


class Gathered:
    """Notes what Tune gathers of the trials, besides what the ledger holds: as an observer, and in Tune's own methods.

    To gather it took 20 KB of the driver's memory a trial.
    """

    def __init__(self) -> None:
        from ray.tune import ExperimentAnalysis
        from ray.tune.execution.tune_controller import TuneController

        self.found: list[str] = []
        TuneController.save_to_dir = lambda _: self.found.append("the state of all trials")
        ExperimentAnalysis._fetch_trial_dataframes = lambda _: self.found.append("what trials have logged")

    def observe(self, row: dict[str, Any], history: History) -> None:
        from ray.tune.experiment import Trial

        if row["event"] == "ended" and row["trial"] == TRIALS - 1:
            gc.unfreeze()  # else `get_objects` passes over what a launch passes over
            trials = [each for each in gc.get_objects() if issubclass(type(each), Trial)]
            assert len(trials) >= TRIALS
            self.found += [f"statistics of {trial.trial_id}" for trial in trials if trial.metric_analysis]

    def close(self) -> None: ...


def search(folder: Path, own: bool) -> None:
    """Run the trials on two slots, as on a cluster of our own or as on another's."""
    from cluster import tune_hooks

    def next_work(history: History) -> Proposal | None:
        work = {"epochs": 1, "schedule_epochs": 1}
        number = history.next_trial()
        return None if number >= TRIALS else Proposal("search", "cnn", {}, number, work, "random")

    connect()
    hosts = [Host(2, 0)]
    tune_hooks.hosts_of = lambda _: hosts  # type: ignore[assignment]
    if not own:
        tune_hooks.is_own_cluster = lambda: False
    try:
        with Ledger(folder / "experiment") as ledger:
            gathered = Gathered()
            dispatcher = Dispatcher(ledger, ("search",), next_work, lambda *_: None, [gathered])
            assert launch(trainable(), dispatcher, Place(Slot(1, 0.0), hosts), {"folder": str(folder)})
            assert not gathered.found
    finally:
        disconnect()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
@pytest.mark.timeout(150)
@pytest.mark.parametrize("own", [True, False])
def test_a_worker_that_starts_is_left_to_start_and_no_trial_is_handed_out_too_early(tmp_path: Path, own: bool) -> None:
    (tmp_path / "experiment" / "trials").mkdir(parents=True)
    process = multiprocessing.get_context("spawn").Process(target=search, args=(tmp_path, own))  # Ray is no good forked
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == 0
    assert len(list(tmp_path.glob("process-*"))) == 2
    rows = list(read_rows(tmp_path / "experiment" / LEDGER))
    started = [row["trial"] for row in rows if row["event"] == "started"]
    assert set(started[:2]) < {0, 1, 2}  # the third of them is the one whose worker is starting
    assert started.index(3) < started.index(4) < min(started.index(trial) for trial in (5, 6, 7))
    assert sorted(trial for trial in started if trial > 2) == [3, 4, 5, 6, 7]  # by two workers: in any order
    live, most = set(), 0
    for row in rows:
        if row["event"] == "proposed":
            live.add(row["trial"])
        elif row["event"] == "ended":
            live.remove(row["trial"])
        most = max(most, len(live))
    assert most == (2 if own else 3)  # one more asks an autoscaler for a host
    assert not live


def test_there_is_room_for_what_the_living_hosts_hold_and_the_user_allows() -> None:
    hosts = [Host(4, 0), Host(2, 0)]
    place = Place(Slot(2, 0.0), hosts)
    assert (place.slots, place.room(hosts[:1]), place.room([]), place.room(hosts, spare=1)) == (3, 2, 0, 4)
    assert Place(Slot(2, 0.0), hosts, max_concurrent=2).slots == 2
    assert place.host_cores == 2


def test_nothing_is_shown_to_observers_that_were_closed(tmp_path: Path) -> None:
    """The live table began again, with nobody to end it, and the terminal was left without its cursor."""

    class Watching:
        def __init__(self) -> None:
            self.closed = False

        def observe(self, row: dict[str, Any], history: History) -> None:
            assert not self.closed

        def close(self) -> None:
            self.closed = True

    watching = Watching()
    with Ledger(tmp_path) as ledger:
        dispatcher = Dispatcher(ledger, ("search",), lambda _: None, lambda *_: None, [watching])

        def interrupt(_: Path) -> None:
            dispatcher.interrupted = True

        assert not launched(dispatcher, Place(Slot(1, 0.0), [Host(1, 0)]), interrupt)
    assert watching.closed
    assert [row["event"] for row in read_rows(tmp_path / LEDGER)] == ["interrupted"]

import json
import random
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from cluster.history import History
from search.halving import Halving, grace_period, out_of_patience, rungs, stopping, work_of


class Arrivals:
    """A history that epochs arrive in, one after another."""

    def __init__(self, trials: int, architectures: tuple[str, ...] = ("cnn",), epochs: int = 27) -> None:
        self.history = History()
        self.seq = 0
        for trial in range(trials):
            self.add(
                "proposed",
                trial=trial,
                role="search",
                architecture=architectures[trial % len(architectures)],
                config={},
                seed=0,
                work={"epochs": epochs},
                method="random",
            )
            self.add("started", trial=trial, attempt=1)

    def add(self, event: str, **fields: Any) -> dict[str, Any]:
        self.seq += 1
        row = {"seq": self.seq, "time": 0.0, "incarnation": 1, "event": event, **fields}
        self.history.apply(row)
        return row

    def epoch(self, trial: int, value: float | None, loss: float | None = 1.0) -> dict[str, Any]:
        number = len(self.history.trials[trial].epochs) + 1
        return self.add("epoch", trial=trial, attempt=1, epoch=number, val_accuracy=value, val_loss=loss, seconds=1.0)


def test_grace_is_a_tenth_of_the_epochs_and_rungs_multiply_below_them() -> None:
    assert [grace_period(epochs) for epochs in (1, 9, 20, 100)] == [1, 1, 2, 10]
    assert rungs(27, 1) == [1, 3, 9]
    assert rungs(28, 1) == [1, 3, 9, 27]
    assert rungs(100, 10) == [10, 30, 90]
    assert rungs(1, 1) == []


def test_work_says_how_a_trial_begins_where_that_is_not_with_all_images() -> None:
    assert work_of(20, None) == {"epochs": 20, "schedule_epochs": 20}
    assert work_of(20, 0.25) == {"epochs": 20, "schedule_epochs": 20, "grace": [2, 0.25]}


def test_epochs_on_a_share_of_the_images_count_as_that_share() -> None:
    stops = stopping(20, 0.25)
    assert [stops.whole_epochs(until) for until in (1, 2, 3, 20)] == [0.25, 0.5, 1.5, 18.5]
    assert stops.whole_epochs(20, done=1) == 18.25
    assert stops.whole_epochs(20, done=6) == 14
    assert stopping(20).whole_epochs(20, done=1) == 19


class FakeTrial:
    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@pytest.mark.parametrize(("seed", "epochs", "mode"), [(0, 30, "max"), (1, 81, "max"), (2, 25, "min"), (3, 9, "min")])
def test_the_same_arrivals_give_the_decisions_of_rays_own_asha(seed: int, epochs: int, mode: str) -> None:
    metric = "val_accuracy" if mode == "max" else "val_loss"
    grace = grace_period(epochs)
    ray = ASHAScheduler(
        time_attr="training_iteration", metric=metric, mode=mode, max_t=epochs, grace_period=grace, reduction_factor=3
    )
    ours, arrivals, rng = Halving(metric, epochs), Arrivals(40, epochs=epochs), random.Random(seed)
    live = list(range(40))
    trials = {number: FakeTrial(number) for number in live}
    for trial in trials.values():
        ray.on_trial_add(None, trial)
    stopped = decided = 0
    while live:
        number = rng.choice(live)
        value = round(rng.random(), 2)  # two decimals, so that ties happen
        row = arrivals.epoch(number, value, value)
        record = arrivals.history.trials[number]
        result = {"training_iteration": row["epoch"], metric: value}
        theirs = ray.on_trial_result(None, trials[number], result) == TrialScheduler.STOP
        decision = ours.decide(arrivals.history, record, row)
        mine = bool(decision and decision.stop) or row["epoch"] >= epochs  # Ray also stops at the last epoch
        assert mine == theirs, (row, decision)
        decided += decision is not None
        stopped += bool(decision and decision.stop)
        if mine:
            live.remove(number)
    assert stopped > 10
    assert decided > stopped


def test_decisions_can_be_computed_again_from_the_rows_before_them() -> None:
    halving, arrivals, rng = Halving("val_accuracy", 27), Arrivals(20), random.Random(5)
    rows, decisions = [], []
    for _ in range(15):
        for trial in range(20):
            row = arrivals.epoch(trial, rng.random())
            rows.append(row)
            decisions.append(halving.decide(arrivals.history, arrivals.history.trials[trial], row))
    again = [halving.decide(arrivals.history, arrivals.history.trials[row["trial"]], row) for row in rows]
    assert again == decisions  # although the history now holds all the rows that came later


def test_architectures_are_compared_only_with_themselves() -> None:
    arrivals = Arrivals(4, architectures=("cnn", "alexnet"))
    halving = Halving("val_accuracy", 9)
    for trial, value in ((0, 0.9), (1, 0.1), (2, 0.8)):
        row = arrivals.epoch(trial, value)
        decision = halving.decide(arrivals.history, arrivals.history.trials[trial], row)
        assert decision is not None
        assert decision.stop == (trial == 2)
    assert decision.sentence == "stopped at epoch 1: val_accuracy 0.8, the cutoff of 1 trial was 0.9"


def test_a_value_that_is_no_number_is_stopped_and_no_cutoff_for_others() -> None:
    arrivals, halving = Arrivals(2), Halving("val_accuracy", 9)
    bad = halving.decide(arrivals.history, arrivals.history.trials[0], arrivals.epoch(0, None))
    assert bad is not None
    assert (bad.stop, bad.sentence) == (True, "stopped at epoch 1: val_accuracy is not a number")
    good = halving.decide(arrivals.history, arrivals.history.trials[1], arrivals.epoch(1, 0.1))
    assert good is not None
    assert (good.stop, good.sentence) == (False, "went on at epoch 1: the first trial to get there")


def test_patience_ends_a_trial_as_completed_with_its_reason() -> None:
    arrivals = Arrivals(1)
    record = arrivals.history.trials[0]
    found = []
    for loss in (1.0, 0.8, 0.9, 0.85, 0.81, 0.7):
        row = arrivals.epoch(0, 0.5, loss)
        found.append(out_of_patience(record, row, 3))
    assert found[:4] == [None] * 4
    assert found[5] is None
    ended = found[4]
    assert ended is not None
    assert (ended.stop, ended.status) == (True, "completed")
    assert ended.sentence == "patience: val_loss has not fallen for 3 epochs, lowest 0.8 at epoch 2"
    assert json.dumps(ended.sentence)

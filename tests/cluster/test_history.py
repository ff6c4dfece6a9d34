import json
import math
import sys
from typing import Any

import pytest
from observed_run import ObservedRun

from cluster.history import History
from cluster.record import TrialRecord, ranked


def record(trial: int, losses: list[float | None], status: str | None = "completed", rung: int = 0) -> TrialRecord:
    made = TrialRecord(
        trial=trial,
        role="search",
        architecture="cnn",
        config={},
        seed=0,
        work={"epochs": 9},
        method="random",
        proposed_time=0.0,
        status=status,
    )
    made.epochs = [
        {"epoch": number, "val_loss": loss, "val_accuracy": None if loss is None else 1 - loss, "seconds": 2.0}
        for number, loss in enumerate(losses, start=1)
    ]
    if rung:
        made.decisions = [{"epoch": rung, "rung": True}]
    return made


def test_the_best_epoch_is_the_earliest_of_equals_and_never_a_missing_value() -> None:
    trial = record(0, [0.5, None, 0.2, 0.2])
    best = trial.best_epoch("val_loss")
    assert best is not None
    assert best["epoch"] == 3
    assert record(1, [None]).best_epoch("val_loss") is None


def test_trials_rank_by_rung_first_then_by_their_best_value_and_failures_last() -> None:
    trials = [
        record(0, [0.1], "stopped", rung=1),
        record(1, [0.9, 0.3], "completed"),
        record(2, [0.9, 0.4], "completed"),
        record(3, [0.05, None], "diverged", rung=1),
        record(4, [0.5, 0.4], "stopped", rung=3),
        record(5, [], "lost"),
    ]
    assert [trial.trial for trial in ranked(trials, "val_loss")] == [1, 2, 4, 0, 3, 5]
    assert [trial.trial for trial in ranked(trials, "val_accuracy")] == [1, 2, 4, 0, 3, 5]


def row(seq: int, event: str, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "time": float(seq), "incarnation": fields.pop("incarnation", 1), "event": event, **fields}


def history_with_a_trial() -> History:
    history = History()
    history.apply(
        row(
            1,
            "proposed",
            trial=0,
            role="search",
            architecture="cnn",
            config={},
            seed=0,
            work={"epochs": 3},
            method="random",
        )
    )
    history.apply(row(2, "started", trial=0, attempt=1, n_params=7))
    return history


def test_the_first_row_of_an_epoch_wins_and_old_attempts_are_refused() -> None:
    history = history_with_a_trial()
    history.apply(row(3, "epoch", trial=0, attempt=1, epoch=1, val_loss=1.0, seconds=1.0))
    history.apply(row(4, "epoch", trial=0, attempt=1, epoch=1, val_loss=2.0, seconds=1.0))
    history.apply(row(5, "started", trial=0, attempt=2))
    assert not history.accepts(0, attempt=1, epoch=2)
    assert history.accepts(0, attempt=2, epoch=2)
    assert not history.accepts(0, attempt=2, epoch=3)
    assert [epoch["val_loss"] for epoch in history.trials[0].epochs] == [1.0]
    assert history.trials[0].n_params == 7


def test_time_is_counted_by_role_within_a_writer_and_without_its_start_up() -> None:
    history = history_with_a_trial()  # proposed at 1, started at 2
    history.apply(row(5, "epoch", trial=0, attempt=1, epoch=1, val_loss=1.0, seconds=1.0))
    history.apply(row(6, "interrupted"))
    history.apply(row(100, "resumed", incarnation=2))
    history.apply(row(110, "started", trial=0, attempt=2, incarnation=2))
    history.apply(row(113, "ended", trial=0, status="completed", incarnation=2))
    assert history.seconds == {"search": 5.0 + 3.0}
    assert history.trials[0].ended_after == 8.0
    history.apply(row(200, "resumed", incarnation=3))
    history.apply(row(205, "reopened", trial=0, incarnation=3))
    assert history.trials[0].ended_after is None
    history.apply(row(207, "started", trial=0, attempt=3, incarnation=3))
    history.apply(row(225, "ended", trial=0, status="completed", incarnation=3))
    assert history.seconds == {"search": 8.0, "rescue": 20.0}  # a rescue takes nothing from the search's time budget
    assert history.trials[0].ended_after == 28.0


def test_beside_trials_of_the_search_a_rescue_does_not_stop_their_clock() -> None:
    history = history_with_a_trial()  # proposed at 1, started at 2
    history.apply(row(3, "ended", trial=0, status="stopped"))
    other = {"architecture": "cnn", "config": {}, "seed": 0, "work": {"epochs": 3}, "method": "random"}
    history.apply(row(4, "proposed", trial=1, role="search", **other))
    history.apply(row(5, "interrupted"))
    history.apply(row(100, "reopened", trial=0, incarnation=2))
    history.apply(row(102, "started", trial=0, attempt=2, incarnation=2))
    history.apply(row(110, "started", trial=1, attempt=1, incarnation=2))
    assert history.seconds == {"search": 4.0, "rescue": 10.0}
    history.apply(row(111, "epoch", trial=0, attempt=2, epoch=1, val_loss=1.0, seconds=1.0, incarnation=2))
    history.apply(row(120, "ended", trial=1, status="completed", incarnation=2))
    assert history.seconds == {"search": 4.0 + 10.0, "rescue": 10.0}


def test_a_slot_that_grew_where_there_were_fewer_cores_has_all_of_them_again_elsewhere() -> None:
    history = history_with_a_trial()
    history.apply(row(3, "calibrated", slot={"cpus": 16, "gpus": 0.0, "memory": 0}))
    history.apply(row(4, "slot_grown", trial=0, slot={"cpus": 4, "gpus": 0.0, "memory": 7}))
    assert history.calibrated is not None
    assert history.calibrated["slot"] == {"cpus": 16, "gpus": 0.0, "memory": 7}


def test_time_in_which_configurations_are_refused_or_roles_take_turns_counts() -> None:
    history = history_with_a_trial()  # proposed at 1, started at 2
    history.apply(row(4, "rejected", trial=1, architecture="cnn", cause="too_long", why="", draw=0, config={}))
    history.apply(row(7, "epoch", trial=0, attempt=1, epoch=1, val_loss=1.0, seconds=1.0))
    assert history.seconds == {"search": 6.0}
    other = {"architecture": "cnn", "config": {}, "seed": 0, "work": {"epochs": 3}, "method": "random"}
    history.apply(row(9, "proposed", trial=1, role="retrain", **other))
    history.apply(row(12, "epoch", trial=0, attempt=1, epoch=2, val_loss=1.0, seconds=1.0))
    assert history.seconds == {"search": 8.0, "retrain": 3.0}


def test_while_the_machine_slept_no_time_of_the_search_went_by() -> None:
    history = history_with_a_trial()
    history.apply(row(30_005, "epoch", trial=0, attempt=1, epoch=1, val_loss=1.0, seconds=3.0, clock_jumped=30_000.0))
    history.apply(row(30_006, "epoch", trial=0, attempt=1, epoch=2, val_loss=1.0, seconds=3.0))
    history.apply(row(30_000, "ended", trial=0, status="completed", clock_jumped=-10.0))  # it was set
    assert history.seconds == {"search": 1.0 + 3.0 + 1.0 + 4.0}


@pytest.mark.parametrize(
    ("status", "decisions", "ended_by"),
    [
        (None, [], None),
        ("completed", [], "epochs"),
        ("completed", [{"epoch": 1, "decision": "continue", "cause": "rung"}], "epochs"),
        ("stopped", [{"epoch": 2, "decision": "stop", "cause": "rung"}], "rung"),
        ("stopped", [{"epoch": 2, "decision": "stop", "cause": "budget"}], "budget"),
        ("completed", [{"epoch": 2, "decision": "stop", "cause": "patience"}], "patience"),
        ("completed", [{"epoch": 1, "decision": "stop", "cause": "rung"}], "epochs"),  # rescued
        ("diverged", [{"epoch": 1, "decision": "continue", "cause": "rung"}], "diverged"),
    ],
)
def test_what_ended_a_trial(status: str | None, decisions: list[dict[str, Any]], ended_by: str | None) -> None:
    trial = record(0, [0.5, 0.4], status)
    trial.decisions = decisions
    assert trial.ended_by == ended_by


def test_arrivals_are_those_of_the_search_by_architecture_and_epoch_before_a_row() -> None:
    run = ObservedRun()
    cnn = [run.begin() for _ in range(3)]
    run.epoch(run.begin("vgg11"), 0.9)
    run.epoch(run.begin(role="retrain"), 0.8)
    rows = [run.epoch(trial, value) for trial, value in zip(cnn, (0.2, None, 0.4), strict=True)]
    run.epoch(cnn[0], 0.7)
    arrivals = run.history.arrivals("cnn", 1)
    assert list(arrivals.before(rows[2]["seq"], "val_accuracy"))[:1] == [0.2]
    assert len(arrivals.before(rows[2]["seq"], "val_accuracy")) == 2
    assert math.isnan(arrivals.before(rows[2]["seq"], "val_accuracy")[1])
    assert list(arrivals.before(rows[2]["seq"] + 1, "val_loss"))[2] == pytest.approx(1.6)
    assert list(run.history.arrivals("alexnet", 1).before(99, "val_loss")) == []


def test_trials_and_refusals_are_found_by_role_and_architecture() -> None:
    run = ObservedRun()
    for architecture, role in (("cnn", "search"), ("vgg11", "search"), ("cnn", "retrain"), ("cnn", "search")):
        run.begin(architecture, role)
    run.write("rejected", trial=4, architecture="cnn", draw=0, config={}, why="too deep")
    history = run.history
    assert [record.trial for record in history.searched("cnn")] == [0, 3]
    assert [record.trial for record in history.of_role("search")] == [0, 1, 3]
    assert [record.trial for record in history.of_role("retrain", "search")] == [0, 1, 2, 3]
    assert [len(history.refused(name)) for name in ("cnn", "vgg11")] == [1, 0]


def test_the_longest_first_epoch_is_kept_for_each_time_the_layers_changed() -> None:
    run = ObservedRun()
    first, second = run.begin(), run.begin()
    run.epoch(first, seconds=2.0)
    run.epoch(first, seconds=50.0, layers_change=True)
    run.epoch(first, seconds=9.0)
    run.epoch(first, seconds=70.0)
    run.epoch(second, seconds=3.0, layers_change=True)
    assert run.history.longest_first == {0: 3.0, 1: 9.0}


def test_the_place_of_an_ended_trial_is_found_anew_when_it_goes_on() -> None:
    run = ObservedRun()
    trial, other = run.begin(), run.begin()
    for each, value in ((trial, 0.5), (other, 0.6)):
        run.epoch(each, value)
        run.end(each, "stopped")
    trials = list(run.history.trials.values())
    assert [record.trial for record in ranked(trials, "val_accuracy")] == [other, trial]
    run.write("reopened", trial=trial, why="rescue")
    run.epoch(trial, 0.9)
    assert [record.trial for record in ranked(trials, "val_accuracy")] == [trial, other]
    run.end(trial, "lost")
    assert [record.trial for record in ranked(trials, "val_accuracy")] == [other, trial]


def test_rows_with_the_same_names_are_kept_in_half_the_memory_and_are_what_they_were() -> None:
    history = history_with_a_trial()
    given = [
        row(2 + number, "epoch", trial=0, attempt=1, epoch=number, seconds=0.5, **{f"figure{i}": i for i in range(12)})
        for number in range(1, 9)
    ]
    for each in given:
        history.apply(json.loads(json.dumps(each)))
    kept = history.trials[0].epochs
    assert kept == given
    assert json.dumps(kept) == json.dumps(given)  # in the same order, too
    assert sum(map(sys.getsizeof, kept[2:])) < 0.65 * sum(map(sys.getsizeof, given[2:]))


def test_a_name_that_python_uses_itself_is_a_name_like_others() -> None:
    history = history_with_a_trial()
    history.apply(row(2, "epoch", trial=0, attempt=1, epoch=1, seconds=0.5, **{"__class__": "x", "__dict__": 1, "": 2}))
    (kept,) = history.trials[0].epochs
    assert (kept["__class__"], kept["__dict__"], kept[""]) == ("x", 1, 2)

from typing import Any

import pytest

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
    assert history.seconds == {"search": 4.0 + 3.0}
    assert history.trials[0].ended_after == 7.0
    history.apply(row(120, "reopened", trial=0, incarnation=2))
    assert history.trials[0].ended_after is None


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

"""The dispatcher alone, without Ray: what comes back from workers becomes rows, decisions and attempts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.dispatch import MAX_LOSSES, Decision, Dispatcher, Proposal
from cluster.history import History, TrialRecord
from cluster.ledger import Ledger, read_rows

Decide = Callable[[History, TrialRecord, dict[str, Any]], Decision | None]


def proposals(count: int, epochs: int = 2) -> Callable[[History], Proposal | None]:
    def next_work(history: History) -> Proposal | None:
        if len(history.trials) >= count:
            return None
        work = {"epochs": epochs, "schedule_epochs": epochs}
        return Proposal("search", "cnn", {"learning_rate": 0.1}, seed=7, work=work, method="random")

    return next_work


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def dispatcher(ledger: Ledger, count: int = 1, decide: Decide = lambda *_: None, **options: Any) -> Dispatcher:
    return Dispatcher(ledger, ["search"], proposals(count), decide, **options)


def started(attempt: int = 1, epochs: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"kind": "started", "attempt": attempt, "host": "h", "pid": 1, "n_params": 5, "epochs": list(epochs)}


def epoch(number: int, val_loss: float | None = 1.0) -> dict[str, Any]:
    return {"epoch": number, "val_loss": val_loss, "val_accuracy": 0.5, "seconds": 1.0}


def reported(number: int, attempt: int = 1, **extra: Any) -> dict[str, Any]:
    return {"kind": "epoch", "attempt": attempt, "epoch": epoch(number), **extra}


def events(ledger: Ledger) -> list[str]:
    return [row["event"] for row in read_rows(ledger.path)]


def test_a_trial_runs_all_its_epochs_and_ends_once(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    given = run.hand_out("a")
    assert given is not None
    assert (given["trial"], given["attempt"], given["seed"]) == (0, 1, 7)
    assert run.report("a", started())
    assert run.report("a", reported(1))
    assert not run.report("a", reported(2))
    assert events(ledger) == ["proposed", "started", "epoch", "epoch", "ended"]
    assert ledger.history.trials[0].status == "completed"
    assert run.hand_out("b") is None


def test_a_stopping_decision_ends_the_trial_and_keeps_its_sentence(ledger: Ledger) -> None:
    run = dispatcher(ledger, decide=lambda *_: Decision(True, "too slow", rung=True))
    run.hand_out("a")
    run.report("a", started())
    assert not run.report("a", reported(1))
    record = ledger.history.trials[0]
    assert (record.status, record.stop_reason, record.rung) == ("stopped", "too slow", 1)


def test_a_diverged_trial_is_a_row_and_not_an_exception(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    run.hand_out("a")
    run.report("a", started())
    failed = {"status": "diverged", "error": "epoch 1: train_loss nan"}
    assert not run.report("a", {"kind": "epoch", "attempt": 1, "epoch": epoch(1, None), "failed": failed})
    assert (ledger.history.trials[0].status, ledger.history.trials[0].error) == ("diverged", "epoch 1: train_loss nan")


def test_a_lost_process_is_handed_out_again_with_the_next_attempt_and_goes_on(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    run.hand_out("a")
    run.report("a", started())
    run.report("a", reported(1))
    run.lost("a", "the actor died")
    given = run.hand_out("b")
    assert given is not None
    assert (given["trial"], given["attempt"]) == (0, 2)
    run.report("b", started(attempt=2, epochs=(epoch(1),)))  # the checkpoint knows epoch 1, as the ledger does
    assert not run.report("b", reported(2, attempt=2))
    assert [row["epoch"] for row in ledger.history.trials[0].epochs] == [1, 2]
    assert events(ledger).count("ended") == 1


def test_epochs_that_only_the_checkpoint_knew_are_entered(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    run.hand_out("a")
    run.lost("a", "the host died")
    run.hand_out("b")
    assert not run.report("b", started(attempt=2, epochs=(epoch(1), epoch(2))))
    assert ledger.history.trials[0].status == "completed"


def test_attempts_are_counted_even_if_the_process_never_spoke_and_end_as_lost(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    for attempt in range(1, MAX_LOSSES + 1):
        given = run.hand_out(f"key{attempt}")
        assert given is not None
        assert given["attempt"] == attempt
        run.lost(f"key{attempt}", "the actor died")
    record = ledger.history.trials[0]
    assert (record.status, record.error) == ("lost", "3 attempts failed, the last one with: the actor died")
    assert run.hand_out("again") is None


def test_interruptions_do_not_count_as_losses(ledger: Ledger) -> None:
    for attempt in range(1, 6):
        run = dispatcher(ledger)
        given = run.hand_out("a")
        assert given is not None
        assert given["attempt"] == attempt
        run.report("a", started(attempt=attempt))
    run.lost("a", "the actor died")
    assert ledger.history.trials[0].live
    assert run.hand_out("b") is not None


def stop_at(number: int) -> Decide:
    return lambda _, __, row: Decision(row["epoch"] == number, "at the rung", rung=True)


@pytest.mark.parametrize(
    ("rows_lost", "decide", "status", "reason"),
    [
        (1, lambda *_: None, "completed", "all 2 epochs"),
        (1, stop_at(2), "stopped", "at the rung"),
        (2, stop_at(2), "stopped", "at the rung"),
    ],
    ids=["ended lost", "ended lost after a decision", "decision and ended lost"],
)
def test_a_crash_between_an_epoch_and_its_outcome_changes_no_outcome(
    tmp_path: Path, rows_lost: int, decide: Decide, status: str, reason: str
) -> None:
    with Ledger(tmp_path) as ledger:
        run = dispatcher(ledger, decide=decide)
        run.hand_out("a")
        run.report("a", started())
        run.report("a", reported(1))
        run.report("a", reported(2))
    rows = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(rows[:-rows_lost]))
    with Ledger(tmp_path) as again:
        run = dispatcher(again, decide=decide)
        assert run.hand_out("b") is None
        record = again.history.trials[0]
        assert (record.status, record.stop_reason, len(record.epochs)) == (status, reason, 2)
        assert events(again).count("decision") == events(again).count("ended") * (2 if reason == "at the rung" else 0)


def test_a_crash_after_a_diverged_epoch_leaves_it_diverged(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        run = dispatcher(ledger)
        run.hand_out("a")
        run.report("a", started())
        failed = {"status": "diverged", "error": "epoch 1: nan"}
        run.report("a", {"kind": "epoch", "attempt": 1, "epoch": epoch(1, None), "failed": failed})
    rows = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(rows[:-1]))
    with Ledger(tmp_path) as again:
        assert dispatcher(again).hand_out("b") is None
        assert (again.history.trials[0].status, again.history.trials[0].error) == ("diverged", "epoch 1: nan")


def test_running_out_of_device_memory_is_an_outcome_and_is_not_tried_again(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    run.hand_out("a")
    run.report("a", started())
    run.lost("a", "torch.OutOfMemoryError: CUDA out of memory")
    assert ledger.history.trials[0].status == "out_of_memory"
    assert run.hand_out("b") is None


def test_an_interrupted_run_hands_out_its_unfinished_trials_first(ledger: Ledger) -> None:
    run = dispatcher(ledger, count=2)
    run.hand_out("a")
    run.report("a", started())
    run.interrupted = True
    assert not run.report("a", reported(1))
    assert run.hand_out("b") is None
    again = dispatcher(ledger, count=2)
    first, second = again.hand_out("c"), again.hand_out("d")
    assert first is not None
    assert second is not None
    assert (first["trial"], first["attempt"], second["trial"]) == (0, 2, 1)


def test_when_the_time_budget_is_used_up_nothing_new_starts_and_running_trials_end(ledger: Ledger) -> None:
    run = dispatcher(ledger, count=2)
    run.hand_out("a")
    run.report("a", started())
    run.deadline = 0.0
    assert run.hand_out("b") is None
    assert not run.report("a", reported(1))
    record = ledger.history.trials[0]
    assert (record.status, record.stop_reason) == ("stopped", "stopped at epoch 1: the time budget is used up")


def test_refused_configurations_are_rows_before_their_trial(ledger: Ledger) -> None:
    refused = ({"architecture": "cnn", "draw": 0, "config": {"depth": 9}, "why": "too deep"},)
    proposal = Proposal("search", "cnn", {}, 0, {"epochs": 1, "schedule_epochs": 1}, "random", rejected=refused)
    run = Dispatcher(ledger, ["search"], lambda history: None if history.trials else proposal, lambda *_: None)
    run.hand_out("a")
    rows = list(read_rows(ledger.path))
    assert [row["event"] for row in rows] == ["rejected", "proposed"]
    assert (rows[0]["trial"], rows[0]["why"], rows[1]["draw"]) == (0, "too deep", 1)


def test_a_checkpoint_is_removed_when_its_trial_ends_unless_its_weights_are_wanted(ledger: Ledger) -> None:
    for keep, name in ((False, "a"), (True, "b")):
        work = {"epochs": 1, "schedule_epochs": 1, "keep_checkpoint": keep}
        proposal = Proposal("search", "cnn", {}, 0, work, "random")
        made = iter([proposal])
        run = Dispatcher(ledger, ["search"], lambda _, made=made: next(made, None), lambda *_: None)  # type: ignore[misc]
        given = run.hand_out(name)
        assert given is not None
        folder = ledger.path.parent / "trials" / f"{given['trial']:04d}" / "checkpoint"
        folder.mkdir(parents=True)
        run.report(name, started())
        run.report(name, reported(1))
        assert folder.exists() is keep

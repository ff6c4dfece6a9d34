"""The dispatcher alone, without Ray: what comes back from workers becomes rows, decisions and attempts."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dispatch import MOST_FAILURES, MOST_LOSSES, Dispatcher
from cluster.history import History
from cluster.ledger import Ledger, read_rows
from cluster.proposal import Decision, Proposal
from cluster.record import TrialRecord
from cluster.resources import Host, Place, Slot
from foundation import HaltError

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
    return {
        "kind": "started",
        "attempt": attempt,
        "host": "h",
        "node": "h",
        "pid": 1,
        "n_params": 5,
        "epochs": list(epochs),
    }


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
    for attempt in range(1, MOST_LOSSES["died"] + 1):
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


def test_out_of_memory_is_tried_once_more_in_halves_and_then_an_outcome(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    assert run.hand_out("a")["micro_batch_divisor"] == 1  # type: ignore[index]
    run.report("a", started())
    run.lost("a", "torch.OutOfMemoryError: CUDA out of memory", "out_of_memory")
    assert run.hand_out("b")["micro_batch_divisor"] == 2  # type: ignore[index]
    run.lost("b", "torch.OutOfMemoryError: CUDA out of memory", "out_of_memory")
    record = ledger.history.trials[0]
    assert record.status == "out_of_memory"
    assert record.error == "2 attempts failed, the last one with: torch.OutOfMemoryError: CUDA out of memory"
    assert run.hand_out("c") is None


def test_a_trial_that_its_host_had_no_memory_for_runs_alone(ledger: Ledger) -> None:
    run = dispatcher(ledger, count=3)
    run.hand_out("a")
    run.hand_out("b")
    run.lost("a", "killed: low on memory", "out_of_memory")
    assert run.hand_out("c") is None  # trial 1 comes to its end first
    run.report("b", started())
    run.report("b", reported(1))
    assert not run.report("b", reported(2))
    run.finished("b")
    assert run.hand_out("c")["trial"] == 0  # type: ignore[index]
    assert run.hand_out("d") is None
    assert [row["alone"] for row in read_rows(ledger.path) if row["event"] == "lost"] == [True]


def test_a_hung_worker_is_retried_once(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    for key in ("a", "b"):
        assert run.hand_out(key)
        run.hung[key] = "epoch 1 hung: no end after 130 s, 120 are allowed"
        run.lost(key, "the actor died")
    record = ledger.history.trials[0]
    assert record.status == "lost"
    assert record.error == "2 attempts failed, the last one with: epoch 1 hung: no end after 130 s, 120 are allowed"
    assert [row["cause"] for row in record.lost] == ["hung", "hung"]


def test_a_retired_worker_costs_its_next_trial_nothing(ledger: Ledger) -> None:
    run = dispatcher(ledger)
    for attempt in range(1, 7):
        assert run.hand_out(f"key{attempt}")
        run.lost(f"key{attempt}", "3 bad outcomes in a row", "retired")
    assert ledger.history.trials[0].live
    assert ledger.history.trials[0].losses() == 0


def test_a_host_that_cannot_get_what_trials_need_costs_them_nothing_and_gets_no_more(ledger: Ledger) -> None:
    hosts = [Host(2, 0, name="one", node="n1"), Host(3, 0, name="two", node="n2")]
    run = dispatcher(ledger, count=9)
    run.sharing.place = Place(Slot(1, 0.0), hosts)
    for attempt in range(1, 2 * MOST_FAILURES):  # workers of that host all say it, and it is nobody's outcome
        key = f"key{attempt}"
        assert (run.hand_out(key) or {})["attempt"] == attempt
        assert not run.report(key, {"kind": "unfit", "node": "n2", "error": "host two: its disk is full"})
        run.finished(key)  # Ray lets go of it afterwards
    record, place = ledger.history.trials[0], run.sharing.place
    assert (record.live, record.losses(), run.halt) == (True, 0, None)
    assert {(row["cause"], row["charged"], row["error"]) for row in record.lost} == {
        ("unfit", False, "host two: its disk is full")
    }
    assert place.unfit == {"n2": "host two: its disk is full"}
    assert (place.room(hosts), place.room(hosts[1:]), place.room(hosts, spare=1)) == (2, 0, 3)
    assert json.loads(place.request()) == {"slot": {"cpu": 1, "gpu": 0.0}, "not_on": ["n2"]}
    assert (run.hand_out("elsewhere") or {})["trial"] == 0


def test_trials_that_all_fail_halt_the_search_and_wait_for_a_better_machine(ledger: Ledger) -> None:
    run, woken = dispatcher(ledger, count=9), []
    run.wake = lambda: woken.append(True)
    for number in range(MOST_FAILURES):
        key = str(number)
        assert run.hand_out(key)
        run.report(key, {"kind": "failed", "status": "data_error", "error": "the cache is gone"})
        run.finished(key)
    assert isinstance(run.halt, HaltError)
    assert "3 trials in a row could not be trained, the last one because: the cache is gone" in str(run.halt)
    assert run.hand_out("more") is None
    assert woken == [True]


def test_a_ledger_that_cannot_be_written_halts_the_search(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dispatcher(ledger, count=2)
    run.hand_out("a")
    run.report("a", started())
    seen = ledger.path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cluster.ledger.os.write", full)
        assert not run.report("a", reported(1))
        assert run.hand_out("b") is None
    assert isinstance(run.halt, OSError)
    assert (run.halt.errno, run.halt.filename) == (errno.ENOSPC, str(ledger.path))
    assert ledger.path.read_bytes() == seen
    assert ledger.history.trials[0].epochs == []


def test_with_one_worker_a_lost_trial_comes_before_the_next(ledger: Ledger) -> None:
    run = dispatcher(ledger, count=3, in_order=True)
    run.hand_out("a")
    run.report("a", started())
    run.hand_out("b")  # Ray has trial 1 ready while trial 0 runs
    run.lost("a", "the actor died")
    assert not run.report("b", started())  # it gives way
    run.finished("b")
    assert [run.hand_out(key)["trial"] for key in "cde"] == [0, 1, 2]  # type: ignore[index]
    assert events(ledger).count("started") == 1


def test_a_rescued_trial_runs_to_its_end_whatever_the_rungs_say(ledger: Ledger) -> None:
    stop: Decide = lambda *_: Decision(True, "too slow", rung=True)  # noqa: E731
    run = dispatcher(ledger, decide=stop)
    run.hand_out("a")
    run.report("a", started())
    run.report("a", reported(1))
    assert ledger.history.trials[0].status == "stopped"
    ledger.append("reopened", trial=0, why="rescue")
    again = dispatcher(ledger, decide=stop)
    assert again.hand_out("b")["attempt"] == 2  # type: ignore[index]
    again.report("b", started(attempt=2))
    assert again.report("b", reported(1, attempt=2))  # known already
    assert not again.report("b", reported(2, attempt=2))
    record = ledger.history.trials[0]
    assert (record.status, record.rung, len(record.epochs), record.reopened) == ("completed", 2, 2, 1)
    assert events(ledger).count("ended") == 2


def test_no_time_budget_ends_a_rescued_trial(ledger: Ledger) -> None:
    proposal = Proposal("search", "cnn", {}, 0, {"epochs": 3, "schedule_epochs": 3}, "random")
    run = Dispatcher(ledger, ["search"], lambda _: proposal, lambda *_: Decision(True, "too slow", rung=True))
    run.hand_out("a")
    run.report("a", started())
    run.report("a", reported(1))
    ledger.append("reopened", trial=0, why="rescue")
    again = Dispatcher(ledger, ["search"], lambda _: None, lambda *_: None)
    again.budget.end = 0.0
    assert again.hand_out("b")["trial"] == 0  # type: ignore[index]
    again.report("b", started(attempt=2))
    for epoch in (2, 3):
        again.report("b", reported(epoch, attempt=2))
    assert (ledger.history.trials[0].status, len(ledger.history.trials[0].epochs)) == ("completed", 3)


def test_a_time_budget_goes_by_while_trials_run_and_not_while_one_is_rescued(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("cluster.budget.time", SimpleNamespace(monotonic=lambda: clock[0]))
    run = dispatcher(ledger, count=2, budget_seconds=100.0)
    clock[0] += 1000.0  # workers start
    assert not run.out_of_time
    run.hand_out("a")
    clock[0] += 99.0
    assert not run.out_of_time
    clock[0] += 2.0
    assert run.out_of_time
    run.report("a", started())
    run.report("a", reported(1))
    ledger.append("ended", trial=0, status="stopped")
    ledger.append("reopened", trial=0, why="rescue")
    again = dispatcher(ledger, count=2, budget_seconds=100.0)
    again.hand_out("b")
    again.report("b", started(attempt=2))
    clock[0] += 1000.0
    assert not again.out_of_time
    assert again.hand_out("c")["trial"] == 1  # type: ignore[index]


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
    run.budget.end = 0.0
    assert run.hand_out("b") is None
    assert not run.report("a", reported(1))
    record = ledger.history.trials[0]
    assert (record.status, record.stop_reason) == ("stopped", "stopped at epoch 1: the time budget is used up")


def test_a_rung_passed_in_the_epoch_in_which_the_budget_ends_is_reached(ledger: Ledger) -> None:
    passed = Decision(False, "went on at epoch 1", rung=True)
    proposal = Proposal("search", "cnn", {}, 0, {"epochs": 3, "schedule_epochs": 3}, "random")
    run = Dispatcher(ledger, ["search"], lambda _: proposal, lambda *_: passed)
    run.hand_out("a")
    run.report("a", started())
    run.budget.end = 0.0
    assert not run.report("a", reported(1))
    record = ledger.history.trials[0]
    assert (record.status, record.ended_by, record.rung) == ("stopped", "budget", 1)


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
        run.close()
        assert folder.exists() is keep


def test_what_an_earlier_run_left_is_handed_out_only_where_so_many_workers_train_it(ledger: Ledger) -> None:
    for workers in (None, 2):
        work = {"epochs": 2, "schedule_epochs": 2} | ({"workers": workers} if workers else {})
        run = Dispatcher(
            ledger,
            ["search"],
            lambda _, work=work: Proposal("search", "cnn", {}, seed=7, work=work, method="random"),  # type: ignore[misc]
            lambda *_: None,
        )
        run.waiting.clear()
        run.hand_out("a")
    found = {
        workers: [each["trial"] for each in iter(lambda: left.hand_out("b"), None)]
        for workers in (1, 2, 3)
        if (left := dispatcher(ledger, count=2, workers=workers))
    }
    assert found == {1: [0], 2: [1], 3: []}

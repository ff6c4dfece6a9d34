"""Whatever process is killed, at whatever moment: the search goes on, and keeps every promise."""

import signal
from pathlib import Path

import pytest
from processes import Command, rows
from promises import broken_promises, random_configurations

from cluster.ledger import read_history
from cluster.table import trial_row

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

POINTS = [
    "ledger.before_write:kill:9",
    "ledger.after_write:kill:12",
    "checkpoint.before_write:kill:2",
    "checkpoint.mid_write:kill:2",
    "checkpoint.after_rename:kill:2",
    "trial.begin:kill:2",
    "trial.epoch:kill:5",
    "trial.before_report:kill:5",
]


def finished(folder: Path, *arguments: str, kill: str | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end, killing one kind of process after the second epoch; return what it said."""
    with Command(*arguments, environment=environment) as running:
        if kill:
            running.until_row(folder, event="epoch", epoch=2)
            running.kill(kill)
        assert running.end(250) == 0, running.said
        assert running.leaves_nothing()
    return running.said


@pytest.mark.parametrize("kind", ["driver", "worker", "raylet", "head"])
def test_a_killed_process_is_replaced_and_nothing_is_lost(storage: Path, asked, kind: str) -> None:
    said = finished(storage / "x", *asked("--method", "random", trials=4), kill=kind)
    assert broken_promises(storage / "x") == []
    history = read_history(storage / "x")
    assert [record.config for record in history.trials.values()] == random_configurations(storage / "x")
    assert {record.status for record in history.trials.values()} == {"completed"}
    assert ("starts again" in said) is (history.incarnation > 1)
    assert "Traceback" not in said


def test_a_killed_parent_takes_all_with_it_and_the_same_command_goes_on(storage: Path, asked) -> None:
    with Command(*asked()) as running:
        running.until_row(storage / "x", event="epoch", epoch=2)
        running.kill("parent")
        assert running.end() == -signal.SIGKILL
        assert running.leaves_nothing()
    known = rows(storage / "x")
    finished(storage / "x", *asked())
    assert rows(storage / "x")[: len(known)] == known
    assert broken_promises(storage / "x") == []


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_an_exact_place_changes_no_result(storage: Path, asked, plant, point: str) -> None:
    each_epoch = ("--checkpoint-every", "0s")  # however fast the machine is, there are as many
    finished(storage / "x", *asked("--method", "random", *each_epoch, trials=2), environment=plant(point))
    assert broken_promises(storage / "x") == []
    history = read_history(storage / "x")
    lost = sum(len(record.lost) for record in history.trials.values())
    assert (lost, history.incarnation) == ((0, 2) if point.startswith("ledger") else (1, 1))  # driver, or worker
    assert {(record.status, len(record.epochs)) for record in history.trials.values()} == {("completed", 9)}


def test_one_worker_and_one_seed_decide_the_same_with_and_without_kills(storage: Path, asked, plant) -> None:
    one = ("--max-concurrent", "1", "--cpus-per-trial", "1", "--seed", "3")
    faults = plant("trial.begin:kill:3", "trial.epoch:kill:7", "ledger.after_write:kill:25")
    figures = {}
    for name, environment in (("killed", faults), ("calm", {}), ("again", {}), ("and again", {})):
        finished(storage / name, *asked(*one, "--name", name, trials=6), environment=environment)
        assert broken_promises(storage / name) == []
        history = read_history(storage / name)
        assert (history.incarnation > 1) == (name == "killed")
        assert history.calibrated is not None
        settings = history.calibrated["settings"]
        figures[name] = [
            (record.config, [row["sentence"] for row in record.decisions], [row["val_loss"] for row in record.epochs])
            for record in history.trials.values()
        ]
        steady = ("trial", "status", "stop_reason", "epochs_run", "best_epoch", "val_accuracy")
        figures[name] += [{k: trial_row(r, "val_accuracy")[k] for k in steady} for r in history.trials.values()]
        if name == "killed":
            of_killed = settings
        elif settings == of_killed:  # other work on the machine may have made another way the fastest
            break
    assert settings == of_killed, "the machine was measured differently four times"
    assert figures[name] == figures["killed"]


def test_a_driver_that_dies_while_it_extends_a_search_extends_it_once(storage: Path, asked, plant) -> None:
    finished(storage / "x", *asked("--method", "random", trials=2, epochs=2))
    faults = plant("trial.before_report:kill:1", "ledger.after_write:kill:9")
    finished(storage / "x", "resume", str(storage / "x"), "--trials", "+2", environment=faults)
    history = read_history(storage / "x")
    assert history.trials_wanted == len(history.trials) == 4
    assert history.incarnation > 2
    assert broken_promises(storage / "x") == []


@pytest.mark.parametrize("point", ["analysis.test_opened:kill:1", "checkpoint.mid_write:kill:1", "trial.begin:kill:3"])
def test_an_analysis_that_is_killed_goes_on_and_opens_the_test_once(storage: Path, asked, plant, point: str) -> None:
    finished(storage / "x", *asked("--method", "random", trials=2, epochs=3))
    said = finished(storage / "x", "analyze", str(storage / "x"), "--seeds", "2", environment=plant(point))
    events = [row["event"] for row in rows(storage / "x")]
    assert (events.count("chosen"), events.count("test_opened")) == (1, 1)
    history = read_history(storage / "x")
    assert {record.status for record in history.of_role("retrain", "final")} == {"completed"}
    assert len(history.of_role("retrain")) == len(history.of_role("final")) in (2, 4)
    assert f"Model:  {storage / 'x' / 'model'}" in said
    assert (storage / "x" / "model" / "weights.safetensors").is_file()

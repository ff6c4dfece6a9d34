"""An experiment goes on as it was asked to last, and its end is said for the reason it has."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import terminal
from analysis import retrain
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.storage import FORMAT, read_experiment, write_experiment
from convscout import main
from foundation import RequestError
from search.request import keep_asked
from search.run import Outcome
from search.spec import SearchSpec, checked_spec, differences

ASKED = {"data": "digits", "name": "x", "arch": ["cnn"], "trials": 20, "epochs": 3}


def experiment(**changes: Any) -> dict[str, Any]:
    spec = checked_spec(ASKED | changes).model_dump(mode="json")
    return {"format": FORMAT, "name": "x", "spec": spec, "data": {"cache": "/decoded", "fingerprint": "f"}}


def request(spec: SearchSpec, cache: str) -> Any:
    return SimpleNamespace(spec=spec, cache=SimpleNamespace(folder=Path(cache)))


def test_what_resume_was_given_holds_for_the_commands_after_it(tmp_path: Path) -> None:
    first = experiment(time_budget="10m", max_concurrent=1)
    write_experiment(tmp_path, first)
    spec = checked_spec(first["spec"] | {"time_budget": "1h", "max_concurrent": 2, "trials": 99})
    keep_asked(tmp_path, first, request(spec, "/decoded/anew"))
    now = read_experiment(tmp_path)
    assert (now["spec"]["time_budget"], now["spec"]["max_concurrent"]) == (3600.0, 2)
    assert now["spec"]["trials"] == 20  # what is wanted in all stands in the ledger
    assert now["data"] == {"cache": "/decoded/anew", "fingerprint": "f"}
    assert checked_spec(now["spec"]).time_budget == 3600.0


def test_nothing_is_written_where_nothing_else_is_asked(tmp_path: Path) -> None:
    first = experiment(time_budget="10m")
    keep_asked(tmp_path, first, request(checked_spec(first["spec"]), "/decoded"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["resume x", "rescue x 7"])
def test_who_is_interrupted_before_the_cluster_answered_is_told_to_go_on_there(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(terminal, "drive_search", lambda *_, go_on, **__: told.append(go_on))
    Ledger(tmp_path / "x").close()
    for more in ([], ["--address", "new:6379"]):
        with pytest.raises(SystemExit):
            main([*command.split(), "--storage", str(tmp_path), *more])
    there = command.replace("x", str(tmp_path / "x"))
    assert told == [f"convscout {there}", f"convscout {there} --address new:6379"]


def test_who_is_interrupted_before_what_he_asked_was_kept_is_told_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(terminal, "drive_search", lambda *_, go_on, **__: told.append(go_on))
    Ledger(tmp_path / "x").close()
    with pytest.raises(SystemExit):
        main(["resume", "x", "--storage", str(tmp_path), "--trials", "+20", "--time-budget", "2h"])
    assert told == [
        f"convscout resume {tmp_path / 'x'} --trials 20 --time-budget 2h"
    ]  # a number in all: safe to repeat


class Answered(Exception):
    """The cluster let the process in, and the test has seen enough."""


@pytest.mark.parametrize(("answers", "kept"), [(False, "old:6379"), (True, "new:6379")])
def test_an_analysis_may_run_elsewhere_and_only_a_cluster_that_answers_is_kept(
    answers: bool, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(tmp_path, experiment(address="old:6379"))
    asked = []

    def opened(spec: dict[str, Any], *_: Any) -> None:
        asked.append(spec["address"])
        if not answers:
            raise RequestError("nothing answers there")

    def after(*_: Any) -> None:
        raise Answered

    monkeypatch.setattr(retrain, "open_session", opened)
    monkeypatch.setattr(retrain, "needs", after)
    also: dict[str, Any] = {"spaces": {}, "sources": {}}
    monkeypatch.setattr(retrain, "read_experiment", lambda folder: read_experiment(folder) | also)
    proposal = Proposal("retrain", "cnn", {}, 0, {"epochs": 1}, "x")
    options: dict[str, Any] = {"what": "analysis", "wanted": 1, "quiet": True, "address": "new:6379"}
    with Ledger(tmp_path) as ledger:
        ledger.append("calibrated", slot={"cpus": 1, "gpus": 0.0})
        with pytest.raises(Answered if answers else RequestError):
            retrain.run_trials(ledger, ("retrain",), lambda _: proposal, **options)
    assert asked == ["new:6379"]
    assert read_experiment(tmp_path)["spec"]["address"] == kept


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"out_of_time": True}, "5 trials were not run: the time budget is used up; give a larger one by"),
        ({"rescued": True}, "goes on with them"),
        ({}, "5 trials were not run: the grid has no more points"),
    ],
)
def test_the_end_of_a_search_has_its_own_reason(
    ended: dict[str, bool], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(tmp_path, experiment(method="grid"))
    history = SimpleNamespace(trials_wanted=20, of_role=lambda role: [None] * 15)
    monkeypatch.setattr("cluster.ledger.read_history", lambda folder: history)
    monkeypatch.setattr(terminal, "show_leaderboard", lambda *_, **__: None)
    spoken: list[str] = []
    monkeypatch.setattr(terminal, "say", lambda text, *_: spoken.append(text))
    terminal.finish(Outcome(tmp_path, interrupted=False, **ended))
    assert said in spoken[0]


def test_another_slot_is_another_experiment_and_not_silently_the_old_one() -> None:
    before = experiment()["spec"]
    assert differences(before, checked_spec(ASKED | {"cpus_per_trial": 2})) == [
        "cpus_per_trial: the experiment has None, now asked 2"
    ]
    assert differences(before, checked_spec(ASKED | {"max_concurrent": 1, "time_budget": "5m"})) == []

"""A grid with fewer points than trials asked for is planned, shown and run as what it has."""

import random
from pathlib import Path

import pytest
import yaml

import spaces
from cluster.ledger import Ledger
from search import request
from search.extended import note_extended
from search.pacing import Paces
from search.plan import simulate
from search.request import Request, prepare_request
from search.spec import make_spec


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, trials: int) -> tuple[Request, list[str]]:
    """Return a request over a space of two optimizers and three learning rates, and what was said of it."""
    monkeypatch.setattr(request, "prepare", lambda *_, **__: None)
    baseline = dict(spaces.load("cnn").baseline)
    common = {name: baseline.pop(name) for name in list(baseline) if name in spaces.load("alexnet").knobs}
    varied = {"optimizer": ["adam", "adamw"], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(common | varied | {"cnn": baseline}), encoding="utf-8")
    told: list[str] = []
    options = {"data": "digits", "arch": ("cnn",), "method": method, "trials": trials, "space": str(path)}
    return prepare_request(make_spec(options, None), None, told.append), told


def test_a_grid_that_is_smaller_than_asked_for_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = prepared(tmp_path, monkeypatch, "grid", 100)
    assert found.spec.trials == 7
    assert told == ["The grid has 7 trials in all, baselines counted: no more are to come."]


@pytest.mark.parametrize(("method", "trials"), [("grid", 7), ("grid", 3), ("random", 100), ("tpe", 100)])
def test_what_a_method_can_propose_stays_as_asked(
    method: str, trials: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, told = prepared(tmp_path, monkeypatch, method, trials)
    assert (found.spec.trials, told) == (trials, [])


def test_an_extension_ends_where_the_grid_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = prepared(tmp_path, monkeypatch, "grid", 3)
    told: list[str] = []
    with Ledger(tmp_path / "x") as ledger:
        ledger.append("experiment", name="x", trials=3)
        for asked, wanted in ((5, 5), (100, 7), (100, 7)):
            note_extended(ledger, found, {"versions": {}}, asked, told.append)
            assert ledger.history.trials_wanted == wanted
    assert sum(each.startswith("The grid has 7 trials in all") for each in told) == 2


def test_where_one_grid_is_at_its_end_the_others_have_the_rest_of_the_trials() -> None:
    spec = make_spec({"data": "digits", "method": "grid", "trials": 10, "epochs": 1}, None)
    small, large = Paces("cnn", (1.0,), 1, 0.0, 0.0, most=3), Paces("alexnet", (1.0,), 1, 0.0, 0.0, most=500)
    assert simulate([small, large], spec, 1, random.Random(0)).trials == {"cnn": 3, "alexnet": 7}

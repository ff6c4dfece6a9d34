"""A grid with fewer points than trials asked for is planned, shown and run as what it has."""

from pathlib import Path

import pytest
import yaml

import spaces
from search import request
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

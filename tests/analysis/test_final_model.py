"""The model that a final training ended with, and the one that a word means."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis import deploy, ship
from analysis.experiment import model_folder
from foundation import RequestError


def test_a_model_is_not_that_of_an_earlier_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SimpleNamespace(state={"training": {"epochs_done": 9}}, damaged=("a01-e0014: its digest differs",))
    monkeypatch.setattr(ship.checkpoint, "load", lambda _: kept)
    record: Any = SimpleNamespace(trial=7, work={"epochs": 14})
    experiment: Any = SimpleNamespace(folder=tmp_path)
    with pytest.raises(RequestError, match="after 9 epochs, and its model is that after 14: a01-e0014: its digest"):
        ship.final_model(experiment, record)


def test_an_experiment_is_found_by_its_name_beside_data_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("photos", "runs") == Path("photos")  # which loading it says is none
    (tmp_path / "runs" / "photos" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "photos" / "ledger.jsonl").touch()
    assert model_folder("photos", "runs") == tmp_path / "runs" / "photos" / "model"
    trusted: list[bool] = []
    monkeypatch.setattr(deploy, "load_model", lambda _, trust_code: trusted.append(trust_code))
    deploy.find_model("photos", "runs")  # by its name it is one's own
    for path in ("runs/photos", str(tmp_path / "runs" / "photos"), "../photos"):
        deploy.find_model(path, "runs/photos")
    monkeypatch.setattr(deploy, "model_folder", lambda *_: tmp_path)
    deploy.find_model("s3://bucket/photos", "runs")
    assert trusted == [True, False, False, False, False]

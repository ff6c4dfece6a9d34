"""An analysis of an experiment in an object store: what a trial kept of each image is fetched when it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from analysis.experiment import Experiment
from cluster.history import History
from cluster.record import TrialRecord
from cluster.storage import trial_folder
from foundation import RequestError
from trainables.validated import LOSSES


def test_losses_that_lie_in_the_store_only_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = np.array([[1.0, 2.0, 3.0], [0.5, 1.0, 1.5]], "<f4")
    record = TrialRecord(7, "retrain", "cnn", {}, 0, {"epochs": 2}, "retrain", 0.0, status="completed")
    record.epochs = [{"epoch": number, "val_loss": float(row.mean())} for number, row in enumerate(losses, start=1)]
    experiment = Experiment(tmp_path, {}, History())
    experiment.__dict__["_n_val"] = 3
    assert experiment.image_losses(record) is None  # a folder of this host has all there is
    fetched: list[str] = []

    def fetch(folder: Path, trials: str) -> None:
        fetched.append(trials)
        trial_folder(folder, 7).mkdir(parents=True)
        (folder / trials / LOSSES).write_bytes(losses.tobytes())

    monkeypatch.setattr("analysis.experiment.fetch_validated", fetch)
    for _ in range(2):
        found = experiment.image_losses(record)
        assert found is not None
        assert np.array_equal(found, losses)
    assert fetched == [trial_folder(tmp_path, 7).relative_to(tmp_path).as_posix()]


def test_images_that_are_gone_are_decoded_again_by_resume(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, {"data": {"cache": str(tmp_path / "elsewhere")}}, History())
    with pytest.raises(RequestError) as refused:
        experiment.check_folds(0)
    assert refused.value.problems[-1] == f"`convscout resume {tmp_path}` decodes them again, here"

import os
from dataclasses import replace
from pathlib import Path

import pytest

import spaces
from trainables.epoch_result import EpochResult
from trainables.models import Classifier
from trainables.pace import MOST_STAGES, measure_pace
from trainables.samples import Sample
from trainables.settings import Settings
from trainables.training import Training

BASELINE = spaces.load("cnn").baseline


def test_a_larger_model_has_a_slower_pace() -> None:
    samples = [Sample("cnn", BASELINE | {"filters": filters}) for filters in (8, 64)]
    small, large = measure_pace(samples, {"cnn": Settings()}, (3, 32, 32), 10, 0.2, epochs=3, seconds=0.0)
    assert 0 < 3 * small.seconds_per_image < large.seconds_per_image  # 64 times the operations of most layers
    assert small.begin_seconds > 0


def test_what_frozen_layers_give_is_kept_as_in_a_search_and_thawed_layers_count_as_long_as_they_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch = Training.epoch

    def clocked(self: Training) -> EpochResult:
        """Train an epoch, which takes 1 s where the backbone computes, and 0.1 s where what it gives is read."""
        found = epoch(self)
        return replace(found, seconds=0.1 if found.reads_features else 1.0)

    monkeypatch.setattr(Training, "epoch", clocked)
    plain = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)
    transfer = spaces.load("mobilenet_v2").baseline | plain | {"weights": "none", "input_size": 32, "batch_size": 8}
    ways = ({"trainable_layers": 0}, {"trainable_layers": "all", "frozen_epochs": 2}, {"trainable_layers": "all"})
    samples = [Sample("mobilenet_v2", transfer | {"frozen_epochs": 0} | way) for way in ways]
    found = measure_pace(samples, {"mobilenet_v2": Settings()}, (3, 32, 32), 10, 0.2, epochs=8, seconds=0.0)
    assert [each.seconds_per_image * 32 for each in found] == pytest.approx([0.1, (2 * 0.1 + 6 * 1.0) / 8, 1.0])


def test_of_many_stages_a_few_are_trained_beside_the_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path))
    (tmp_path / ".pace-left").mkdir()  # by one that was killed
    os.utime(tmp_path / ".pace-left", (0, 0))
    epoch, kept = Training.epoch, []

    def noted(self: Training) -> EpochResult:
        assert self.dataset.features
        kept.append(self.dataset.features.parent.parent)
        return epoch(self)

    monkeypatch.setattr(Training, "epoch", noted)
    monkeypatch.setattr(Classifier, "stages", lambda _, epochs: list(range(epochs)))  # another layer thaws in each
    measure_pace([Sample("cnn", BASELINE)], {"cnn": Settings()}, (3, 32, 32), 10, 0.2, epochs=90, seconds=0.0)
    assert kept == [tmp_path] * 2 * MOST_STAGES
    assert list(tmp_path.iterdir()) == []

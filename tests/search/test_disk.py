"""The disk a search may use: the largest state of each architecture, against what is really written and free."""

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import spaces
from foundation import RequestError
from search.disk import CHECKPOINTS, disk_bound, largest_state
from search.preflight import preflight
from search.request import Request
from trainables import checkpoint
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

Usage = namedtuple("Usage", "total used free")


def request(*architectures: str, trials: int = 10, epochs: int = 5) -> Any:
    loaded = {name: spaces.load(name) for name in architectures}
    cache = SimpleNamespace(image_shape=(3, 32, 32), classes=("a", "b"))
    return Request(SimpleNamespace(trials=trials, epochs=epochs), cache, loaded, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("architecture", ["cnn", "alexnet"])
def test_no_state_is_larger_than_reckoned(tmp_path: Path, architecture: str, optimizer: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    data = Dataset(images, np.arange(8) % 2, np.arange(6), np.arange(6, 8), 2, (128.0,) * 3, (70.0,) * 3)
    config = {**spaces.load(architecture).baseline, "optimizer": optimizer, "batch_size": 4}
    config |= {"momentum": 0.9} if optimizer in ("sgd", "rmsprop") else {}
    training = Training(data, Settings(threads=torch.get_num_threads()))
    training.begin(architecture, config, seed=0, epochs=1)
    training.epoch()
    checkpoint.save(tmp_path, 1, 1, {"training": training.state(), "epochs": "[]"}, "x")
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    reckoned = preflight(architecture, config, (3, 32, 32), 2).state_bytes
    assert written <= reckoned
    if optimizer in ("adam", "adamw"):
        assert written > 0.8 * (reckoned - 200_000)


def test_the_largest_configuration_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = request("cnn", "alexnet")
    states = [largest_state(request(name)) for name in ("cnn", "alexnet")]
    assert largest_state(both) == max(states)
    baseline = preflight("alexnet", spaces.load("alexnet").baseline, (3, 32, 32), 2).state_bytes
    assert largest_state(request("alexnet")) >= baseline
    monkeypatch.setattr("search.disk.shutil.disk_usage", lambda _: Usage(0, 0, 10**12))
    two, four = (disk_bound(both, max(states), slots, 10, tmp_path).total_bytes for slots in (2, 4))
    assert four - two == 2 * CHECKPOINTS * max(states)
    assert "1000.0 GB are free" in disk_bound(both, max(states), 2, 10, tmp_path).sentence


def test_too_little_room_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("search.disk.shutil.disk_usage", lambda _: Usage(0, 0, 5_000_000))
    with pytest.raises(RequestError) as caught:
        disk_bound(request("cnn"), 10**7, 2, 10, tmp_path / "runs" / "x")
    assert str(caught.value).startswith(
        f"{tmp_path / 'runs' / 'x'} has 5 MB free, and this search may need 150 MB there: 150 MB for the checkpoints "
        "of 2 running trials and 3 that may be rescued"
    )
    assert "give another --storage" in str(caught.value)

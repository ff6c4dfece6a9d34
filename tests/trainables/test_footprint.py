"""What one trial takes of memory, against what training really took: on a CPU, and on a GPU where there is one."""

import subprocess
import sys
from pathlib import Path

import pytest

import spaces
from trainables import footprint
from trainables.footprint import _peak, measure_footprint
from trainables.samples import Sample
from trainables.settings import Settings

SHAPE = (3, 32, 32)
CONFIG = spaces.load("cnn").baseline | {"filters": 64, "depth": 2, "dense_units": 16, "batch_size": 512}
SAMPLE = Sample("cnn", CONFIG)
KEPT = 1_500_000  # of an image, about

REAL = """
import json, sys
from tests_of_footprint import KEPT, SAMPLE, SHAPE
from trainables.footprint import _peak, measure_footprint
from trainables.settings import Settings

settings = Settings(threads=2)
found = measure_footprint(SAMPLE, settings, SHAPE, 2, 1, KEPT, 0).host_bytes
print(json.dumps([found, _peak(SAMPLE, settings, SHAPE, 2, 512)]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
def test_what_is_reckoned_from_a_few_images_is_what_the_whole_batch_takes(tmp_path: Path) -> None:
    """In a process of its own, as a worker is: what this one has freed before would hide what is taken."""
    (tmp_path / "tests_of_footprint.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "real.py").write_text(REAL, encoding="utf-8")
    house = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "real.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        cwd=house,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": house},
    )
    assert done.returncode == 0, done.stderr
    reckoned, real = map(float, done.stdout.strip().strip("[]").split(","))
    assert real > 5e8
    assert 0.8 * real < reckoned < 1.5 * real


def test_the_evaluation_counts_where_it_takes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_peak", lambda sample, settings, shape, classes, images: 100e6 + images * 1e6)
    small = Sample("cnn", {**CONFIG, "batch_size": 64})
    for n_val, largest, taken in ((10, 1_000_000, 164e6), (500, 1_000_000, 486e6), (500, 0, 164e6)):
        found = measure_footprint(small, Settings(), SHAPE, 2, n_val, KEPT, largest)
        assert found is not None
        assert found.host_bytes == pytest.approx(taken)


def test_a_tiny_batch_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_peak", lambda sample, settings, shape, classes, images: 100e6 + images * 1e6)
    found = measure_footprint(Sample("cnn", {**CONFIG, "batch_size": 2}), Settings(), SHAPE, 2, 1, KEPT, 0)
    assert found is not None
    assert found.host_bytes == 102e6


def test_where_the_system_does_not_tell_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_peak", lambda *_: None)
    assert measure_footprint(SAMPLE, Settings(), SHAPE, 2, 1, KEPT, 0) is None


def test_layers_that_thaw_later_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("trainables.models.Classifier.begin_epoch", lambda self, epoch: seen.append(epoch))
    assert _peak(SAMPLE, Settings(), SHAPE, 2, 2) is not None
    assert min(seen) >= footprint.LATE_EPOCH


@pytest.mark.gpu
def test_on_a_gpu_the_peak_is_that_of_the_whole_batch() -> None:
    small, large = (Sample("cnn", {**CONFIG, "batch_size": size}) for size in (64, 2048))
    settings = Settings("cuda")
    found = [measure_footprint(each, settings, SHAPE, 2, 200, KEPT, 0) for each in (small, large)]
    assert all(each is not None for each in found)
    first, second = (each for each in found if each)
    assert first.context_bytes < first.device_bytes < second.device_bytes <= second.device_total
    assert second.device_bytes - first.device_bytes > 1000 * KEPT
    assert second.host_bytes > 0

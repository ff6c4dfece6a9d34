"""Several trainings beside one another, each in a process of its own: for real, on a CPU, with a tiny model."""

import os
from types import SimpleNamespace

import pytest

import spaces
from trainables import side_by_side
from trainables.samples import Sample
from trainables.settings import Settings
from trainables.side_by_side import measure_rates

CNN = Sample("cnn", spaces.load("cnn").baseline | {"filters": 8, "depth": 1, "dense_units": 8, "batch_size": 4})
SHAPE = (3, 28, 28)


@pytest.mark.timeout(400)
def test_processes_train_at_the_same_time_until_more_do_not_gain() -> None:
    found = measure_rates(
        [CNN], {"cnn": Settings()}, SHAPE, 2, counts=[1, 2, 4], gain_needed=1000.0, cores=2, seconds=0.2
    )
    assert set(found) == {1, 2}  # two did not bring a thousand times as much, so four were not tried
    assert all(rate > 0 for rate in found.values())


@pytest.mark.timeout(400)
def test_where_a_process_dies_the_number_before_is_the_most() -> None:
    """A configuration that cannot be trained ends its process, as too little memory would."""
    broken = Sample("cnn", {**CNN.config, "kernel": -1})
    with pytest.raises(RuntimeError, match="died before it had trained"):
        measure_rates([broken], {"cnn": Settings()}, SHAPE, 2, counts=[1, 2], gain_needed=1.0, cores=2, seconds=0.2)


def test_architectures_count_alike_and_a_number_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        """Stand for whatever a process or a pipe is told."""

    pipe = SimpleNamespace(close=nothing)
    process = SimpleNamespace(start=nothing, kill=nothing, join=nothing)
    context = SimpleNamespace(Pipe=lambda: (pipe, pipe), Process=lambda **_: process)
    asked: list[tuple[int, str, int]] = []

    def together(workers: list[object], sample: Sample, settings: Settings, seconds: float) -> float:
        asked.append((len(workers), sample.architecture, settings.threads))
        if len(workers) == 8:
            raise EOFError
        return {"cnn": 100.0, "vgg11": 300.0}[sample.architecture] * len(workers)

    monkeypatch.setattr(side_by_side, "get_context", lambda _: context)
    monkeypatch.setattr(side_by_side, "_together", together)
    samples = [CNN, Sample("vgg11", {})]
    settings = {"cnn": Settings(), "vgg11": Settings()}
    found = measure_rates(samples, settings, SHAPE, 2, counts=[1, 2, 4, 8, 16], gain_needed=1.05, cores=8)
    assert found == pytest.approx({1: 150.0, 2: 300.0, 4: 600.0})
    assert asked[:3] == [(1, "cnn", 8), (1, "vgg11", 8), (2, "cnn", 4)]
    assert max(number for number, _, _ in asked) == 8


@pytest.mark.gpu
@pytest.mark.timeout(400)
def test_processes_share_a_gpu() -> None:
    settings = {"cnn": Settings("cuda", threads=os.cpu_count() or 1)}
    found = measure_rates([CNN], settings, SHAPE, 2, counts=[1, 2], gain_needed=0.0, cores=2)
    assert set(found) == {1, 2}

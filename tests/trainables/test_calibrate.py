import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import spaces
from foundation import RequestError
from trainables import calibrate as measured
from trainables.calibrate import Calibrated, calibrate
from trainables.samples import Sample, begun, lengthen
from trainables.settings import Settings

CNN = Sample("cnn", spaces.load("cnn").baseline | {"filters": 16})
VGG = Sample("vgg11", spaces.load("vgg11").baseline | {"base_width": 8})


def measure(*samples: Sample, precision: str = "fp32", **options: Any) -> Calibrated:
    return calibrate(samples, (3, 28, 28), 10, precision, cores=1, gpus=0.0, **options)


def speeds(monkeypatch: pytest.MonkeyPatch, *, side_by_side: float = 0.0, **known: float) -> None:
    """Let every way have a known speed: `fp32`, `bf16`, `channels_last` (a factor), `all_cores`."""

    def fastest(sample: Sample, data: Any, ways: list[Settings]) -> dict[Settings, float]:
        if ways[0].threads > 1:
            return {ways[0]: known["all_cores"]}
        return {way: known[way.precision] * (known["channels_last"] if way.channels_last else 1) for way in ways}

    monkeypatch.setattr(measured, "_fastest", fastest)
    monkeypatch.setattr(measured, "_side_by_side", lambda *_: side_by_side)


def test_every_architecture_is_measured_and_has_settings_of_its_own() -> None:
    found = measure(CNN, VGG)
    assert set(found.settings) == set(found.images_per_second) == {"cnn", "vgg11"}
    assert {each.precision for each in found.settings.values()} == {"fp32"}
    assert set(found.images_per_second["cnn"]) == {"fp32 channels_last", "fp32 contiguous"}
    assert all(speed > 0 for each in found.images_per_second.values() for speed in each.values())
    assert found.cores == 1


def test_trials_side_by_side_are_measured_against_one_on_all_cores() -> None:
    figures = measure(CNN, host_cores=2, beside=2).images_per_second["cnn"]
    assert figures["side by side"] > 0
    assert figures["all cores"] > 0


@pytest.mark.timeout(60)
def test_where_one_of_them_fails_the_others_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = measured._begun
    order = itertools.count()

    def short_of_memory(*given: Any, **changes: Any) -> Any:
        if next(order) == 1:
            raise MemoryError("there is none left")
        return begun(*given, **changes)

    monkeypatch.setattr(measured, "_begun", short_of_memory)
    settings = Settings("cpu", "fp32", channels_last=True, threads=1)
    data = measured.noise((3, 28, 28), 10, 4, 1)
    with pytest.raises(MemoryError, match="there is none left"):
        measured._side_by_side(CNN, data, settings, 2)


def test_without_a_gpu_in_the_slot_the_settings_are_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    speeds(monkeypatch, fp32=100.0, channels_last=1.0)
    assert measure(CNN).settings["cnn"].device == "cpu"


@pytest.mark.parametrize(("bf16", "chosen"), [(119.0, "fp32"), (121.0, "bf16")])
def test_coarser_numbers_must_be_worth_it(monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str) -> None:
    speeds(monkeypatch, fp32=100.0, bf16=bf16, channels_last=1.0)
    assert measure(CNN, precision="auto").settings["cnn"].precision == chosen


@pytest.mark.parametrize(("factor", "last"), [(0.9, False), (0.95, True), (1.1, True)])
def test_the_faster_memory_format_is_taken(monkeypatch: pytest.MonkeyPatch, factor: float, last: bool) -> None:
    speeds(monkeypatch, fp32=100.0, channels_last=factor)
    assert measure(CNN).settings["cnn"].channels_last is last


@pytest.mark.parametrize(("all_cores", "cores"), [(210.0, 1), (230.0, 4)])
def test_all_cores_are_given_to_one_trial_only_where_that_trains_more_images(
    monkeypatch: pytest.MonkeyPatch, all_cores: float, cores: int
) -> None:
    speeds(monkeypatch, fp32=100.0, channels_last=1.0, side_by_side=200.0, all_cores=all_cores)
    found = measure(CNN, VGG, host_cores=4, beside=2)
    assert found.cores == cores
    assert {each.threads for each in found.settings.values()} == {cores}


def test_a_gpu_without_bf16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, fp32=1.0, bf16=9.0, channels_last=2.0)
    monkeypatch.setattr(measured, "computes_in_bf16", lambda device: False)
    assert measure(CNN, precision="auto").settings["cnn"].precision == "fp32"
    assert measure(CNN, precision="bf16").settings["cnn"].precision == "bf16"


def test_a_way_that_is_hopeless_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    class Slow:
        def __init__(self, way: Settings) -> None:
            self.way = way

        def use(self, way: Settings) -> None:
            self.way = way

    def speed(training: Any) -> float:
        steps.append(training.way.precision)
        return 10.0 if training.way.precision == "bf16" else 100.0

    monkeypatch.setattr(measured, "_begun", lambda sample, data, way: Slow(way))
    monkeypatch.setattr(measured, "_speed", speed)
    assert measure(CNN, precision="auto").settings["cnn"].precision == "fp32"
    assert steps.count("bf16") == 2  # one a memory format
    assert steps.count("fp32") == 2 * (1 + measured.ROUNDS)


def test_a_recording_is_not_judged_by_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded:
        def __init__(self, way: Settings) -> None:
            self.way, self.steps = way, 0

        def use(self, way: Settings) -> None:
            self.way = way

    def speed(training: Any) -> float:
        training.steps += 1
        return 100.0 if not training.way.captured else 1.0 if training.steps == 1 else 500.0

    monkeypatch.setattr(measured, "_begun", lambda sample, data, way: Recorded(way))
    monkeypatch.setattr(measured, "_speed", speed)
    plain, captured = Settings(), Settings(captured=True)
    data = measured._data("cpu", CNN, (3, 28, 28), 2)
    assert measured._fastest(CNN, data, [plain, captured])[captured] == 500.0


def speed_of(way: Settings) -> float:
    """A small network on a GPU: bf16 has more kernels to start, which nobody waits for once they are recorded."""
    return {"fp32": (100.0, 150.0), "bf16": (80.0, 300.0)}[way.precision][way.captured] * (
        1 if way.channels_last else 0.5
    )


@pytest.mark.parametrize("alike", [True, False])
def test_precisions_are_compared_anew_where_steps_are_recorded(monkeypatch: pytest.MonkeyPatch, alike: bool) -> None:
    monkeypatch.setattr(measured, "_fastest", lambda _, __, ways: {way: speed_of(way) for way in ways})
    monkeypatch.setattr(measured, "trains_alike", lambda *_: alike)
    ways = [Settings("cuda", precision, last) for precision in ("fp32", "bf16") for last in (True, False)]
    speeds = {way: speed_of(way) for way in ways}
    data = measured._data("cpu", CNN, (3, 28, 28), 10)
    best, found = measured._captured_or_not(CNN, data, ways[0], speeds)
    assert best == (Settings("cuda", "bf16", captured=True) if alike else Settings("cuda", "fp32"))
    assert found == speeds | ({best: 300.0} if alike else {})


def test_where_memory_does_not_suffice_to_record_steps_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(measured, "_fastest", fails)
    way = Settings("cuda", "fp32")
    data = measured._data("cpu", CNN, (3, 28, 28), 10)
    error: Exception = torch.OutOfMemoryError("none is left")
    assert measured._captured_or_not(CNN, data, way, {way: 1.0}) == (way, {way: 1.0})
    error = torch.AcceleratorError("an illegal address")  # nothing can be relied on after that
    with pytest.raises(torch.AcceleratorError):
        measured._captured_or_not(CNN, data, way, {way: 1.0})


def test_on_a_gpu_epochs_are_lengthened_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Sample("cnn", CNN.config | {"batch_size": 64})
    assert [len(measured._data("cuda", large, (3, side, side), 10).train) for side in (28, 224)] == [64, 41]
    epochs, lengthened = itertools.count(1), []
    trainings = SimpleNamespace(use=lambda _: None)
    monkeypatch.setattr(measured, "SECONDS", 0.0)
    monkeypatch.setattr(measured, "_begun", lambda *_: trainings)
    monkeypatch.setattr(measured, "_speed", lambda _: 1.0 / next(epochs))
    monkeypatch.setattr(measured, "lengthen", lambda *given: lengthened.append(given))
    data = measured._data("cuda", CNN, (3, 28, 28), 10)
    assert measured._fastest(CNN, data, [Settings("cuda")]) == {Settings("cuda"): 1 / 2}  # the first loads the kernels
    assert lengthened == [(trainings, *measured.ON_GPU)]


def test_epochs_become_as_long_as_they_are_to_be() -> None:
    training = begun(CNN, measured._data("cpu", CNN, (3, 28, 28), 10), Settings(), batch_size=32)
    lengthen(training, 1e6, 7)
    assert len(training.train_indices) == 7 * 32
    assert training.epoch().images_per_second > 0
    lengthen(training, 1e-9, 7)
    assert len(training.train_indices) == 7 * 32


def test_a_gpu_that_holds_no_such_batch_is_measured_with_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fastest(_: Sample, data: Any, ways: list[Settings]) -> dict[Settings, float]:
        tried.append(len(data.train))
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return dict.fromkeys(ways, 1.0)

    monkeypatch.setattr(measured, "best_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(measured, "computes_in_bf16", lambda _: True)
    monkeypatch.setattr(measured, "name_of", lambda _: "a small one")
    monkeypatch.setattr(measured, "_fastest", fastest)
    large = Sample("cnn", CNN.config | {"batch_size": 64})
    assert measure(large, precision="auto").settings["cnn"] == Settings("cuda")
    assert tried[:2] == [64, 32]


VIEWS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3), nn.Linear(4 * 26 * 26, classes)

    def forward(self, images):
        found = self.conv(images)
        return self.dense(found.view(len(found), -1))

def build(image_shape, classes):
    return Net(classes)
"""


def test_what_a_users_file_cannot_do_is_said_of_it_with_the_remedy() -> None:
    sample = Sample("mine", dict(spaces.TRAINING_BASELINE), VIEWS)
    with pytest.raises(RequestError, match=r"architecture 'mine': its baseline cannot be trained .*x\.flatten\(1\)"):
        measure(sample)
    right = Sample(
        "mine", dict(spaces.TRAINING_BASELINE), VIEWS.replace("found.view(len(found), -1)", "found.flatten(1)")
    )
    assert measure(right).settings["mine"].precision == "fp32"


def test_the_speed_of_one_trial_is_not_that_of_several_beside_it() -> None:
    found = {"cnn": {"fp32 channels_last": 100.0, "bf16 channels_last": 160.0}}
    assert measured.single_speed(found, "cnn") == 160.0
    found["cnn"] |= {"side by side": 900.0, "all cores": 500.0}  # each of several has a core: one trial has no more
    assert measured.single_speed(found, "cnn") == 160.0
    found["cnn"] |= {"side by side": 300.0}  # one trial has all cores
    assert measured.single_speed(found, "cnn") == 500.0

"""Steps recorded once and replayed: the bookkeeping on any device, the recording where there is a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import spaces
from trainables.alike import trains_alike
from trainables.batches import Dataset
from trainables.captured import WARM_UP, CapturedSteps, CudaGraphs, rate_on_device, set_rate
from trainables.samples import Sample, noise
from trainables.settings import Settings
from trainables.training import Training


class Replays:
    """Stands in for a GPU: what it records reads its tensors again each time, as a graph does."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.warmed, self.recorded = refuses, 0, 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warmed += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1
        return work


def added(steps: CapturedSteps, numbers: Sequence[Sequence[int]], key: str = "all") -> list[list[int]]:
    seen: list[list[int]] = []

    def work(parts: Sequence[Tensor]) -> None:
        seen.append(torch.cat(list(parts)).tolist())

    for each in numbers:
        steps.take(key, [torch.tensor(each)], work)
    return seen


def test_every_step_sees_its_own_indices_recorded_or_not() -> None:
    recorder = Replays()
    steps = CapturedSteps(recorder)
    numbers = [[index, index + 1] for index in range(WARM_UP + 4)]
    assert added(steps, numbers) == numbers
    assert (recorder.warmed, recorder.recorded, steps.replayed) == (WARM_UP, 1, 4)


def test_a_shorter_step_and_other_layers_are_recorded_by_themselves() -> None:
    recorder = Replays()
    steps = CapturedSteps(recorder)
    added(steps, [[1, 2]] * (WARM_UP + 1))
    assert added(steps, [[7]]) == [[7]]
    assert added(steps, [[3, 4]], key="head") == [[3, 4]]
    assert recorder.recorded == 1
    added(steps, [[7]] * WARM_UP)
    assert recorder.recorded == 2


def test_what_cannot_be_recorded_is_done_directly_and_says_why() -> None:
    recorder = Replays(refuses=True)
    steps = CapturedSteps(recorder)
    numbers = [[index] for index in range(WARM_UP + 3)]
    assert added(steps, numbers) == numbers
    assert steps.refused == "operation not permitted when stream is capturing"
    assert (recorder.warmed, steps.replayed) == (WARM_UP, 0)


def test_a_recording_without_memory_is_the_trials_want_of_memory() -> None:
    class Full(Replays):
        def record(self, work: Callable[[], None]) -> Callable[[], None]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        added(CapturedSteps(Full()), [[1]] * (WARM_UP + 1))


def test_steps_counted_on_the_host_go_on_on_the_device() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.RMSprop([weight], foreach=True)
    weight.grad = torch.ones(1)
    optimizer.step()
    rate_on_device(optimizer, torch.device("meta"))
    assert optimizer.state[weight]["step"].device.type == "meta"


def test_a_learning_rate_on_the_device_stays_where_a_recording_reads_it() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    rate_on_device(optimizer, torch.device("cpu"))
    rate = optimizer.param_groups[0]["lr"]
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == 0.75


def test_a_learning_rate_that_is_a_number_is_replaced() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    set_rate(optimizer, 0.125)
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.gpu  # only there are graphs recorded
def test_a_graph_draws_new_random_numbers_each_time_and_follows_its_inputs() -> None:
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(1)
    total = torch.zeros(1, device=device)
    steps = CapturedSteps(CudaGraphs())

    def work(parts: Sequence[Tensor]) -> None:
        total.add_(parts[0].sum() + torch.rand(1, generator=generator, device=device))

    found = []
    for index in range(WARM_UP + 5):
        total.zero_()
        steps.take("all", [torch.tensor([index], device=device)], work)
        found.append(total.item() - index)
    assert steps.refused is None
    assert steps.replayed == 5
    assert len(set(found)) == len(found)
    assert all(0 <= each < 1 for each in found)


TINY = {"depth": 1, "filters": 8, "dense_layers": 1, "dense_units": 16, "batch_norm": True, "dropout": 0.3}
AUGMENTED = {"flip": 0.5, "shift": 0.1, "rotation": 10.0, "zoom": 0.1, "shear": 5.0, "cutout": 0.2}
CONFIGURATIONS = {
    "plain": {},
    "adam": {"optimizer": "adam"},
    "augmented": AUGMENTED,
    "accumulated": {"accumulation_steps": 2},
    "one_cycle": {"schedule": "one_cycle"},
    "weighted": {"class_weights": "balanced"},
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return noise((1, 28, 28), 3, n_train=88, n_val=20)  # five steps of 16 images and one of 8


def begun(data: Dataset, settings: Settings, **changes: Any) -> Training:
    training = Training(data, settings)
    config = spaces.load("cnn").baseline | TINY | {"batch_size": 16, "optimizer": "sgd"} | changes
    training.begin("cnn", config, seed=1, epochs=6)
    return training


def losses(training: Training, epochs: int) -> list[tuple[float, float | None]]:
    results = [training.epoch() for _ in range(epochs)]
    return [(result.train_loss, result.val_loss) for result in results]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.training.CudaGraphs", lambda *_: Replays())


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_replayed_steps_train_as_those_that_are_not(data: Dataset, name: str) -> None:
    plain = losses(begun(data, Settings(), **CONFIGURATIONS[name]), 6)
    training = begun(data, Settings(captured=True), **CONFIGURATIONS[name])
    assert losses(training, 6) == [pytest.approx(pair, rel=1e-6) for pair in plain]  # the rate is a float32 there
    assert training.captured is not None
    assert training.captured.replayed >= 6


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kept_by", [False, True])
def test_a_state_goes_on_recorded_or_not_whoever_kept_it(data: Dataset, kept_by: bool) -> None:
    expected = losses(begun(data, Settings()), 6)
    first = begun(data, Settings(captured=kept_by))
    assert losses(first, 3) == [pytest.approx(pair, rel=1e-6) for pair in expected[:3]]
    kept = first.state()
    second = begun(data, Settings(captured=not kept_by))
    second.restore(kept)
    assert losses(second, 3) == [pytest.approx(pair, rel=1e-6) for pair in expected[3:]]


class Stale(Replays):
    """A recorder that goes wrong as graphs do: it does again what it did with the tensors of the first time."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return (lambda: None) if self.wrong == "nothing happens" else (lambda: [work(), work()][0])


def alike() -> bool:
    sample = Sample("cnn", spaces.load("cnn").baseline | TINY | {"learning_rate": 0.003})
    return trains_alike(sample, (1, 28, 28), 3, Settings(captured=True))


@pytest.mark.usefixtures("on_cpu")
def test_what_is_recorded_right_trains_alike() -> None:
    assert alike()


@pytest.mark.parametrize("wrong", ["nothing happens", "each step is taken twice"])
def test_what_is_recorded_wrong_does_not_train_alike(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr("trainables.training.CudaGraphs", lambda *_: Stale(wrong))
    assert not alike()


def test_what_cannot_be_recorded_does_not_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.training.CudaGraphs", lambda *_: Replays(refuses=True))
    assert not alike()


@pytest.mark.gpu  # only there are graphs recorded
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_graphs_train_as_the_steps_they_were_recorded_from(data: Dataset, optimizer: str) -> None:
    changes = {"optimizer": optimizer, "dropout": 0.0, "schedule": "one_cycle"}
    plain = losses(begun(data, Settings(device="cuda"), **changes), 6)
    training = begun(data, Settings(device="cuda", captured=True), **changes)
    assert losses(training, 6) == [pytest.approx(pair, rel=0.02) for pair in plain]
    assert training.captured is not None
    assert training.captured.refused is None
    assert training.captured.replayed >= 6


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_of_steps_that_draw_numbers_learn_as_much(data: Dataset, precision: str) -> None:
    chance = {"dropout": 0.3, "flip": 0.5, "shift": 0.1, "rotation": 15.0, "cutout": 0.3}
    chance |= {"accumulation_steps": 2, "schedule": "constant"}
    plain = losses(begun(data, Settings(device="cuda", precision=precision), **chance), 20)
    training = begun(data, Settings(device="cuda", precision=precision, captured=True), **chance)
    found = losses(training, 20)
    assert training.captured is not None
    assert training.captured.refused is None
    assert training.captured.replayed > 20
    assert len({first for first, _ in found}) == 20  # each epoch drew other numbers
    assert sum(first for first, _ in found[-5:]) == pytest.approx(sum(first for first, _ in plain[-5:]), rel=0.3)

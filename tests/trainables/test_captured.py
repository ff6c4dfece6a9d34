"""Steps recorded once and replayed: the bookkeeping on any device, the recording where there is a GPU."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from trainables.captured import WARM_UP, CapturedSteps, CudaGraphs, set_rate, with_rate_on_device


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


def test_a_learning_rate_on_the_device_stays_where_a_recording_reads_it() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    with_rate_on_device(optimizer, torch.device("cpu"))
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: only there are graphs recorded")
def test_a_graph_draws_new_random_numbers_each_time_and_follows_its_inputs() -> None:
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(1)
    total = torch.zeros(1, device=device)
    steps = CapturedSteps(CudaGraphs(generator))

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

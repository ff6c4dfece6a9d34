import ctypes
import mmap
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import device
from trainables.device import (
    PeakMemory,
    best_device,
    computes_in_bf16,
    evaluation_batch,
    give_freed_memory_back,
    is_device_error,
    keep_freed_memory,
    sub_normals_flushed,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "apple", "gpus", "expected"),
    [
        (True, False, 1, "cuda"),
        (True, False, 0.25, "cuda"),
        (True, False, 0, "cpu"),
        (False, True, 0, "mps"),
        (False, False, 1, "cpu"),
    ],
)
def test_the_device_is_that_of_the_slot(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, apple: bool, gpus: float, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    assert best_device(gpus).type == expected


@pytest.mark.parametrize(
    ("side", "input_size", "on_gpu", "on_cpu"),
    [
        (32, None, 512, 128),
        (64, None, 512, 32),
        (96, None, 227, 16),
        (224, None, 41, 16),
        (32, 224, 41, 16),
        (224, 96, 41, 16),
        (2048, None, 1, 1),
    ],
)
def test_an_evaluation_batch_is_as_large_as_what_the_network_sees_allows(
    side: int, input_size: int | None, on_gpu: int, on_cpu: int
) -> None:
    assert evaluation_batch("cuda", side, side, input_size) == on_gpu
    assert evaluation_batch("cpu", side, side, input_size) == on_cpu


def test_the_peak_of_a_cpu_is_that_since_the_trial_began() -> None:
    before = PeakMemory(CPU)
    if not before.known:
        pytest.skip("this system does not let a process reset its peak memory")
    large = mmap.mmap(-1, 200_000_000)  # not from the heap, which may hold freed memory to give out again
    np.frombuffer(large, np.uint8)[:] = 1
    with_it = before.megabytes()
    large.close()
    without = PeakMemory(CPU).megabytes()
    assert with_it is not None
    assert without is not None
    assert with_it - without == pytest.approx(200, abs=50)


@pytest.mark.parametrize("path", ["_CLEAR_REFS", "_STATUS"])
def test_a_peak_that_the_system_does_not_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    other = tmp_path if path == "_CLEAR_REFS" else tmp_path / "status"
    (tmp_path / "status").write_text("Name:\tpython\n")
    monkeypatch.setattr(device, path, other)
    assert PeakMemory(CPU).megabytes() is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library keeps freed memory by itself")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(4_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000  # 16 MB in pages of 4 KB are 3,906, ten times over


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_what_a_gpu_says_without_memory_is_not_the_models_fault(said: str) -> None:
    assert is_device_error(RuntimeError(said))
    assert not is_device_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_only_gpus_with_bf16_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: bool(asked.append(including_emulation))
    )
    assert not computes_in_bf16(torch.device("cuda"))
    assert asked == [False]
    assert computes_in_bf16(CPU)


def test_a_gpus_freed_memory_is_given_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append("GPU"))
    give_freed_memory_back()
    assert not given  # nothing was computed there
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    give_freed_memory_back()
    assert given == ["GPU"]


def test_sub_normal_numbers_are_zero_inside_and_numbers_outside() -> None:
    def product() -> int:
        return int((torch.full((64,), 1e-38) * 0.01).view(torch.int32).count_nonzero())

    with sub_normals_flushed():
        assert product() == 0
    assert product() == 64


def test_waiting_for_idle_cores_ends_when_they_are_or_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(device.time, "sleep", sleep)
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(device.os, "cpu_count", lambda: 2)
    ticks = iter([100, 110, 145, 185, 999])  # of 40 in each while: 10, 35 and so on
    monkeypatch.setattr(device, "_idle_ticks", lambda: next(ticks))
    device.wait_until_idle(9.0)
    assert len(slept) == 2
    slept.clear()
    monkeypatch.setattr(device, "_idle_ticks", lambda: 100)
    device.wait_until_idle(1.0)
    assert sum(slept) == pytest.approx(1.0)
    slept.clear()
    monkeypatch.setattr(device, "_idle_ticks", lambda: None)
    device.wait_until_idle(1.0)
    assert not slept

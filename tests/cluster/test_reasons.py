"""What is kept of why a trial was lost, from what Ray wrote about it."""

import pytest

from cluster.tune_hooks import cause_of, reason

CALLED = """ray::ImageTrainable.train() (pid=7, ip=10.0.0.1)
  File "trainables/training.py", line 9, in epoch
    loss.backward()
"""
ADVICE = """
CUDA kernel errors might be asynchronously reported at some other API call.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


@pytest.mark.parametrize(
    ("said", "kept", "cause"),
    [
        (
            CALLED + "torch.AcceleratorError: CUDA error: out of memory" + ADVICE,
            "torch.AcceleratorError: CUDA error: out of memory",
            "out_of_memory",
        ),
        (
            CALLED + "torch.AcceleratorError: CUDA error: an illegal memory access was encountered" + ADVICE,
            "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
            "died",
        ),
        (
            CALLED + "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "out_of_memory",
        ),
        (
            CALLED + "RuntimeError: GET was unable to find an engine to execute this computation",
            "RuntimeError: GET was unable to find an engine to execute this computation",
            "out_of_memory",
        ),
        (CALLED + "MemoryError: 3 GiB", "MemoryError: 3 GiB", "out_of_memory"),
        ("The node of this actor is gone.", "The node of this actor is gone.", "died"),
        (" \n", "the worker process died", "died"),
        (
            "The actor died: its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: killed.",
            "the worker process died (SYSTEM_ERROR)",
            "died",
        ),
    ],
)
def test_the_reason_is_the_error_and_not_the_advice_after_it(said: str, kept: str, cause: str) -> None:
    assert reason(said) == kept
    assert cause_of(said) == cause

"""The device that trains: which one, the memory it has and has used, how many images it evaluates at once."""

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import torch

EVALUATION_PIXELS = 2**21  # pixels per evaluation batch: 512 images of 64 x 64, 41 of 224 x 224
EVALUATION_IMAGES = 512
CPU_EVALUATION_PIXELS = 2**17  # 128 images of 32 x 32, as long as that is at least
CPU_EVALUATION_IMAGES = 16
IDLE_TICKS, IDLE_SHARE = 20, 0.8  # hundredths of a second, and how much of them

_CORES = Path("/proc/stat")  # see proc_stat(5)
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
# What torch says in a plain RuntimeError: its CPU allocator, and CUDA's libraries.
_OF_THE_DEVICE = (
    "not enough memory",
    "can't allocate memory",
    "CUDA",
    "CUBLAS",
    "CUDNN",
    "cuDNN",
    "MPS backend",
    "find an engine",
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # see mallopt(3)
_MOST_FROM_THE_HEAP = 32 * 2**20  # the most that mallopt accepts
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


def best_device(gpus: float = 1) -> torch.device:
    """Return the fastest device this process may use: a CUDA GPU, Apple's, or the CPU.

    `gpus` is the share of a GPU that the process was given: with 0 it leaves CUDA alone. Apple's is used
    nevertheless, since Ray does not count it.
    """
    if torch.cuda.is_available():
        return torch.device("cuda" if gpus > 0 else "cpu")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 itself. GPUs before NVIDIA's Ampere do not: torch emulates some of it there, and
    cuDNN then finds no way to compute some convolutions."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a block in which a model computes in a precision, `fp32` or `bf16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Return how much memory of a GPU is still free, and how much it has."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    return (int(torch.mps.recommended_max_memory()),) * 2


def make_ready(device: torch.device) -> None:
    """Set what a process that trains on a device wants of the C library and of torch.

    On a CUDA GPU, fp32 then means TF32, of 10 bits, for matrix products, too: torch takes it for convolutions of its
    own accord, and without it a network's dense layers would be the slow part.
    """
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next request.

    Otherwise each step gives its activations back to the system and gets them again page by page: 66 page faults an
    image with AlexNet at 32 x 32, 4 % of its epoch and 8 % of the plain CNN's.
    """
    with suppress(AttributeError, OSError):  # only glibc has it, and only there it is needed
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _MOST_FROM_THE_HEAP)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def wait_until_idle(seconds: float) -> None:
    """Return when the machine's cores had next to nothing to do for a moment, or after so many seconds.

    At once where the system does not tell (anywhere but Linux).
    """
    end = time.monotonic() + seconds
    before = _idle_ticks()
    while before is not None and time.monotonic() < end:
        time.sleep(IDLE_TICKS / 100)
        now = _idle_ticks() or before
        if now - before >= IDLE_SHARE * IDLE_TICKS * (os.cpu_count() or 1):
            return
        before = now


def _idle_ticks() -> int | None:
    """Return for how many hundredths of a second the cores were idle so far, together."""
    with suppress(OSError):
        cells = _CORES.read_text().split("\n", 1)[0].split()
        return int(cells[4]) + int(cells[5])
    return None


@contextmanager
def sub_normals_flushed() -> Iterator[None]:
    """Take numbers too small to be normal for zero, in this thread.

    Adam's averages become such numbers where the gradient has been zero for 800 steps, as it is of dead units; a step
    of 250,000 parameters then takes 5.6 ms instead of 0.35 ms.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def give_freed_memory_back() -> None:
    """Give what is freed and kept back to the system: between two trials, so that each one's peak is its own."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # others may share the GPU, and what a recording held serves nothing else


def evaluation_batch(device_type: str, height: int, width: int, input_size: int | None) -> int:
    """Return how many images of so many pixels are evaluated at once by a model that resizes them to `input_size`.

    Fewer on a CPU, where what does not fit into its caches is fetched from memory, and what is over 32 MB is got from
    the system and given back each time: 1,000 images of 32 x 32 took the plain CNN 242 ms by 512 and 163 ms by 128,
    and 164 of 96 x 96 took a ResNet-50 6.1 s by 82 and 4.3 s by 16.
    """
    pixels = max(height * width, (input_size or 0) ** 2)
    most = max(1, min(EVALUATION_IMAGES, EVALUATION_PIXELS // pixels))
    return min(most, max(CPU_EVALUATION_IMAGES, CPU_EVALUATION_PIXELS // pixels)) if device_type == "cpu" else most


def name_of(device: torch.device) -> str:
    """Return what a device is called: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def is_device_error(error: BaseException) -> bool:
    """Whether an error is the device's or the host's and not the model's: memory, or a GPU in an unknown state.

    After one of these nothing that the process holds can be relied on.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OF_THE_DEVICE)


class PeakMemory:
    """The most memory that was in use on a device since this was made; making another one starts anew.

    On a GPU it is what torch allocated there, on a CPU all of the process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.known = device.type != "mps"  # torch keeps no peak there
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            self.known = _reset_process_peak()

    def megabytes(self) -> float | None:
        """Return the peak so far in MB of 10**6 bytes; None where the system cannot tell, as outside Linux."""
        if not self.known:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        return _process_peak_mb()


def _reset_process_peak() -> bool:
    """Set the process's peak to what it uses now; return whether that was possible."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return _process_peak_mb() is not None


def _process_peak_mb() -> float | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None

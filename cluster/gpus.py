"""The NVIDIA GPUs of this host, and whether the torch that is installed can use them."""

import ctypes
import shutil
import subprocess
import sys
from contextlib import suppress

from foundation import Finding

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits")
QUERY_SECONDS = 20.0
NONE = Finding("GPU", "ok", "none of NVIDIA: trials run on the cores")
BUSY_SHARE = 0.2  # of a GPU's memory that others hold


def gpu_findings() -> list[Finding]:
    """Return what is known of this host's GPUs."""
    if not shutil.which(QUERY[0]):
        return [NONE]
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding("GPU", "problem", f"nvidia-smi does not answer ({error})", "restart the host or its driver")]
    if done.returncode:
        said = f"nvidia-smi fails: {' '.join((done.stdout + done.stderr).split())[:200]}"
        return [Finding("GPU", "problem", said, "install a driver that fits the kernel, or restart the host")]
    gpus = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return findings_of(gpus, torch_cuda(), driver_cuda()) if gpus else [NONE]


def findings_of(gpus: list[list[str]], built_for: str | None, driver: int | None) -> list[Finding]:
    """Return the findings of GPUs as nvidia-smi names them (name, MB, MB used), and the CUDA versions on either side.

    `built_for` is torch's, such as "12.6", None for a build without CUDA; `driver` is what the driver knows, 12060 for
    12.6, None where it does not say. Within a major version an older driver does.
    """
    names = ", ".join(sorted({gpu[0] for gpu in gpus}))
    said = f"{len(gpus)} of {names}"
    if built_for is None:
        return [
            Finding(
                "GPU", "warning", f"{said}, but torch is built without CUDA: none is used", "install torch with CUDA"
            )
        ]
    if driver is not None and driver // 1000 < int(built_for.split(".")[0]):
        has = f"{driver // 1000}.{driver % 1000 // 10}"
        said = f"{said}; the driver knows CUDA {has}, torch is built for {built_for}"
        return [Finding("GPU", "problem", said, "install a newer driver, or a torch that is built for it")]
    busy = [gpu for gpu in gpus if gpu[2].isdigit() and gpu[1].isdigit() and int(gpu[2]) > BUSY_SHARE * int(gpu[1])]
    if busy:
        said += f"; of {len(busy)}, others hold more than {BUSY_SHARE:.0%} of the memory"
        return [Finding("GPU", "warning", said, "end them (`nvidia-smi` lists them), or trials may run out of memory")]
    return [Finding("GPU", "ok", f"{said}, torch is built for CUDA {built_for}")]


def torch_cuda() -> str | None:
    """Return the version of CUDA that torch is built for; None for a build without it, or no torch."""
    with suppress(ImportError):
        import torch

        return torch.version.cuda
    return None


def driver_cuda() -> int | None:
    """Return the newest version of CUDA that the driver of this host knows, 12060 for 12.6."""
    if sys.platform != "linux":
        return None
    version = ctypes.c_int()
    with suppress(OSError, AttributeError):
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            return version.value
    return None

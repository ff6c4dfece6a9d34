"""The disk that a search may use: known before it starts, and never exceeded."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster.retention import RESCUE_CANDIDATES
from foundation import RequestError, count
from search.largest import candidates
from search.request import Request
from spaces import Space

# Measured: 0.6 KB of ledger and 1.0 KB of TensorBoard an epoch, 2 and 10 KB a trial. With room to spare:
BYTES_PER_TRIAL, BYTES_PER_EPOCH = 24_000, 3_000
CHECKPOINTS = 3  # of a trial: the newest two, and one that is being written


def largest_state(request: Request) -> int:
    """Return the bytes of the largest state that a trial of a search may have; a configuration with more is refused.

    That is the state of a baseline, of a configuration with every number at its largest, or of one of 16 drawn ones.
    """
    return max(_largest_state(request, space) for space in request.spaces.values())


@dataclass(frozen=True)
class Disk:
    """The most bytes that a search takes in its folder, and the sentence that says so."""

    total_bytes: int
    sentence: str


def disk_bound(request: Request, state_bytes: int, slots: int, trials: int, folder: Path) -> Disk:
    """Return the disk that a search may use with so many trials side by side; `RequestError` when less is free."""
    checkpoints = (slots + RESCUE_CANDIDATES) * CHECKPOINTS * state_bytes
    total = checkpoints + trials * (BYTES_PER_TRIAL + request.spec.epochs * BYTES_PER_EPOCH)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < total:
        raise RequestError(
            f"{folder} has {size_text(free)} free, and this search may need {size_text(total)} there: "
            f"{size_text(checkpoints)} for the checkpoints of {count(slots, 'running trial')} and {RESCUE_CANDIDATES} "
            "that may be rescued, the rest for its ledger and TensorBoard. Free some, give another --storage, or "
            "narrow the widths with --space"
        )
    return Disk(total, f"Disk: at most {size_text(total)} in {folder} ({size_text(free)} are free).")


def _largest_state(request: Request, space: Space) -> int:
    """Return it of those configurations that memory is reckoned from later: beside Ray's start both cost nothing."""
    known = [request.preflight(space.architecture, config) for config in candidates(space)]
    return max(each.state_bytes for each in known)


def size_text(number: float) -> str:
    """Return a number of bytes as text."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"

"""Checkpoints: written beside and renamed, with a checksum; read without running code; the one before if damaged."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foundation import folder_written_beside

STATE = "state.pt"
MANIFEST = "manifest.json"
KEPT = 2  # the newest may be damaged: the one before it is the way back


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint lies and the checksum of its content."""

    path: Path
    sha256: str


def save(folder: Path, attempt: int, epoch: int, state: dict[str, Any]) -> Saved:
    """Write a state as `folder/aAA-eEEE/`, whole or not at all, and remove all but the newest two.

    `state` holds tensors, numbers, strings, and lists and dictionaries of them. Raises OSError when it cannot be
    written.
    """
    path = folder / f"a{attempt:02d}-e{epoch:04d}"
    with folder_written_beside(path) as beside:
        torch.save(state, beside / STATE)
        digest = _sha256(beside / STATE)
        manifest = {"sha256": digest, "bytes": (beside / STATE).stat().st_size, "epoch": epoch}
        (beside / MANIFEST).write_text(json.dumps(manifest))
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return Saved(path, digest)


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint folder gave: the newest sound state, where it lay, and what was passed over and why."""

    state: dict[str, Any] | None
    path: Path | None
    damaged: tuple[str, ...]


def load(folder: Path) -> Loaded:
    """Return the newest undamaged state in `folder`; its `state` is None when there is none.

    Nothing in a file is ever run: only tensors and plain values load (`weights_only`).
    """
    damaged: list[str] = []
    for path in _newest_first(folder):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if _sha256(path / STATE) != manifest["sha256"]:
                raise ValueError("its checksum is wrong")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
            return Loaded(state, path, tuple(damaged))
        except Exception as error:  # whatever is wrong with this one, the one before it may be sound
            damaged.append(f"{path.name}: {error}")
    return Loaded(None, None, tuple(damaged))


def _newest_first(folder: Path) -> list[Path]:
    def epoch_then_attempt(path: Path) -> tuple[str, str]:
        attempt, _, epoch = path.name.partition("-e")
        return epoch, attempt

    return sorted(folder.glob("a[0-9]*-e[0-9]*"), key=epoch_then_attempt, reverse=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

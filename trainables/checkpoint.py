"""Checkpoints: written beside and renamed, with a checksum; read without running code; the one before if damaged."""

import hashlib
import json
import re
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


def save(folder: Path, attempt: int, epoch: int, state: dict[str, Any], identity: str) -> Saved:
    """Write a state as `folder/aAA-eEEEE/`, whole or not at all, and remove all but the newest two.

    `state` holds tensors, numbers, strings, and lists and dictionaries of them. `identity` is a text that
    says which training it belongs to; what another training left in the folder is removed. Raises OSError when it
    cannot be written.
    """
    path = folder / f"a{attempt:02d}-e{epoch:04d}"
    with folder_written_beside(path) as beside:
        torch.save(state, beside / STATE)
        digest = _sha256(beside / STATE)
        manifest = {"sha256": digest, "bytes": (beside / STATE).stat().st_size, "identity": identity}
        (beside / MANIFEST).write_text(json.dumps(manifest))
    own = [each for each in _newest_first(folder) if _is_of(each, identity)]
    for each in set(_newest_first(folder)) - set(own[:KEPT]):
        shutil.rmtree(each, ignore_errors=True)
    return Saved(path, digest)


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint folder gave: the newest sound state, where it lay, and what was passed over and why."""

    state: dict[str, Any] | None
    path: Path | None
    damaged: tuple[str, ...]


def load(folder: Path, identity: str | None = None) -> Loaded:
    """Return the newest undamaged state in `folder`; its `state` is None when there is none.

    With an `identity`, a state of another training is passed over as a damaged one is. Nothing in a file is ever
    run: only tensors and plain values load (`weights_only`).
    """
    damaged: list[str] = []
    for path in _newest_first(folder):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if identity not in (None, manifest.get("identity")):
                raise ValueError("is of another configuration")
            if _sha256(path / STATE) != manifest["sha256"]:
                raise ValueError("its checksum is wrong")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
            return Loaded(state, path, tuple(damaged))
        except Exception as error:  # whatever is wrong with this one, the one before it may be sound
            damaged.append(f"{path.name}: {error}")
    return Loaded(None, None, tuple(damaged))


def _newest_first(folder: Path) -> list[Path]:
    numbers = {path: re.fullmatch(r"a(\d+)-e(\d+)", path.name) for path in folder.glob("a*-e*")}
    found = {path: (int(match[2]), int(match[1])) for path, match in numbers.items() if match}
    return sorted(found, key=found.__getitem__, reverse=True)


def _is_of(path: Path, identity: str) -> bool:
    try:
        return bool(json.loads((path / MANIFEST).read_text())["identity"] == identity)
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

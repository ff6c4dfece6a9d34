"""Checkpoints: written beside and renamed, with size and checksum, while training goes on; read without running code;
the one before is read where the newest is damaged."""

import errno
import hashlib
import json
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from foundation import fault, folder_written_beside

STATE = "state.pt"
MANIFEST = "manifest.json"
KEPT = 2  # the newest may be damaged: the one before it is the way back


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint of an epoch lies, the checksum of its content, and how long writing it took."""

    path: Path
    epoch: int
    sha256: str
    seconds: float


def save(folder: Path, attempt: int, epoch: int, state: dict[str, Any], identity: str) -> Saved:
    """Write a state as `folder/aAA-eEEEE/`, whole or not at all, and remove all but the newest two.

    `state` holds tensors, numbers, strings, and lists and dictionaries of them. `identity` is a text that
    says which training it belongs to; what another training left in the folder is removed. Raises OSError when it
    cannot be written.
    """
    began = time.monotonic()
    path = folder / f"a{attempt:02d}-e{epoch:04d}"
    fault("checkpoint.before_write")
    with folder_written_beside(path) as beside:
        _write(state, beside / STATE)
        digest = _sha256(beside / STATE)
        fault("checkpoint.mid_write")
        manifest = {"sha256": digest, "bytes": (beside / STATE).stat().st_size, "identity": identity}
        (beside / MANIFEST).write_text(json.dumps(manifest))
    fault("checkpoint.after_rename")
    # An earlier attempt's from this epoch on is damaged: this attempt has gone on from one before.
    own = [each for each in _newest_first(folder) if _is_of(each, identity) and _before(each, attempt, epoch)]
    for each in set(_newest_first(folder)) - {path, *own[: KEPT - 1]}:
        shutil.rmtree(each, ignore_errors=True)
    return Saved(path, epoch, digest, time.monotonic() - began)


def _write(state: dict[str, Any], path: Path) -> None:
    """Write a state to a file; torch reports a full disk as a RuntimeError, which says nothing of disks."""
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            cause = error.__context__ if isinstance(error.__context__, OSError) else None
            raise cause or OSError(errno.EIO, str(error).splitlines()[0], str(path)) from error


class Writer:
    """Writes checkpoints in a thread of its own, one at a time, while the training goes on.

    One per worker process. The state is copied when it is handed over, between two epochs; what is written is that
    copy. The thread dies with the process: a checkpoint is there whole or not at all. `keep` is called with the path
    of each that was written, before it counts as written; it raises OSError where it cannot keep it.
    """

    def __init__(self, keep: Callable[[Path], None] | None = None) -> None:
        self._keep = keep
        self._done: queue.Queue[Saved | Exception] = queue.Queue()
        self._thread: threading.Thread | None = None

    def begin(self, folder: Path, attempt: int, identity: str) -> None:
        """Write for another trial from now on; what was still being written is finished first."""
        self.drop()
        self._folder, self._attempt, self._identity = folder, attempt, identity

    def submit(self, epoch: int, state: dict[str, Any]) -> None:
        """Copy a state and hand it to the thread; waits for the one before."""
        self._wait()
        copied = _copied(state)
        self._thread = threading.Thread(target=self._save, args=(epoch, copied), name="checkpoint", daemon=True)
        self._thread.start()

    def collect(self) -> list[Saved]:
        """Return what was written since the last call; raises what kept the thread from writing (OSError)."""
        found = []
        while not self._done.empty():
            result = self._done.get()
            if isinstance(result, Exception):
                raise result
            found.append(result)
        return found

    def finish(self) -> list[Saved]:
        """Wait until all is written, then return as `collect` does."""
        self._wait()
        return self.collect()

    def drop(self) -> None:
        """Wait until nothing is half written, and forget it: its trial has ended."""
        self._wait()
        self._done = queue.Queue()

    def _wait(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None

    def _save(self, epoch: int, state: dict[str, Any]) -> None:
        try:
            began = time.monotonic()
            saved = save(self._folder, self._attempt, epoch, state, self._identity)
            if self._keep:
                self._keep(saved.path)
            self._done.put(replace(saved, seconds=time.monotonic() - began))
        except Exception as error:  # whoever collects deals with it
            self._done.put(error)


def _copied(value: Any) -> Any:
    """Return a state whose tensors are copies, on the CPU: training goes on changing its own in place."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value


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
            if (size := (path / STATE).stat().st_size) != manifest["bytes"]:
                raise ValueError(f"it has {size} bytes of {manifest['bytes']}")
            if _sha256(path / STATE) != manifest["sha256"]:
                raise ValueError("its checksum is wrong")
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
            return Loaded(state, path, tuple(damaged))
        except Exception as error:  # whatever is wrong with this one, the one before it may be sound
            damaged.append(f"{path.name}: {error}")
    return Loaded(None, None, tuple(damaged))


def _newest_first(folder: Path) -> list[Path]:
    found = {path: numbers for path in folder.glob("a*-e*") if (numbers := _numbers(path))}
    return sorted(found, key=found.__getitem__, reverse=True)


def _numbers(path: Path) -> tuple[int, int] | None:
    """Return epoch and attempt of a checkpoint, None for what is none."""
    match = re.fullmatch(r"a(\d+)-e(\d+)", path.name)
    return (int(match[2]), int(match[1])) if match else None


def _before(path: Path, attempt: int, epoch: int) -> bool:
    of_epoch, of_attempt = _numbers(path) or (0, 0)
    return of_epoch < epoch or of_attempt > attempt


def _is_of(path: Path, identity: str) -> bool:
    try:
        return bool(json.loads((path / MANIFEST).read_text())["identity"] == identity)
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The experiment folder: where it is, whether it can be written, and what experiments there are.

For a storage in an object store, `s3://...`, it is the folder of this host that mirrors it.
"""

import json
import os
import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.lease import LEASES
from cluster.ledger import LEDGER, fetch_ledger
from cluster.lock import is_held_here
from cluster.mirror import fetch, store_file
from cluster.remote import Remote, at_once, checked_url, is_url, mirror_folder, refusal
from foundation import RequestError, unknown_word, write_json

SPEC = "experiment.json"
FORMAT = 3  # of experiment.json and of the ledger's rows
TRIALS = "trials"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def experiment_folder(storage: str, name: str) -> Path:
    """Return the absolute folder of an experiment, not made yet but shown to be writable.

    Raises `RequestError` when the name is no plain folder name, or the storage cannot be written: at once, before
    anything expensive starts.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise RequestError(
            f"--name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first, 100 at most"
        )
    if is_url(storage):
        url = checked_url(storage)
        try:
            Remote(url).check()
        except OSError as error:
            raise RequestError(refusal(url, error)) from error
        return _fetched(url, name)
    folder = Path(storage).expanduser().resolve() / name
    check_writable(folder)
    return folder


def _fetched(url: str, name: str) -> Path:
    """Return the mirror of an experiment, with what it was asked and what happened so far."""
    folder = mirror_folder(url) / name
    fetch_ledger(folder)
    fetch(folder)
    return folder


def check_writable(folder: Path) -> None:
    """Raise `RequestError` unless a file can be written and read in `folder`, or where it would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    marker = there / f".write-test-{os.getpid()}"
    try:
        marker.write_bytes(b"convscout")
        if marker.read_bytes() != b"convscout":
            raise OSError("what was written does not read back")
        marker.unlink()
    except OSError as error:
        raise RequestError(
            f"the storage {folder} cannot be written ({error.strerror or error}): give another folder with --storage"
        ) from error


def find_run(run: str, storage: str, *, not_begun: bool = False) -> Path:
    """Return the folder of an experiment given by its name in `storage`, or by its path or address.

    In an object store, it is fetched first: what was asked and what happened. With `not_begun`, one is found, too, that
    somebody holds, and which has no ledger yet: it may be decoding. Raises `RequestError` naming the
    closest experiment there is.
    """
    if is_url(run):
        storage, _, run = run.rstrip("/").rpartition("/")
    if is_url(storage):
        return _find_stored(run, storage)
    for folder in (Path(storage).expanduser() / run, Path(run).expanduser()):
        if (folder / LEDGER).exists() or (not_begun and (is_held_here(folder) or (folder / LEASES).is_dir())):
            return folder.resolve()
    root = Path(storage).expanduser().resolve()
    names = [folder.name for folder in list_runs(storage)] if root.is_dir() else []
    if not names:
        raise RequestError(
            f"experiment {run!r} is not known: {root} {'holds no experiments' if root.is_dir() else 'does not exist'}. "
            "`convscout search` makes one; --storage names another folder"
        )
    raise RequestError(f"{unknown_word('experiment', run, names)} (in {root})")


def _find_stored(run: str, storage: str) -> Path:
    url = checked_url(storage)
    names = _stored_names(url)
    if run not in names:
        known = unknown_word("experiment", run, names) if names else f"experiment {run!r} is not known"
        raise RequestError(f"{known} ({'in' if names else 'there are none in'} {url})")
    return _fetched(url, run)


def _stored_names(url: str) -> list[str]:
    try:
        Remote(url).check_bucket()
        return [name for name in Remote(url).folders() if NAME_PATTERN.fullmatch(name)]
    except OSError as error:
        raise RequestError(refusal(url, error)) from error


def list_runs(storage: str) -> list[Path]:
    """Return the folders of all experiments in `storage`, by name; raises `RequestError` if there is no such folder."""
    if is_url(storage):
        url = checked_url(storage)
        folders = at_once(lambda name: _fetched(url, name), _stored_names(url))
        return [folder for folder in folders if (folder / LEDGER).exists()]
    root = Path(storage).expanduser()
    if not root.is_dir():
        raise RequestError(
            f"--storage {storage}: {root.resolve()} is no folder. `convscout search` makes it; --storage names another"
        )
    return sorted(ledger.parent for ledger in root.glob(f"*/{LEDGER}"))


def trial_folder(folder: Path, trial: int) -> Path:
    """Return the folder of one trial, `trials/NNNN`."""
    return folder / TRIALS / f"{trial:04d}"


def checkpoint_folder(folder: Path, trial: int) -> Path:
    """Return where the checkpoints of one trial lie while they may be needed."""
    return trial_folder(folder, trial) / "checkpoint"


def write_experiment(folder: Path, experiment: dict[str, Any]) -> None:
    """Write `experiment.json`: what was asked, on which data, with which versions and command line."""
    write_json(folder / SPEC, experiment)
    store_file(folder / SPEC, folder)


def read_experiment(folder: Path) -> dict[str, Any]:
    """Return what `experiment.json` holds; raises `RequestError` when it is missing, damaged or of another format."""
    try:
        experiment: dict[str, Any] = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder / SPEC} cannot be read: {error}") from error
    if experiment.get("format") != FORMAT:
        raise RequestError(f"{folder / SPEC} has format {experiment.get('format')}; this version reads {FORMAT}")
    return experiment


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    packages = ("convscout", "numpy", "opencv-python-headless", "ray", "torch", "torchvision")
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found

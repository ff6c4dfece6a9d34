"""Whether every host of a cluster reaches the storage: each reads what the driver wrote, and writes a marker there."""

import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.connect import HOST_SECONDS, on_every_host
from cluster.naming import called
from cluster.remote import Remote, checked_url, is_url, refusal, store_of
from foundation import RequestError

MARKER = ".marker-"
DRIVERS = "driver"


def storage_problems(folder: Path, seconds: float = HOST_SECONDS) -> list[str]:
    """Return a sentence for each host of the connected cluster that does not reach an experiment's storage.

    Each is to read what this process writes there, and to write what this process can read. Nothing is left behind,
    but for a folder that only that host sees.
    """
    store = store_of(folder)
    token = uuid.uuid4().hex
    place = f"{store.url}/{MARKER}{token}" if store else str(folder / f"{MARKER}{token}")
    shown = called(folder)
    try:
        with _marked(place, store):
            answers = on_every_host(mark, place, token, seconds=seconds)
            return [
                f"{host}: {why}"
                for host, answer in answers.items()
                if (why := _problem(answer, place, token, shown, store))
            ]
    except OSError as error:
        return [_refused(socket.gethostname(), shown, error, store)]


def mark(place: str, token: str) -> str:
    """Read the driver's marker on this host and write one beside it; return its name.

    Raises `LookupError` where the driver's is not there, and what a store or a folder raises that refuses.
    """
    name = f"host-{uuid.uuid4().hex}"
    if is_url(place):
        checked_url(place.rpartition("/")[0])
    there = _Place(place)
    try:
        found = there.read(DRIVERS)
    except FileNotFoundError as error:
        raise LookupError from error
    if found != token.encode():
        raise LookupError
    there.create(name, token.encode())
    if there.read(name) != token.encode():
        raise OSError("what was written does not read back")
    return name


def _problem(answer: Any, place: str, token: str, shown: str, store: Remote | None) -> str | None:
    """Return what is wrong with the answer of one host, None if nothing is."""
    if isinstance(answer, LookupError):
        if store:
            return f"it reads {shown}, and does not find there what this process wrote: does AWS_ENDPOINT_URL differ?"
        return (
            f"it does not have the folder {shown} of this host: trials there could not keep anything. Mount the same "
            "folder on every host at the same path (NFS), or give --storage s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
        )
    if isinstance(answer, RequestError):
        return "; ".join(answer.problems)
    if isinstance(answer, TimeoutError | ConnectionError):
        return f"whether it reaches the storage {shown} is not known: {answer}. Is that host well, and not overloaded?"
    if isinstance(answer, OSError):
        return _refused("", shown, answer, store)
    if isinstance(answer, BaseException):
        return f"the storage {shown} could not be tried there: {type(answer).__name__}: {answer}"
    try:
        written = _Place(place).read(answer)
    except FileNotFoundError:
        written = b""
    if written != token.encode():
        return f"what it wrote to {shown} is not to be seen here: give a storage that all hosts share"
    return None


def _refused(host: str, shown: str, error: OSError, store: Remote | None) -> str:
    if store:
        said = refusal(store.url, error)
    else:
        said = (
            f"the storage {shown} cannot be written ({error.strerror or error}): let the user that Ray runs as write "
            "there, or give another folder with --storage"
        )
    return f"{host}: {said}" if host else said


@contextmanager
def _marked(place: str, store: Remote | None) -> Iterator[None]:
    """Write the driver's marker, and remove all markers at the end, with the folders made for them."""
    token = place.rpartition(MARKER)[2].encode()
    made = [] if store else [each for each in (Path(place), *Path(place).parents) if not each.exists()]
    try:
        if store is None:
            Path(place).mkdir(parents=True)
        _Place(place).create(DRIVERS, token)
        yield
    finally:
        with suppress(OSError):
            if store:
                Remote(place).remove_tree("")
            else:
                shutil.rmtree(place, ignore_errors=True)
                for each in made[1:]:
                    each.rmdir()


class _Place:
    """Where the markers lie: a folder, which is never made here, or one of an object store."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.remote = Remote(place) if is_url(place) else None

    def read(self, name: str) -> bytes:
        return self.remote.read(name) if self.remote else (Path(self.place) / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        if self.remote:
            self.remote.create(name, content)
            return
        with open(Path(self.place) / name, "xb") as file:
            file.write(content)

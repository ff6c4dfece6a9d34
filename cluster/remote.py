"""A folder of an object store, or any other that fsspec knows: a few operations, with errors that name the object.

Nothing else in the project knows how a store is spoken to. Credentials and the address of the server are found by
s3fs and gcsfs where their users expect it: the environment, a profile, the machine's role.
"""

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.patience import BRIEF_SECONDS, LONG_SECONDS, asked_again, sent
from foundation import RequestError, cache_root, unknown_word, written_beside

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}  # by protocol; each is installed by the extra of the protocol's name
EXTRAS = {"s3": "s3", "gs": "gcs"}
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 10, "retries": {"total_max_attempts": 1}}},
    "file": {"auto_mkdir": True},
}
MEANT = {"NoCredentialsError": errno.EACCES, "PartialCredentialsError": errno.EACCES}  # else: the server is away
SIDE_BY_SIDE = 16
MIRRORS, STORE = "experiments", ".store"
PART = re.compile(r"[A-Za-z0-9._=+@ -]+")


@dataclass(frozen=True)
class Stored:
    """What a listing says of an object: its bytes, and a text that changes when its content does."""

    size: int
    version: str


class Remote:
    """One folder of a store, `s3://bucket/folder`; names are relative to it, with slashes.

    Every method raises OSError, which names the object, where the store refuses, or cannot be reached for longer than
    `patience_seconds`. It can be pickled, and used after a fork: the connection is made where it is used.
    """

    def __init__(self, url: str, patience_seconds: float = BRIEF_SECONDS) -> None:
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._process = 0
        self._connected: tuple[Any, str] = (None, "")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connection behind: another process makes its own."""
        return self.__dict__ | {"_process": 0, "_connected": (None, "")}

    def under(self, name: str) -> "Remote":
        """Return a folder inside this one."""
        return Remote(f"{self.url}/{name}", self.patience_seconds)

    @asked_again
    def objects(self, name: str = "", *, deep: bool = False) -> dict[str, Stored]:
        """Return the objects in a folder, by name; with `deep`, also those in folders inside it."""
        return {each: _stored(info) for each, info in self._listed(name, deep) if info["type"] == "file"}

    @asked_again
    def folders(self, name: str = "") -> list[str]:
        """Return the names of the folders in a folder."""
        return sorted(each for each, info in self._listed(name, False) if info["type"] == "directory")

    @asked_again
    def info(self, name: str) -> Stored | None:
        """Return what is known of one object, None where there is none."""
        with self._speaking(name) as (system, path):
            try:
                return _stored(system.info(path))
            except FileNotFoundError:
                return None

    @asked_again
    def read(self, name: str) -> bytes:
        """Return the content of one object."""
        with self._speaking(name) as (system, path):
            content: bytes = system.cat_file(path)
            return content

    @asked_again
    def write(self, name: str, content: bytes) -> None:
        """Write one object, in place of any that is there."""
        with self._speaking(name) as (system, path):
            sent(len(content), system, "pipe_file", path, content)

    @asked_again
    def create(self, name: str, content: bytes) -> None:
        """Write one object that must not be there yet; raises `FileExistsError` if it is."""
        with self._speaking(name) as (system, path):
            if self._protocol == "file":  # its pipe_file looks first and then writes
                with system.open(path, "xb") as file:
                    file.write(content)
            else:
                sent(len(content), system, "pipe_file", path, content, mode="create")

    @asked_again
    def fetch(self, name: str, path: Path) -> None:
        """Write one object to a local file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._speaking(name) as (system, there), written_beside(path) as beside:
            system.get_file(there, str(beside))

    @asked_again
    def store(self, path: Path, name: str) -> None:
        """Write a local file as one object."""
        with self._speaking(name) as (system, there):
            sent(path.stat().st_size, system, "put_file", str(path), there)

    def fetch_tree(self, name: str, folder: Path) -> None:
        """Write all that is in a folder of the store, and below it, to a local folder."""
        names = self.objects(name, deep=True)
        at_once(lambda each: self.fetch(each, folder / each.removeprefix(f"{name}/")), names)

    def remove(self, *names: str) -> None:
        """Remove objects; those that are not there need no more."""
        for name in names:
            self._remove(name)

    @asked_again
    def _remove(self, name: str) -> None:
        with self._speaking(name) as (system, path), suppress(FileNotFoundError):
            system.rm_file(path)

    def remove_tree(self, name: str) -> None:
        """Remove all that is in a folder."""
        if found := self.objects(name, deep=True):
            at_once(self.remove, found)

    @asked_again
    def check_bucket(self) -> None:
        """Raise OSError unless the bucket is there and may be looked into."""
        with self._speaking("") as (system, path):
            if self._protocol in PACKAGES:  # exists() would take any error for no
                try:
                    system.info(path.split("/")[0])
                except FileNotFoundError as error:
                    raise FileNotFoundError(errno.ENOENT, "there is no such bucket") from error

    def check(self) -> None:
        """Raise OSError unless objects can be written here, read, removed, and made only where there is none."""
        self.check_bucket()
        name, content = f".write-test-{uuid.uuid4().hex}", b"convscout"
        self.write(name, content)
        try:
            if self.read(name) != content:
                raise OSError(errno.EIO, "what was written does not read back", f"{self.url}/{name}")
            try:
                self.create(name, b"another")
            except FileExistsError:
                return
            raise OSError(errno.ENOTSUP, "it lets two writers make the same object (no If-None-Match)", self.url)
        finally:
            self.remove(name)

    @property
    def _protocol(self) -> str:
        return self.url.split("://")[0]

    def _listed(self, name: str, deep: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with self._speaking(name) as (system, path):
            try:
                found = system.find(path, detail=True).values() if deep else system.ls(path, detail=True)
            except FileNotFoundError:
                return
            root = path if not name else path[: -len(name) - 1]
        for info in found:
            relative = info["name"].rstrip("/")[len(root) :].lstrip("/")
            if relative and relative != name and not info["name"].endswith("/") and _is_plain(relative):
                yield relative, info

    @contextmanager
    def _speaking(self, name: str) -> Iterator[tuple[Any, str]]:
        """Yield fsspec's file system and the path of an object on it; whatever goes wrong becomes an OSError."""
        url = f"{self.url}/{name}".rstrip("/")
        try:
            system, root = self._system()
            yield system, f"{root}/{name}".rstrip("/")
        except Exception as error:
            raise _translated(error, url) from error

    def _system(self) -> tuple[Any, str]:
        if self._process != os.getpid():
            import fsspec

            options = OPTIONS.get(self._protocol, {})
            self._connected = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
            self._process = os.getpid()
        system, path = self._connected
        return system, str(path).rstrip("/")


def at_once(work: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """Return what `work` gives for each name, several at the same time; raises the first error."""
    with ThreadPoolExecutor(SIDE_BY_SIDE, "store") as threads:
        return list(threads.map(work, names))


def is_url(storage: str) -> bool:
    """Whether a storage is an object store's, not a folder."""
    return "://" in storage


def checked_url(storage: str, option: str = "--storage") -> str:
    """Return the address of a storage, tidied; raises `RequestError` for one that cannot be meant."""
    protocol, _, rest = storage.partition("://")
    if protocol not in PACKAGES:
        raise RequestError(f"{option} {storage}: {unknown_word('protocol', protocol, PACKAGES)}, or a folder's path")
    parts = rest.rstrip("/").split("/")
    if not all(PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise RequestError(
            f"{option} {storage}: write {protocol}://BUCKET/FOLDER, of letters, digits and any of '. _ - = + @'"
        )
    try:
        __import__(PACKAGES[protocol])
    except ImportError as error:
        raise RequestError(
            f"{option} {storage}: {protocol}:// needs the package {PACKAGES[protocol]}, which is not installed: "
            f"pip install 'convscout[{EXTRAS[protocol]}]', on every host ({error})"
        ) from None
    return f"{protocol}://{'/'.join(parts)}"


def mirror_folder(url: str) -> Path:
    """Return the local folder that stands for a storage in an object store, made where it is missing.

    Servers of one protocol are told apart by the endpoint that the environment names.
    """
    protocol, _, rest = url.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") if protocol == "s3" else ""
    server = f"-{hashlib.sha256(endpoint.encode()).hexdigest()[:8]}" if endpoint else ""
    folder = cache_root() / MIRRORS / f"{protocol}{server}" / rest
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / STORE).exists():
        with written_beside(folder / STORE) as beside:
            beside.write_text(url, encoding="utf-8")
    return folder


def store_of(folder: Path) -> Remote | None:
    """Return what an experiment's folder is a mirror of, with patience; None for a folder of its own right."""
    try:
        return Remote((folder.parent / STORE).read_text(encoding="utf-8"), LONG_SECONDS).under(folder.name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def refusal(url: str, error: OSError) -> str:
    """Return the sentence for a store that refuses, with what helps."""
    said = " ".join(str(error.strerror or error).split())[:300]
    protocol = url.split("://")[0]
    if "credentials" in said.lower():
        help_ = {
            "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, on every host",
            "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`, on every host",
        }.get(protocol, "give it some")
    elif isinstance(error, FileNotFoundError):
        help_ = "make the bucket first, or correct --storage"
    elif isinstance(error, PermissionError) or "Forbidden" in said:
        help_ = "the key must be allowed to list, read, write and remove objects there"
    else:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        help_ = f"AWS_ENDPOINT_URL is {endpoint}" if protocol == "s3" and endpoint else "is the network there?"
    return f"the storage {url} cannot be used ({said}): {help_}"


def _is_plain(name: str) -> bool:
    """Whether a name stays below the folder it is put in, on a disk too; an object may be called `../../.bashrc`."""
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def _stored(info: Mapping[str, Any]) -> Stored:
    names = ("ETag", "etag", "created")
    return Stored(int(info.get("size") or 0), next((str(info[name]) for name in names if info.get(name)), ""))


def _translated(error: Exception, url: str) -> OSError:
    """Return an OSError of the same meaning that names the object."""
    seen: BaseException | None = error
    while seen is not None:  # s3fs knows AWS's way to say that an object is there, but not all other servers'
        response = getattr(seen, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if code in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
            return FileExistsError(errno.EEXIST, "it is there already", url)
        seen = seen.__cause__
    said = str(error) or type(error).__name__
    if not isinstance(error, OSError):
        return OSError(MEANT.get(type(error).__name__, errno.EIO), f"{type(error).__name__}: {said}", url)
    numbers = {FileExistsError: errno.EEXIST, FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
    number = error.errno or next((numbers[kind] for kind in numbers if isinstance(error, kind)), errno.EIO)
    return OSError(number, error.strerror or said, error.filename or url)

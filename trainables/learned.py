"""One copy of what trials learn from on each host: files of its own, or those that the driver's host sends.

Of the images only those of train and val are sent. Whatever lies on a host counts only where its bytes are those of
the driver's: their digest is computed there, once.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from foundation import Finding, RequestError, cache_root
from trainables.cache import ImageCache, open_learned
from trainables.sent import Send, Sender, digest_of, digest_once, fetched, one_at_a_time, place_of, room_finding

ARRAYS = ("images.npy", "labels.npy", "split.npy", "groups.npy")
OTHERS = ("paths.json", "manifest.json")


@dataclass(frozen=True)
class Images:
    """The image cache that every host is to learn from: where the driver has it, what it is, and who sends it."""

    folder: str
    fingerprint: str
    digest: str
    sender: Sender

    def here(self) -> ImageCache:
        """Return the cache as this host has it, fetching it first where it has none.

        One process of the host fetches, and the others wait. Raises `RequestError` naming the host where it cannot.
        """
        with one_at_a_time(self.digest):
            for folder in self._places():
                if self._is_it(folder) and _digest_once(folder) == self.digest:
                    with suppress(OSError):  # another user's
                        os.utime(folder)
                    return open_learned(folder)
            folder = fetched("the images", self.digest, self.sender, _digest)
            _digest_once(folder, known=self.digest)
            return open_learned(folder)

    def finding(self) -> Finding:
        """Return whether this host has the images, or can take them, without fetching them."""
        if any(self._is_it(folder) for folder in self._places()):
            return Finding("data", "ok", "the images are in its cache")
        return room_finding("the images", self.sender)

    def _places(self) -> Sequence[Path]:
        """Return the folders that may hold them: the driver's, one made here from the same data, one that was sent."""
        return Path(self.folder), cache_root() / Path(self.folder).name, place_of(self.digest)

    def _is_it(self, folder: Path) -> bool:
        try:
            return open_learned(folder).fingerprint == self.fingerprint
        except RequestError:
            return False


@dataclass(frozen=True)
class Weights:
    """A file of pretrained weights that the request names by its path, absolute on the driver's host."""

    path: str
    digest: str
    sender: Sender

    def here(self) -> str:
        """Return the path of the file on this host, fetching it first where it has none."""
        path = Path(self.path)
        with one_at_a_time(self.digest):
            for found in (path, place_of(self.digest) / path.name):
                with suppress(OSError):
                    if digest_once([found]) == self.digest:
                        return str(found)
            what = f"the weights {self.path}"
            return str(
                fetched(what, self.digest, self.sender, lambda folder: digest_of([folder / path.name])) / path.name
            )

    def finding(self) -> Finding:
        """Return whether this host has the file, or can take it."""
        if Path(self.path).is_file() or (place_of(self.digest) / Path(self.path).name).is_file():
            return Finding("weights", "ok", f"the weights {self.path} are there")
        return room_finding(f"the weights {self.path}", self.sender)


@dataclass(frozen=True)
class Needs:
    """What trials read from the disk of the host that they run on; `spaces` are as `experiment.json` has them.

    Without `images` there is no host but the driver's, whose `folder` is the image cache.
    """

    folder: str
    spaces: Mapping[str, Sequence[Mapping[str, Any]]]
    images: Images | None = None
    weights: Mapping[str, Weights] = field(default_factory=dict)

    def cache(self, experiment: Path | None = None) -> ImageCache:
        """Return the image cache of this host; raises `RequestError` naming the host where it cannot be had.

        So it does where this is another host than the driver's, and the folder of the `experiment` is not there: one
        that came after all had been asked, perhaps, and has not mounted it.
        """
        if self.images is None:
            return open_learned(Path(self.folder))
        if experiment and not experiment.is_dir():
            raise RequestError(
                f"host {socket.gethostname()} does not have the folder {experiment}: trials there could not keep "
                "anything. Mount the same folder on every host at the same path (NFS)"
            )
        return self.images.here()

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with the path of its weights on this host; raises `RequestError` as `cache`."""
        sent = self.weights.get(config.get("weights", ""))
        return {**config, "weights": sent.here()} if sent else dict(config)

    def probes(self) -> list[Callable[[], Finding | None]]:
        """Return what is to be found out on every host, for `cluster.inspection`."""
        others = [sent.finding for sent in self.weights.values()]
        return [self.images.finding, *others, partial(published_finding, self.spaces)] if self.images else []


def needs(
    folder: Path, spaces: Mapping[str, Sequence[Mapping[str, Any]]], sources: Mapping[str, str], send: Send
) -> Needs:
    """Return what trials of these spaces need to learn from the image cache in `folder`, reading all of it once.

    Those with `sources` are users' own: what they call weights is theirs. `send(folder, names)` makes the sender of
    some files of a folder; None where there is no other host.
    """
    spaces = {name: rows for name, rows in spaces.items() if name not in sources}
    sender = send(folder, [name for name in (*ARRAYS, *OTHERS) if (folder / name).exists()])
    if sender is None:
        return Needs(str(folder), spaces)
    images = Images(str(folder), open_learned(folder).fingerprint, _digest_once(folder), sender)
    return Needs(str(folder), spaces, images, _weights(spaces, send))


def _weights(spaces: Mapping[str, Sequence[Mapping[str, Any]]], send: Send) -> dict[str, Weights]:
    """Return, by their paths as configurations have them, what hosts need to get the files of weights in these spaces.

    A file that is gone is left to the trial that wants it, which says so.
    """
    found = {}
    for each in sorted({option for row in _with_weights(spaces) for option in row["domain"]["options"]}):
        path = Path(each).expanduser().absolute()
        sender = send(path.parent, [path.name]) if path.is_file() else None
        if sender is not None:
            found[each] = Weights(str(path), digest_once([path]), sender)
    return found


def published_finding(spaces: Mapping[str, Sequence[Mapping[str, Any]]]) -> Finding | None:
    """Return whether this host has the published weights that these spaces may ask for; None if they ask for none."""
    from trainables.models import weights_at_hand

    wanted = [row["architecture"] for row in _with_weights(spaces) if "published" in row["domain"]["options"]]
    missing = [name for name in wanted if not weights_at_hand(name)]
    if not wanted or not missing:
        return Finding("weights", "ok", f"the published weights of {', '.join(wanted)} are there") if wanted else None
    said = f"the published weights of {', '.join(missing)} are not there: each trial that wants them downloads them"
    return Finding("weights", "warning", said, "copy ~/.cache/torch/hub/checkpoints to that host, or let it download")


def _with_weights(spaces: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    every = [row for rows in spaces.values() for row in rows if row["knob"] == "weights"]
    # A user's own knob of that name may be a range, or of numbers.
    return [row for row in every if all(isinstance(each, str) for each in row["domain"].get("options", (None,)))]


def _digest(folder: Path) -> str:
    """Return the digest of the arrays of train and val and the classes; mean and deviation follow from these.

    The fingerprint in the manifest covers the test images too, so where these are not it cannot be computed.
    """
    return digest_of(_arrays(folder), repr(open_learned(folder).classes))


def _digest_once(folder: Path, known: str | None = None) -> str:
    return digest_once(_arrays(folder), repr(open_learned(folder).classes), known)


def _arrays(folder: Path) -> list[Path]:
    return [folder / name for name in ARRAYS if (folder / name).exists()]


def worker_parameters(
    folder: Path,
    experiment: dict[str, Any],
    calibrated: dict[str, Any],
    cores: int,
    checkpoint_seconds: float,
    needs: Needs,
    store: Any = None,
) -> dict[str, Any]:
    """Return what every worker's `setup` needs, from `experiment.json` and the ledger's `calibrated` row.

    A trial has so many `cores`, and never more threads. `store` (`cluster.trial_store.TrialStore`) keeps a trial's
    files where the workers do not share a folder.
    """
    return {
        "folder": str(folder),
        "needs": needs,
        "sources": experiment["sources"],
        "settings": {
            name: each | {"threads": min(each["threads"], cores)} for name, each in calibrated["settings"].items()
        },
        "checkpoint_seconds": checkpoint_seconds,
        "store": store,
    }

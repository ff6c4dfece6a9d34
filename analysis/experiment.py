"""An experiment as it lies on disk: what was asked and what happened. Needs no Ray and unpickles nothing."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.course import search_results
from cluster.history import History
from cluster.ledger import LEDGER, read_history
from cluster.mirror import MODEL, fetch, fetch_validated
from cluster.naming import run_argument
from cluster.record import TrialRecord
from cluster.storage import find_run, read_experiment, trial_folder
from foundation import RequestError
from spaces import Space
from trainables.cache import ImageCache, open_cache
from trainables.validated import read_correct, read_losses

REFUSED_SHOWN = 20


@dataclass(frozen=True)
class Experiment:
    """A read experiment: its folder, what `experiment.json` says, and the history its ledger adds up to."""

    folder: Path
    asked: dict[str, Any]
    history: History

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked of the search."""
        spec: dict[str, Any] = self.asked["spec"]
        return spec

    @property
    def metric(self) -> str:
        """The metric that trials are ranked by."""
        return str(self.spec["metric"])

    @cached_property
    def spaces(self) -> dict[str, Space]:
        """What was searched, by architecture."""
        return {name: Space.from_rows(rows) for name, rows in self.asked["spaces"].items()}

    @cached_property
    def _n_val(self) -> int:
        return sum(self.cache().counts["val"].values())

    def cache(self) -> ImageCache:
        """Return the decoded images; raises `RequestError` if they are gone or are no longer those."""
        try:
            return open_cache(Path(self.asked["data"]["cache"]))
        except RequestError as error:
            again = f"`convscout resume {run_argument(self.folder)}` decodes them again, here"
            raise RequestError(*error.problems, again) from error

    def image_correct(self, record: TrialRecord) -> NDArray[np.bool_] | None:
        """Return which validation images a run got right in each epoch (epochs x images), None where it is not known.

        None also for a fold, and where they are not those of the ledger, as after a power cut.
        """
        if "fold" in record.work:
            return None
        epochs = [row for row in record.epochs if row["val_accuracy"] is not None]
        correct = read_correct(trial_folder(self.folder, record.trial), len(epochs), self._n_val)
        recorded = [row["val_accuracy"] for row in epochs]
        return correct if correct is not None and np.allclose(correct.mean(axis=1), recorded) else None

    def image_losses(self, record: TrialRecord) -> NDArray[np.float32] | None:
        """Return the validation losses that a run kept of each image (epochs x images), None where it kept none.

        None also for a fold, whose images are others, and where they are not those of the ledger.
        """
        if "fold" in record.work:
            return None
        folder, n_epochs = trial_folder(self.folder, record.trial), len(record.epochs)
        losses = read_losses(folder, n_epochs, self._n_val)
        if losses is None:  # in a store there are more, while the launch that trained them still runs
            fetch_validated(self.folder, folder.relative_to(self.folder).as_posix())
            losses = read_losses(folder, n_epochs, self._n_val)
        recorded = [row["val_loss"] for row in record.epochs]
        if losses is None or not np.allclose(losses.mean(axis=1, dtype=np.float64), recorded, rtol=1e-5):
            return None
        return losses

    def check_folds(self, number: int) -> None:
        """Raise `RequestError` if the images are gone, or cannot be cut into so many folds; 0 asks for none."""
        cache = self.cache()
        if number:
            cache.folds(number)

    def provenance(self) -> dict[str, Any]:
        """Return the part of `analysis.json` that says what was searched, on which data, with which versions."""
        cache = self.cache()
        return {
            "name": self.asked["name"],
            "run": run_argument(self.folder),
            "data": self.spec["data"],
            "fingerprint": self.asked["data"]["fingerprint"],
            "classes": list(cache.classes),
            "image_shape": list(cache.image_shape),
            "counts": cache.counts,
            "n_refused": len(cache.refused),
            "refused": cache.refused[:REFUSED_SHOWN],
            "copies": {
                **cache.manifest["duplicates"],
                "pairs": cache.manifest["duplicates"]["pairs"][:REFUSED_SHOWN],
            },
            "method": self.spec["method"],
            "metric": self.metric,
            "epochs": self.spec["epochs"],
            "grace_images": self.spec.get("grace_images"),
            "trials": self.history.trials_wanted,
            "seed": self.spec["seed"],
            "architectures": list(self.asked["spaces"]),
            "spaces": self.asked["spaces"],
            "versions": self.asked["versions"],
            "command_line": self.asked["command_line"],
            "created": self.asked["created"],
        }

    def search_results(self) -> dict[str, Any]:
        """Return the part of `analysis.json` that says how the search went, its trials best first."""
        return search_results(self.history, self.metric)


def open_experiment(folder: Path, history: History | None = None) -> Experiment:
    """Return the experiment in a folder; `history` is given by whoever holds its ledger open."""
    return Experiment(folder, read_experiment(folder), history or read_history(folder))


def model_folder(word: str, storage: str) -> Path:
    """Return the model folder that a word means: the folder itself, or that of an analysed experiment.

    Raises `RequestError` naming the command that is missing where an experiment has no model yet.
    """
    path = Path(word).expanduser()
    if (path / "model.json").exists():
        return path
    try:
        run = find_run(word, storage)  # an experiment is named like its data, which may lie beside
    except RequestError:
        if path.is_dir() and not (path / LEDGER).exists():
            return path  # what it lacks, loading it says
        raise
    fetch(run, MODEL)
    if not (run / MODEL).is_dir():
        raise RequestError(f"{word} has no model yet: `convscout analyze {run_argument(run)}` trains it")
    return run / MODEL

"""The model that ships: a folder that says all about itself, and the prediction of new images with it.

Neither Ray nor the experiment is needed to use it. `model.json` says how images become what the network saw in
training; the same two functions, `decode` and `fit`, make them so here.
"""

import csv
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from analysis.card import model_card
from analysis.experiment import model_folder
from cluster.storage import NAME_PATTERN
from foundation import Problems, RequestError, cell, folder_written_beside, write_json, written_beside
from trainables.decode import BadImage, decode_and_fit
from trainables.files import Listed
from trainables.formats import IMAGE_SUFFIXES
from trainables.models import build_classifier

FORMAT = 1
WEIGHTS, DESCRIPTION, SOURCE, CARD = "weights.safetensors", "model.json", "architecture.py", "README.md"
FIELDS = (
    "architecture",
    "image_shape",
    "classes",
    "config",
    "mean",
    "deviation",
    "resize",
    "metrics",
    "trained_on",
    "versions",
)  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """What the model says about one image: the likeliest class, or the error that kept it from being read.

    `probability` is that of `label`; `probabilities` holds every class's, and nothing for an image with an error.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


def write_model(folder: Path, classifier: nn.Module, card: Mapping[str, Any]) -> None:
    """Write the model folder, whole or not at all, in the place of what was there.

    `card` has all of `FIELDS`: `config` are the model's own knobs, `image_shape` (channels, height, width), `mean` and
    `deviation` per channel in 0..255, `resize` the policy of the cache, `metrics` a contender's `test` of analysis.json
    (empty when it was never tested), `trained_on` plain values by name. A user's own architecture comes with its
    text as `source`. KeyError for a missing field, ValueError for weights that are not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.state_dict().items()}
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"weights that are not finite cannot ship: {', '.join(broken[:5])}")
    description = {"format": FORMAT, **{name: card[name] for name in FIELDS}}
    with folder_written_beside(folder) as beside:
        (beside / WEIGHTS).write_bytes(save(tensors))  # save_file makes a file that others may not read
        write_json(beside / DESCRIPTION, description)
        (beside / CARD).write_text(model_card(description), encoding="utf-8", errors="backslashreplace")
        if card.get("source") is not None:
            (beside / SOURCE).write_text(card["source"], encoding="utf-8")


@dataclass(frozen=True)
class Model:
    """A trained classifier with the description that came with it (`model.json`)."""

    description: Mapping[str, Any]
    classifier: nn.Module
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, in the order of the model's outputs."""
        return tuple(self.description["classes"])

    def predict(self, paths: Iterable[str | Path], *, batch_size: int = 64) -> list[Prediction]:
        """Return one prediction per image, in order; folders are walked for image files, in order of their names.

        A file that cannot be read, or is no image, gives an entry with an error and stops nothing.
        """
        found = [path for each in paths for path in _images_at(Path(each))]
        predictions: list[Prediction] = []
        with ThreadPoolExecutor() as readers:
            for start in range(0, len(found), batch_size):
                batch = found[start : start + batch_size]
                predictions += self._predict_batch(batch, list(readers.map(self._read, batch)))
        return predictions

    def _predict_batch(self, paths: list[Path], images: list[NDArray[np.uint8] | str]) -> Iterator[Prediction]:
        readable = [image for image in images if not isinstance(image, str)]
        rows = iter(self._probabilities(readable) if readable else ())
        for path, image in zip(paths, images, strict=True):
            if isinstance(image, str):
                yield Prediction(str(path), error=image)
            else:
                by_class = dict(zip(self.classes, next(rows), strict=True))
                label = max(by_class, key=by_class.__getitem__)
                yield Prediction(str(path), label, by_class[label], by_class)

    def _probabilities(self, images: Sequence[NDArray[np.uint8]]) -> list[list[float]]:
        batch = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            probabilities: list[list[float]] = self.classifier(batch).float().softmax(dim=1).tolist()
        return probabilities

    def _read(self, path: Path) -> NDArray[np.uint8] | str:
        """Return the image at `path` as the network expects it (height, width, channels), or why there is none."""
        channels, size, _ = self.description["image_shape"]
        try:
            image, _ = decode_and_fit(image_bytes(path), size, self.description["resize"])
        except BadImage as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if image.shape[2] == channels:
            return image
        code = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
        return np.asarray(cv2.cvtColor(image, code), np.uint8).reshape(size, size, channels)


def image_bytes(path: Path) -> bytes:
    """Return the bytes of an image file; raises `BadImage` or `OSError` with the reason when there are none."""
    if path.is_dir():
        with os.scandir(path):  # OSError where it may not be entered
            raise BadImage(f"no image file in this folder; images end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("not a regular file")
    return Listed(str(path), status.st_size, status.st_mtime_ns).read()


def load_model(folder: Path, *, trust_code: bool = False, device: str = "cpu") -> Model:
    """Return the model in `folder`, ready to predict on `device`.

    The weights are plain tensors, nothing is unpickled. A user's own architecture (`architecture.py`) is code: it runs
    only with `trust_code`. Raises `RequestError` with all that is missing, damaged, not trusted or does not fit.
    """
    description = _read_description(folder)
    source = folder / SOURCE
    if source.exists() and not trust_code:
        raise RequestError(
            f"model {folder} brings code of its own, {SOURCE}, which would run with all your rights: read it, and if "
            "you trust whoever made it, say --trust-code"
        )
    try:
        classifier = build_classifier(
            description["architecture"],
            tuple(description["image_shape"]),
            len(description["classes"]),
            description["config"],
            mean=description["mean"],
            deviation=description["deviation"],
            source=source.read_text(encoding="utf-8") if source.exists() else None,
            weights=False,
        )
        classifier.load_state_dict(load_file(folder / WEIGHTS))
    except SafetensorError as error:
        raise RequestError(f"model {folder}: {WEIGHTS} is damaged ({error}); copy the folder again") from error
    except (TypeError, RuntimeError) as error:
        raise RequestError(f"model {folder}: {WEIGHTS} and {DESCRIPTION} do not belong together: {error}") from error
    return Model(description, classifier.eval().to(device), torch.device(device))


def find_model(word: str, storage: str, *, trust_code: bool = False) -> Model:
    """Return the model that a word means: a model folder, or an analysed experiment in `storage`.

    An experiment named by its name is one's own, and the code of its model was run when it was searched. Raises
    `RequestError` like `model_folder` and `load_model`.
    """
    folder = model_folder(word, storage)
    by_name = NAME_PATTERN.fullmatch(word) is not None and (
        not os.path.exists(word) or folder.parent == Path(storage, word).expanduser().resolve()
    )
    return load_model(folder, trust_code=trust_code or by_name)


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise RequestError(f"model {folder}: no such folder; a model is a folder with {DESCRIPTION} and {WEIGHTS}")
    problems = Problems()
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            problems.add(f"model {folder}: {name} is missing; a model is a folder with {DESCRIPTION} and {WEIGHTS}")
    problems.raise_if_any()
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = description["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"model {folder}: {DESCRIPTION} is not the description of a model ({error!r})") from error
    if found != FORMAT:
        raise RequestError(f"model {folder}: {DESCRIPTION} has format {found}, this version reads format {FORMAT}")
    if missing := [name for name in FIELDS if name not in description]:
        raise RequestError(f"model {folder}: {DESCRIPTION} lacks {', '.join(missing)}")
    return dict(description)


def write_predictions_csv(predictions: Sequence[Prediction], path: Path) -> None:
    """Write `path, label, probability, error` and a column `probability/CLASS` for each class.

    Texts that a spreadsheet would run as a formula get a ' in front.
    """
    classes = next((list(each.probabilities) for each in predictions if each.probabilities), [])
    with (
        written_beside(path) as beside,
        open(beside, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "label", "probability", "error", *(f"probability/{name}" for name in classes)])
        for each in predictions:
            numbers = [each.probability, *(each.probabilities.get(name) for name in classes)]
            first, *rest = ("" if number is None else f"{number:.6f}" for number in numbers)
            writer.writerow([cell(each.path), cell(each.label or ""), first, cell(each.error or ""), *rest])


def _images_at(path: Path) -> list[Path]:
    """Return the image files in a folder and the folders in it, by name; the path itself where there is none.

    So are returned folders that cannot be entered, for `_read` to say why. Links to folders are not followed.
    """
    if not os.path.isdir(path):
        return [path]
    closed: list[Path] = []
    inside = [
        Path(folder, name)
        for folder, _, names in os.walk(path, onerror=lambda error: closed.append(Path(error.filename)))
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    ]
    return sorted(inside + closed) or [path]

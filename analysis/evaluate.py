"""The test split: the only file that opens it. What the models said is kept, so that it stays closed afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.compare import compare, mcnemar
from analysis.metrics import classification_metrics, over_seeds
from analysis.pictures import png_data_uri
from foundation import written_beside
from trainables.cache import ImageCache, open_test
from trainables.models import Classifier, build_classifier
from trainables.predict import predict
from trainables.recipe import split

# Figures that are means over seeds, and whether each is a proportion.
FIGURES = {
    "accuracy": True,
    "top5_accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "auc": True,
    "average_precision": True,
    "log_loss": False,
    "calibration_error": True,
}
WORST = 24


@dataclass(frozen=True)
class Predictions:
    """What the final models said of the test images, kept in `test_predictions.npz`.

    `probabilities` holds (n_images, n_classes) for each final training by its trial. `worst` are the rows of the images
    that the shipped model was most sure of another class than theirs, the surest first, and `worst_images` their pixels
    (n, height, width, channels).
    """

    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    probabilities: Mapping[int, NDArray[np.float32]]
    worst: NDArray[np.int64]
    worst_images: NDArray[np.uint8]

    def correct(self, trials: Sequence[int]) -> NDArray[np.bool_]:
        """Return which images each model got right (models x n_images)."""
        return np.stack([self.probabilities[trial].argmax(axis=1) == self.labels for trial in trials])

    def worst_rows(self, trial: int, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return the images that a model got most wrong, as `{path, true, predicted, probability, image}`.

        `image` is a PNG as a data URI. Only the shipped model's `worst` are kept.
        """
        return [
            {
                "path": self.paths[row],
                "true": classes[self.labels[row]],
                "predicted": classes[int(self.probabilities[trial][row].argmax())],
                "probability": float(self.probabilities[trial][row].max()),
                "image": png_data_uri(image),
            }
            for row, image in zip(self.worst.tolist(), self.worst_images, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        arrays: dict[str, Any] = {f"trial_{trial}": each for trial, each in self.probabilities.items()}
        arrays |= {"labels": self.labels, "worst": self.worst, "worst_images": self.worst_images}
        arrays["paths"] = np.frombuffer("\0".join(self.paths).encode("utf-8", "surrogateescape"), np.uint8)
        with written_beside(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(file, **arrays)


def read_predictions(path: Path, trials: Sequence[int]) -> Predictions | None:
    """Return what is kept of the test images, or None unless it is of exactly these final trainings."""
    try:
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, KeyError):
        return None
    found = {int(name.removeprefix("trial_")): each for name, each in arrays.items() if name.startswith("trial_")}
    if set(found) != set(trials) or not {"labels", "paths", "worst", "worst_images"} <= arrays.keys():
        return None
    paths = tuple(arrays["paths"].tobytes().decode("utf-8", "surrogateescape").split("\0"))
    return Predictions(arrays["labels"], paths, found, arrays["worst"], arrays["worst_images"])


def restored(
    architecture: str, config: Mapping[str, Any], cache: ImageCache, weights: Mapping[str, Any], source: str | None
) -> Classifier:
    """Return the classifier of a configuration with trained weights in it."""
    _, knobs = split(config)
    model = build_classifier(
        architecture,
        cache.image_shape,
        len(cache.classes),
        knobs,
        mean=cache.mean,
        deviation=cache.deviation,
        source=source,
        weights=False,
    )
    model.load_state_dict(dict(weights))
    return model


def test_predictions(models: Mapping[int, Classifier], shipped: int, cache_folder: Path) -> Predictions:
    """Return what each model, by its trial, says of the test images; the test split is opened once for all of them."""
    images, labels, paths = open_test(cache_folder)
    probabilities = {trial: predict(model, images).astype(np.float32) for trial, model in models.items()}
    of_shipped = probabilities[shipped]
    guessed = of_shipped.argmax(axis=1)
    wrong = np.flatnonzero(guessed != labels)
    worst = wrong[np.argsort(-of_shipped[wrong, guessed[wrong]], kind="stable")][:WORST]
    return Predictions(np.asarray(labels), tuple(paths), probabilities, worst, np.array(images[worst]))


def test_figures(predictions: Predictions, trials: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Return a contender's figures on the test images: means over seeds, and those of the first of its models."""
    each = [classification_metrics(predictions.probabilities[trial], predictions.labels, classes) for trial in trials]
    test: dict[str, Any] = {"n_images": len(predictions.labels)}
    for figure, proportion in FIGURES.items():
        values = [metrics[figure] for metrics in each if metrics.get(figure) is not None]
        if values:
            test[figure] = over_seeds(values, proportion=proportion) | {"values": values}
    return {"test": test, "first_test": each[0]}


def test_comparisons(predictions: Predictions, best: str, trials: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return how a contender compares with each other one on the test images: configurations, and first models.

    `trials` holds the final trainings of each contender. `configurations` are over their seeds (`compare`), `models`
    the p-values of McNemar's test between the first model of each. Without another contender both are empty.
    """
    correct = {name: predictions.correct(of_name) for name, of_name in trials.items()}
    pairs = [(best, other) for other in trials if other != best]
    compared = compare(pairs, correct) if pairs else ()
    return {
        "configurations": [asdict(each) | {"sentence": each.sentence, "found": each.found} for each in compared],
        "models": [
            {"first": first, "second": second, "p_value": mcnemar(correct[first][0], correct[second][0])}
            for first, second in pairs
        ],
    }

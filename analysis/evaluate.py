"""The test split: the only file that opens it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.metrics import classification_metrics, over_seeds
from trainables.cache import ImageCache, open_test
from trainables.models import Classifier, build_classifier
from trainables.recipe import split
from trainables.training import predict

# Figures that are means over seeds, and whether each is a proportion.
FIGURES = {"accuracy": True, "precision": True, "recall": True, "f1": True, "auc": True, "log_loss": False}


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


def test_figures(
    models: Mapping[str, Sequence[Classifier]], cache_folder: Path, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return, for each contender, its figures on the test images: each model's, and their mean over seeds.

    The test split is opened once for all of them.
    """
    images, labels, _ = open_test(cache_folder)
    found = {}
    for name, of_seeds in models.items():
        each = [classification_metrics(predict(model, images), labels, classes) for model in of_seeds]
        test: dict[str, Any] = {"n_images": len(labels)}
        for figure, proportion in FIGURES.items():
            values = [metrics[figure] for metrics in each if metrics[figure] is not None]
            if values:
                test[figure] = over_seeds(values, proportion=proportion) | {"values": values}
        found[name] = {"test": test, "shipped_test": each[0]}
    return found

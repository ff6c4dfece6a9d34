"""The final models of an experiment, and the one that ships with a description of how it came about."""

from typing import Any

from analysis.deploy import write_model
from analysis.evaluate import restored
from analysis.experiment import Experiment
from cluster.mirror import MODEL, fetch_checkpoint
from cluster.record import TrialRecord
from cluster.storage import checkpoint_folder, versions
from foundation import RequestError, count
from trainables import checkpoint
from trainables.models import Classifier
from trainables.recipe import split


def final_model(experiment: Experiment, record: TrialRecord) -> Classifier:
    """Return the model that a final training ended with; `RequestError` where its checkpoint is gone or damaged."""
    folder = checkpoint_folder(experiment.folder, record.trial)
    fetch_checkpoint(experiment.folder, folder.parent.relative_to(experiment.folder).as_posix())
    kept = checkpoint.load(folder)
    if kept.state is None:
        raise RequestError(f"{folder} holds no sound checkpoint of trial {record.trial}: {'; '.join(kept.damaged)}")
    if (epochs := kept.state["training"]["epochs_done"]) != record.work["epochs"]:
        raise RequestError(
            f"{folder} holds trial {record.trial} after {count(epochs, 'epoch')}, and its model is that after "
            f"{record.work['epochs']}: {'; '.join(kept.damaged) or 'no later checkpoint is there'}"
        )
    source = experiment.asked["sources"].get(record.architecture)
    weights = kept.state["training"]["model"]
    return restored(record.architecture, record.config, experiment.cache(), weights, source)


def ship(experiment: Experiment, record: TrialRecord, model: Classifier, tested: dict[str, Any]) -> None:
    """Write `model/`: the weights of a final training, and what its contender and it reached on the test images."""
    cache, spec = experiment.cache(), experiment.spec
    _, knobs = split(record.config)
    by_class = {name: cache.counts["train"][name] + cache.counts["val"][name] for name in cache.classes}
    card = {
        "architecture": record.architecture,
        "image_shape": list(cache.image_shape),
        "classes": list(cache.classes),
        "config": knobs,
        "mean": list(cache.mean),
        "deviation": list(cache.deviation),
        "resize": cache.resize,
        "metrics": tested["test"] | {"by_class": tested["first_test"]["per_class"]},
        "trained_on": {
            "data": spec["data"],
            "fingerprint": cache.fingerprint,
            "images": sum(by_class.values()),
            "images_by_class": by_class,
            "epochs": record.work["epochs"],
            "seed": record.seed,
            "experiment": experiment.asked["name"],
            "trial": record.trial,
            **({"workers that trained it together": record.workers} if record.workers > 1 else {}),
        },
        "versions": versions(),
        "source": experiment.asked["sources"].get(record.architecture),
    }
    write_model(experiment.folder / MODEL, model, card)

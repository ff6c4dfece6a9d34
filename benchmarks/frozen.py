"""Transfer learning with frozen layers, computed once against computed in each epoch."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cifar import dataset
from measure import Figures, interleaved, options, ratios, table, tell

import spaces
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

IMAGES, VAL, INPUT = 256, 64, 96
PLAIN = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)
WAYS: dict[str, dict[str, Any]] = {
    "only the head trains": {"trainable_layers": 0},
    "only the head trains, 2 augmented views": {"trainable_layers": 0, "flip": 0.5, "rotation": 15.0},
    "the last 20 layers train": {"trainable_layers": 20, "frozen_epochs": 0},
}


def main() -> None:
    """Measure MobileNetV2, drawn instead of published weights, in three ways."""
    keep = options(__doc__).parse_args().keep
    rows = []
    for what, changes in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            data = replace(dataset(IMAGES, VAL), features=Path(folder))
            config = {"weights": _weights(data, Path(folder, "drawn.pth")), "input_size": INPUT, **PLAIN, **changes}
            once = _begun(data, {**config, "augmented_views": 2 if "views" in what else 0})
            each_time = _begun(replace(data, features=None), config)
            first = once.epoch().seconds
            if "views" in what:
                first += once.epoch().seconds
            found = interleaved(
                {"once": lambda once=once: once.epoch().seconds, "each": lambda other=each_time: other.epoch().seconds}
            )
            ratio = ratios(found["each"], found["once"])
            rows.append((what, found["each"], found["once"], ratio, f"{first:.3g}", _difference(once)))
    columns = (
        "",
        "computed each time, s",
        "computed once, s",
        "times as fast",
        "the first time, s",
        "logits differ by",
    )
    text = table(columns, rows)
    text += f"\n\nMedian (min–max) of 5 epochs in turn: {IMAGES} made images, {VAL} more for validation, resized to "
    text += f"{INPUT} x {INPUT}, one thread, fp32. The first time is that of whoever freezes these layers first on a "
    text += "host; the others read. Logits of all images, not augmented, compared with those of the whole model: the "
    text += "largest difference."
    tell("frozen.py", "Frozen layers", text, keep)


def _weights(data: Dataset, file: Path) -> str:
    """Write drawn weights of a backbone whose batch norms know these images, so that it tells them apart."""
    training = _begun(data, {"weights": "none", "input_size": INPUT})
    model = training.model
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain average: what is left of the first values would shrink the features
            module.train()
    with torch.inference_mode():
        for _ in range(3):
            model.net.backbone(model.prepared(training.batches.take(torch.arange(64))[0]))
    torch.save(model.net.backbone.state_dict(), file)
    return str(file)


def _begun(data: Dataset, config: dict[str, Any]) -> Training:
    training = Training(data, Settings())
    training.begin("mobilenet_v2", spaces.load("mobilenet_v2").baseline | config, seed=1, epochs=1000)
    return training


@torch.inference_mode()
def _difference(training: Training) -> str:
    """Return how far the logits from what was kept are from those of the whole model, and how far logits spread."""
    training.model.eval()
    frozen = training._frozen_features(())
    assert frozen is not None
    every = torch.arange(IMAGES + VAL)
    kept, _ = training._forward(every, frozen)
    whole, _ = training._forward(every, None)
    spread = Figures(tuple(whole.std(0).tolist())).median
    return f"{(kept - whole).abs().max().item():.1g} (they spread by {spread:.1g})"


if __name__ == "__main__":
    main()

"""Transfer learning: what may vary is the same for every published backbone."""

from typing import Any

from spaces._shared import ACTIVATION, ACTIVATIONS, BATCH_NORM, DROPOUT
from spaces.domains import Choice, Integer, Unless
from spaces.knobs import Between, Knob, WordOrFile

SPACE: dict[str, Knob] = {
    "weights": Knob(
        Choice(("published",)),
        "",
        "none trains from scratch",
        WordOrFile(("published", "none"), (".pth", ".pt", ".safetensors")),
    ),
    "trainable_layers": Knob(
        Unless(Choice((0, 20, 40, "all")), "weights", ("none",)),  # from scratch, all of them train
        "layers, from the end",
        "from a fixed backbone to full fine-tuning",
        Between(0, 10_000, whole=True, words=("all",)),
    ),
    "frozen_epochs": Knob(
        Unless(Integer(0, 3), "trainable_layers", (0,)),
        "epochs before they train",
        "lets the new head settle first",
        Between(0, 1000, whole=True),
    ),
    "augmented_views": Knob(
        Choice((0,)),
        "views",
        "0 draws a new one each epoch; with 4, say, frozen layers compute each once",
        Between(0, 100, whole=True),
    ),
    "input_size": Knob(
        Choice((96, 160, 224)), "pixels", "224 is what the weights saw, less is faster", Between(32, 512, whole=True)
    ),
    "dense_units": Knob(
        Choice((0, 128, 256, 512)),
        "units, 0 for no hidden layer",
        "the features are good already",
        Between(0, 4096, whole=True),
    ),
    "dropout": DROPOUT,
    "batch_norm": BATCH_NORM,
    "activation": Knob(Unless(Choice(ACTIVATIONS), "dense_units", (0,)), "", "the usual ones", ACTIVATION.allowed),
}

BASELINE: dict[str, Any] = {
    "weights": "published",
    "trainable_layers": 20,
    "frozen_epochs": 1,
    "augmented_views": 0,
    "input_size": 160,
    "dense_units": 128,
    "dropout": 0.2,
    "batch_norm": False,
    "activation": "relu",
}

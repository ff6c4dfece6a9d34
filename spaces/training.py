"""The range of every training hyperparameter, its unit, and why these bounds; the same for all architectures."""

from typing import Any

from spaces.domains import Choice, Integer, LogUniform, Uniform, When
from spaces.knobs import Among, Between, Knob

_OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
_SCHEDULES = ("constant", "step", "cosine", "one_cycle", "plateau")

TRAINING: dict[str, Knob] = {
    "learning_rate": Knob(
        LogUniform(1e-4, 3e-2), "peak step size", "slower ones need more epochs, faster ones diverge", Between(1e-8, 10)
    ),
    "optimizer": Knob(Choice(_OPTIMIZERS), "", "the four in common use", Among(_OPTIMIZERS)),
    "momentum": Knob(
        When(Uniform(0.5, 0.99), "optimizer", ("sgd", "rmsprop")),
        "share of the last step kept",
        "below 0.5 it hardly acts, at 1 steps never fade",
        Between(0, 0.999),
    ),
    "weight_decay": Knob(
        LogUniform(1e-6, 1e-2), "share per unit step", "from none in effect to underfitting", Between(0, 1)
    ),
    "batch_size": Knob(
        Choice((16, 32, 64, 128)), "images per forward pass", "what small devices hold", Between(2, 4096, whole=True)
    ),
    "accumulation_steps": Knob(
        Choice((1, 2)),
        "forward passes per optimizer step",
        "more leave a small data set few steps an epoch",
        Between(1, 64, whole=True),
    ),
    "schedule": Knob(Choice(_SCHEDULES), "", "the usual learning-rate curves", Among(_SCHEDULES)),
    "warmup_epochs": Knob(
        Integer(0, 2), "epochs", "longer ones eat into a short training", Between(0, 100, whole=True)
    ),
    "label_smoothing": Knob(Uniform(0, 0.2), "probability", "0.1 is usual (Szegedy et al., 2016)", Between(0, 0.9)),
    "class_weights": Knob(Choice(("none", "balanced")), "", "balanced helps rare classes", Among(("none", "balanced"))),
    "flip": Knob(Uniform(0, 0.5), "probability", "0 where left and right differ in meaning", Between(0, 1)),
    "shift": Knob(Uniform(0, 0.15), "share of the side", "beyond this objects leave the image", Between(0, 1)),
    "rotation": Knob(Uniform(0, 20), "degrees", "beyond this photos look unnatural", Between(0, 180)),
    "zoom": Knob(Uniform(0, 0.2), "share of the size", "beyond this objects are cut", Between(0, 0.9)),
    "shear": Knob(Uniform(0, 10), "degrees", "beyond this shapes change their meaning", Between(0, 60)),
    "cutout": Knob(Uniform(0, 0.4), "share of the side", "about the most in DeVries and Taylor, 2017", Between(0, 1)),
}

# What a student would run by hand: adam as it comes, no augmentation. Momentum counts where the optimizer has it.
TRAINING_BASELINE: dict[str, Any] = {
    "learning_rate": 1e-3,
    "optimizer": "adam",
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "batch_size": 32,
    "accumulation_steps": 1,
    "schedule": "constant",
    "warmup_epochs": 0,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "flip": 0.0,
    "shift": 0.0,
    "rotation": 0.0,
    "zoom": 0.0,
    "shear": 0.0,
    "cutout": 0.0,
}

"""The training knobs of a configuration, with their units; everything else in it belongs to the model."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    `learning_rate` is the peak step size; `momentum` belongs to sgd and rmsprop alone; `batch_size` is images per
    forward pass, so an optimizer step sees `batch_size * accumulation_steps` images. `flip` is a probability;
    `shift`, `zoom` and `cutout` are fractions of the image side; `rotation` and `shear` are degrees.
    """

    learning_rate: float
    optimizer: str
    weight_decay: float
    batch_size: int
    accumulation_steps: int
    schedule: str
    warmup_epochs: int
    label_smoothing: float
    class_weights: str
    flip: float
    shift: float
    rotation: float
    zoom: float
    shear: float
    cutout: float
    momentum: float | None = None

    @property
    def augmentation(self) -> tuple[float, ...]:
        """The strengths of the augmentation; empty where there is none."""
        strengths = (self.flip, self.shift, self.rotation, self.zoom, self.shear, self.cutout)
        return strengths if any(strengths) else ()


KNOBS = tuple(field.name for field in fields(Recipe))
REQUIRED = tuple(field.name for field in fields(Recipe) if field.default is MISSING)


def split(config: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Split a configuration into the recipe and the model's knobs; raises KeyError when a training knob is missing."""
    missing = [name for name in REQUIRED if name not in config]
    if missing:
        raise KeyError(f"the configuration lacks the training knobs {', '.join(missing)}")
    recipe = Recipe(**{name: config[name] for name in KNOBS if name in config})
    return recipe, {name: value for name, value in config.items() if name not in KNOBS}

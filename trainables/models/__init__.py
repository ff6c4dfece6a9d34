"""The models: one file per architecture with `build`, whose keyword-only arguments are its hyperparameters."""

import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from foundation import RequestError, unknown_word
from trainables.models._weights import published_path

Build = Callable[..., nn.Module]


def names() -> tuple[str, ...]:
    """Return the names of the built-in architectures, sorted: the modules of this folder."""
    return tuple(sorted(each.name for each in pkgutil.iter_modules(__path__) if not each.name.startswith("_")))


def load(architecture: str, source: str | None = None) -> Build:
    """Return the `build` of a built-in architecture, or of a user's own file whose text is `source`.

    RequestError for an unknown name, or for a text that fails or has no `build`.
    """
    if source is not None:
        return _load_source(architecture, source)
    if architecture not in names():
        raise RequestError(unknown_word("architecture", architecture, names()))
    build: Build = import_module(f"{__name__}.{architecture}").build
    return build


def _load_source(architecture: str, source: str) -> Build:
    module = ModuleType(f"architecture_{architecture}")
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up there
    try:
        exec(compile(source, f"{architecture}.py", "exec"), module.__dict__)
        build: Build = module.build
    except Exception as error:
        raise RequestError(
            f"the architecture file {architecture}.py failed: {type(error).__name__}: {error}"
        ) from error
    return build


def knobs(build: Build) -> tuple[str, ...]:
    """Return the names of the hyperparameters that a model consumes: its keyword-only arguments."""
    return tuple(each.name for each in _keyword_only(build))


def weights_at_hand(architecture: str) -> Path | None:
    """Return the published weights of a transfer model if they are in torchvision's hub cache; None otherwise.

    Nothing is downloaded, and torchvision is not imported. A user's own architecture has none.
    """
    if architecture not in names():
        return None
    backbone = getattr(import_module(f"{__name__}.{architecture}"), "BACKBONE", None)
    path = published_path(backbone.file) if backbone else None
    return path if path and path.is_file() else None


class Classifier(nn.Module):
    """A model with its own normalisation: float images (N, channels, height, width) in 0..255 to logits (N, classes).

    `mean` and `deviation` are per channel, in 0..255, and are saved with the weights. Where they are of three
    channels and the images are grey, the grey becomes three equal channels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        # Below one grey level a deviation is rounding; dividing by it would make noise loud.
        deviation = [max(value, 1.0) for value in deviation]
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self._normalised(images))
        return logits

    def _normalised(self, images: Tensor) -> Tensor:
        mean, deviation = self.mean, self.deviation
        lies_last = images.shape[1] > 1 and images.is_contiguous(memory_format=torch.channels_last)
        if lies_last and images.device.type == "cpu":
            # A row of each, in the images' order: or three channels are computed at a time, which takes 124 us for 32
            # images of 32 x 32 instead of 28, and gives the same.
            mean, deviation = (each.expand(-1, 1, images.shape[3]) for each in (mean, deviation))
            mean, deviation = (each.permute(1, 2, 0).contiguous().permute(2, 0, 1) for each in (mean, deviation))
        return (images - mean) / deviation

    @property
    def input_size(self) -> int | None:
        """The side in pixels to which the model resizes its images; None where it takes them as they are."""
        size: int | None = getattr(self.net, "resizes_to", None)
        return size

    @property
    def augmented_views(self) -> int:
        """In how many ways, fixed beforehand, images are augmented; 0 where each epoch draws its own."""
        return int(getattr(self.net, "augmented_views", 0))

    def halves(self) -> tuple[nn.Module, nn.Module] | None:
        """Return what is frozen now, of images after `prepared`, and the rest, of what that gives; None without."""
        halves = getattr(self.net, "halves", None)
        found: tuple[nn.Module, nn.Module] | None = halves() if callable(halves) else None
        return found

    def prepared(self, images: Tensor) -> Tensor:
        """Return images as the layers of a model with `halves` take them."""
        images = self._normalised(images)
        resized = getattr(self.net, "resized", None)
        return resized(images) if callable(resized) else images

    def layers_change(self, epoch: int) -> bool:
        """Whether the epoch after this one, counted from 0, trains other layers."""
        names = getattr(self.net, "trainable_names", None)
        return bool(callable(names) and names(epoch) != names(epoch + 1))

    def stages(self, epochs: int) -> list[int]:
        """Return the epochs, counted from 0, from which on other layers train than before: the first is 0."""
        return [0, *(epoch + 1 for epoch in range(epochs - 1) if self.layers_change(epoch))]

    def begin_epoch(self, epoch: int) -> None:
        """Let the model change what trains in an epoch, counted from 0; call it before the epoch."""
        begin = getattr(self.net, "begin_epoch", None)
        if callable(begin):
            begin(epoch)

    def describe_trainable(self) -> str | None:
        """Return a sentence on which layers train, for models where not all of them do."""
        describe = getattr(self.net, "describe_trainable", None)
        return describe() if callable(describe) else None


def build_classifier(
    architecture: str,
    image_shape: tuple[int, int, int],
    classes: int,
    knobs: Mapping[str, Any],
    *,
    mean: Sequence[float],
    deviation: Sequence[float],
    source: str | None = None,
    weights: bool = True,
) -> Classifier:
    """Return a new model, initialised from torch's random state.

    `image_shape` is (channels, height, width); `mean` and `deviation` are those of the training split, per channel in
    0..255, and are used unless the model has a `normalisation` of its own. With `weights` False no file of published
    weights is read, for a model whose own saved weights come next. TypeError names knobs that are unknown or missing.
    """
    build = load(architecture, source)
    arguments = _keyword_only(build)
    known = {each.name for each in arguments}
    needed = {each.name for each in arguments if each.default is inspect.Parameter.empty}
    unknown, missing = sorted(set(knobs) - known), sorted(needed - set(knobs))
    if unknown or missing:
        raise TypeError(
            f"the knobs of {architecture} are {', '.join(sorted(known))}: "
            f"unknown are {', '.join(unknown) or 'none'}, missing are {', '.join(missing) or 'none'}"
        )
    chosen = dict(knobs)
    if not weights and source is None and "weights" in known:  # a user's own knob of that name is theirs
        chosen["weights"] = "none"
    net = build(image_shape, classes, **chosen)
    mean, deviation = getattr(net, "normalisation", (mean, deviation))
    model = Classifier(net, mean, deviation)
    if isinstance(net, nn.Module) and any(map(is_lazy, (*net.parameters(), *net.buffers()))):
        with torch.no_grad():  # such layers know their size only when they have seen an image
            model.eval()(torch.zeros(2, *image_shape))
        model.train()
    return model


def _keyword_only(build: Build) -> list[inspect.Parameter]:
    parameters = inspect.signature(build).parameters.values()
    return [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())

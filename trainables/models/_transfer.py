"""Transfer learning: a published backbone, frozen in part, under a new head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from trainables.models._cut import cut
from trainables.models._dropout import Dropout
from trainables.models._layers import activation_layer, initialise
from trainables.models._weights import load_backbone, published_file, read_weights


@dataclass(frozen=True)
class Backbone:
    """A model of torchvision: its name there, the attribute that classifies, and the file of its default weights."""

    architecture: str
    classifier: str
    features: int
    file: str


class TransferModel(nn.Module):
    """A backbone that gives (N, features), of which the last layers may train, and a head that always does.

    Takes (N, 1 or 3, height, width); the batch is resized to `input_size` pixels on its own device, and grey is
    repeated to three equal channels. A layer is a module with parameters and no children. `normalisation` holds
    the mean and the deviation per channel that the published weights expect, in 0..255.
    """

    normalisation = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        input_size: int,
        trainable_layers: int | Literal["all"],
        frozen_epochs: int,
        augmented_views: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.resizes_to = input_size
        self.frozen_epochs = frozen_epochs
        self.augmented_views = augmented_views
        leaves = [(name, module) for name, module in backbone.named_modules() if not list(module.children())]
        self._layers = {name: module for name, module in leaves if list(module.parameters(recurse=False))}
        self._leaves = [module for _, module in leaves]
        count = len(self._layers) if trainable_layers == "all" else min(trainable_layers, len(self._layers))
        self._trainable = tuple(self._layers)[len(self._layers) - count :]
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze and unfreeze for an epoch, counted from 0: the first `frozen_epochs` train only the head."""
        training = self.trainable_names(epoch)
        for name, layer in self._layers.items():
            layer.requires_grad_(name in training)
        self.train(self.training)

    def trainable_names(self, epoch: int) -> tuple[str, ...]:
        """Return the names of the backbone's layers that train in an epoch, counted from 0, in their order."""
        return self._trainable if epoch >= self.frozen_epochs else ()

    def describe_trainable(self) -> str:
        """Return a sentence on which layers train, and from when."""
        if not self._trainable:
            return f"only the head trains: all {len(self._layers)} layers of the backbone are frozen"
        start = f" from epoch {self.frozen_epochs + 1} on, before that only the head" if self.frozen_epochs else ""
        span = " .. ".join(dict.fromkeys((self._trainable[0], self._trainable[-1])))
        return f"the head and {len(self._trainable)} of {len(self._layers)} layers train ({span}){start}"

    def train(self, mode: bool = True) -> "TransferModel":
        """Switch to training or evaluation; the frozen part stays in evaluation.

        It is a fixed function: its batch norms keep the statistics of their weights, and nothing in it is dropped.
        """
        super().train(mode)
        for leaf in self._leaves:
            if _trains(leaf):
                break
            leaf.eval()
        return self

    def halves(self) -> tuple[nn.Module, nn.Module] | None:
        """Return the frozen part, of images as `resized` gives them, and the rest, of what that gives; None without."""
        training = [name for name, layer in self._layers.items() if _trains(layer)]
        if not training:
            return self.backbone, self.head
        halves = cut(self.backbone, training)
        return halves and (halves[0], nn.Sequential(halves[1], self.head))

    def resized(self, images: Tensor) -> Tensor:
        """Return images as the backbone takes them: of three channels and its size."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        size = (self.resizes_to, self.resizes_to)
        if images.shape[-2:] != size:
            shrinking = max(images.shape[-2:]) > self.resizes_to
            images = F.interpolate(images, size, mode="bilinear", antialias=shrinking)
        return images

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(self.resized(images)))
        return logits


def _trains(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


def transfer_build(source: Backbone) -> Callable[..., nn.Module]:
    """Return the `build` function of a published backbone."""

    def build(
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        weights: str,
        input_size: int,
        dense_units: int,
        dropout: float,
        batch_norm: bool,
        trainable_layers: int | Literal["all"] = "all",
        frozen_epochs: int = 0,
        augmented_views: int = 0,
        activation: str = "relu",
    ) -> nn.Module:
        """Return the backbone under a new head: dropout and logits, after a hidden layer if it has units.

        Batch norm is of the hidden layer, or of the features where there is none. `weights` is "published", "none",
        or a file. With `augmented_views` images are augmented in so many ways, fixed beforehand, so that what is frozen
        computes each once. RequestError if the weights cannot be had or do not fit.
        """
        backbone = _load(source, weights)
        hidden: list[nn.Module] = []
        if dense_units:
            hidden.append(nn.Linear(source.features, dense_units, bias=not batch_norm))
        if batch_norm:
            hidden.append(nn.BatchNorm1d(dense_units or source.features))
        if dense_units:
            hidden.append(activation_layer(activation))
        head = nn.Sequential(*hidden, Dropout(dropout), nn.Linear(dense_units or source.features, classes))
        initialise(head, activation)
        return TransferModel(
            backbone,
            head,
            input_size=input_size,
            trainable_layers=trainable_layers,
            frozen_epochs=frozen_epochs,
            augmented_views=augmented_views,
        )

    return build


def _load(source: Backbone, weights: str) -> nn.Module:
    from torchvision.models import get_model, get_model_weights  # takes seconds: only where it is needed

    backbone: nn.Module = get_model(source.architecture, weights=None)
    setattr(backbone, source.classifier, nn.Identity())
    if weights == "published":
        url = get_model_weights(source.architecture).DEFAULT.url
        weights = str(published_file(source.architecture, source.file, url))
    if weights != "none":
        load_backbone(backbone, read_weights(weights), weights)
    return backbone

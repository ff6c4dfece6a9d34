"""The optimizer and the learning-rate curve of a recipe."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainables.recipe import Recipe

PLATEAU_FACTOR = 0.5
ONE_CYCLE_RISE = 0.3  # share of the training in which the rate rises
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all parameters, frozen ones included: they may thaw, and cost nothing.

    Weight decay is left off biases and norms, as is usual: it would pull them towards zero for no gain in
    generalisation. The step is one fused kernel where torch has one (not for rmsprop).
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    rate, momentum = recipe.learning_rate, recipe.momentum or 0.0
    match recipe.optimizer:
        case "sgd":
            return _SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
        case "adam":
            return _Adam(groups, lr=rate, fused=True)
        case "adamw":
            return _AdamW(groups, lr=rate, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, momentum=momentum, foreach=True)
    raise ValueError(f"optimizer {recipe.optimizer!r} is not known: allowed are adam, adamw, rmsprop, sgd")


class _SGD(torch.optim.SGD):
    """Begins each parameter's momentum at zero, from which the first step is the same as from none.

    torch 2.15's fused step wants a momentum of all parameters or of none: when layers thaw, only the head has one.
    """

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], momentum_buffer_list: list[Any]
    ) -> bool:
        found: bool = super()._init_group(group, params, grads, momentum_buffer_list)  # type: ignore[no-untyped-call]
        for place, (parameter, kept) in enumerate(zip(params, momentum_buffer_list, strict=False)):
            momentum_buffer_list[place] = torch.zeros_like(parameter) if kept is None else kept
        return found


class _AsStored(torch.optim.Optimizer):
    """Gives torch's fused step each tensor in the order in which it is stored.

    The step is the same for each value, whatever the order; but torch 2.15 first copies each gradient that is not
    contiguous on a CPU, and then does not use the copy. With channels-last weights an epoch of VGG11 takes 4 % less.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        found: bool = super()._init_group(group, *lists)  # type: ignore[misc]
        for tensors in lists:
            tensors[:] = [_as_stored(each) for each in tensors]
        return found


class _Adam(_AsStored, torch.optim.Adam):
    pass


class _AdamW(_AsStored, torch.optim.AdamW):
    pass


def _as_stored(tensor: Tensor) -> Tensor:
    """Return a channels-last tensor with its axes in the order of the memory."""
    return tensor if tensor.ndim != 4 or tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)


class LearningRateCurve:
    """The learning rate at every moment of a training of so many epochs, as a function of time in epochs.

    After a linear warm-up: `constant`; `step` (a tenth from half of the training on, a hundredth from three
    quarters); `cosine` to zero (Loshchilov and Hutter, 2017); `one_cycle` (Smith, 2018); `plateau` (halved when
    validation loss has not fallen for a tenth of the epochs, two at least). Time is counted in epochs, so that a
    training on more images replays the same curve. A plateau's curve depends on what it saw: `recorded`, the
    learning rate at the end of each epoch of an earlier run, replays it without validation data.
    """

    def __init__(self, recipe: Recipe, epochs: int, recorded: list[float] | None = None) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.recorded = recorded
        self.warmup = min(recipe.warmup_epochs, epochs - 1)
        self.scale = 1.0
        self.lowest = math.inf
        self.waited = 0

    def at(self, epoch: int, fraction: float) -> float:
        """Return the learning rate in the 0-based `epoch`, `fraction` (0..1) of the way through it."""
        time = epoch + fraction
        if time < self.warmup:
            return self.recipe.learning_rate * max(time, 0.01) / self.warmup
        if self.recipe.schedule == "plateau" and self.recorded is not None:
            return self.recorded[epoch]
        progress = (time - self.warmup) / (self.epochs - self.warmup)
        return self.recipe.learning_rate * self._shape(min(progress, 1.0))

    def observe(self, val_loss: float) -> None:
        """Take note of the validation loss after an epoch; only `plateau` reacts to it."""
        if self.recipe.schedule != "plateau":
            return
        if val_loss < self.lowest:
            self.lowest, self.waited = val_loss, 0
            return
        self.waited += 1
        if self.waited >= max(2, self.epochs // 10):
            self.scale, self.waited = self.scale * PLATEAU_FACTOR, 0

    def _shape(self, progress: float) -> float:
        match self.recipe.schedule:
            case "constant":
                return 1.0
            case "plateau":
                return self.scale
            case "step":
                return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * progress))
            case "one_cycle":
                if progress < ONE_CYCLE_RISE:
                    return _between(ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_RISE)
                return _between(1.0, ONE_CYCLE_END, (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
        raise ValueError(
            f"schedule {self.recipe.schedule!r} is not known: allowed are constant, cosine, one_cycle, plateau, step"
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {"scale": self.scale, "lowest": self.lowest, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a kept state."""
        self.scale, self.lowest, self.waited = state["scale"], state["lowest"], state["waited"]


def _between(start: float, end: float, share: float) -> float:
    """Return the value a share (0..1) of the way from start to end along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))

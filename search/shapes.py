"""Follow the shapes of a model on torch's meta device without what has nothing to do with shapes: it imports torch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def only_shapes() -> TorchFunctionMode:
    """Return a context in which tensors on the meta device are not filled, and are not gone through where only their
    shape passes on: activations, dropout, batch normalisation.

    torch does it in Python there, operation by operation. What does not fit is left to torch, and raises its errors.
    """
    return _OnlyShapes()


class _OnlyShapes(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shortcut = _SHORTCUTS.get(func)
        known = None if shortcut is None else shortcut(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if known is None else known


def _normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor | None:
    return tensor if tensor.is_meta and std >= 0 else None


def _uniform(tensor: Tensor, low: float = 0.0, high: float = 1.0, **others: Any) -> Tensor | None:
    return tensor if tensor.is_meta and others.get("from", low) <= others.get("to", high) else None


def _filled(tensor: Tensor, *_: Any) -> Tensor | None:
    return tensor if tensor.is_meta else None


def _each(images: Tensor, *_: Any, **__: Any) -> Tensor | None:
    """Return what an activation gives: the shape of what it is given."""
    return torch.empty_like(images) if images.is_meta and images.is_floating_point() else None


def _dropout(images: Tensor, p: float = 0.5, *_: Any, **__: Any) -> Tensor | None:
    return _each(images) if 0 <= p <= 1 else None


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: Any,
    **__: Any,
) -> Tensor | None:
    """Return what batch normalisation gives where its parameters fit and a channel has more than one value."""
    values = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    fits = images.dim() > 1 and images.numel() > images.shape[1]
    fits = fits and all(each.shape == images.shape[1:2] and each.dtype == images.dtype for each in values)
    return _each(images) if fits else None


_SHORTCUTS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    Tensor.normal_: _normal,
    Tensor.uniform_: _uniform,
    Tensor.zero_: _filled,
    Tensor.fill_: _filled,
    functional.batch_norm: _batch_norm,
    functional.dropout: _dropout,
    functional.relu: _each,
    functional.leaky_relu: _each,
    functional.elu: _each,
    functional.gelu: _each,
    functional.silu: _each,
    torch.tanh: _each,
}

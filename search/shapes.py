"""Follow the shapes of a model on torch's meta device without what has nothing to do with shapes: it imports torch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional, init
from torch.overrides import TorchFunctionMode


class Shortcuts(TorchFunctionMode):
    """A context in which tensors on the meta device are not filled, and are not gone through where their shape tells
    all; what is learned from keeps for the way back as much as torch's own does.

    torch does it in Python there, operation by operation, with a library for symbols that takes 0.5 s to import. What
    does not fit is left to torch, and raises its errors. `flops` are the operations of the layers and convolutions that
    were not gone through, two for each multiplication, as torch's `FlopCounterMode` counts those that were.
    """

    flops = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shortcut = _KNOWN.get(func)
        found = None if shortcut is None else shortcut(*args, **(kwargs or {}))
        if found is None:
            return func(*args, **(kwargs or {}))
        if shortcut in _PRODUCTS:
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            self.flops += 2 * found.numel() * math.prod(weight.shape[1:])
        return found


def _normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor | None:
    return tensor if tensor.is_meta and std >= 0 else None


def _uniform(tensor: Tensor, low: float = 0.0, high: float = 1.0, **others: Any) -> Tensor | None:
    return tensor if tensor.is_meta and others.get("from", low) <= others.get("to", high) else None


def _filled(tensor: Tensor, *_: Any) -> Tensor | None:
    return tensor if tensor.is_meta else None


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of a shape, by the one way to make it that is not Python on the meta device."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)


class _Activated(torch.autograd.Function):
    """What an activation gives, by its shape alone; it keeps what it gave, or what it was given."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, keeps_result: bool, inplace: bool) -> Tensor:
        result = images if inplace else _empty(images, images.shape)
        if inplace:
            ctx.mark_dirty(images)
        ctx.save_for_backward(result if keeps_result else images)
        return result


def _activation(*, keeps_result: bool) -> Callable[..., Tensor | None]:
    def activated(images: Tensor, *_: Any, inplace: bool = False, **__: Any) -> Tensor | None:
        if not (images.is_meta and images.is_floating_point()):
            return None
        result: Tensor = _Activated.apply(images, keeps_result, inplace)
        return result

    return activated


class _Dropped(torch.autograd.Function):
    """What dropout gives, by its shape alone; it keeps what each value was multiplied by."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(_empty(images, images.shape))
        return _empty(images, images.shape)


def _dropout(images: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    if not (images.is_meta and images.is_floating_point() and 0 < p < 1 and training and not inplace):
        return None
    dropped: Tensor = _Dropped.apply(images)
    return dropped


class _Normalised(torch.autograd.Function):
    """What batch normalisation gives, by its shape alone; it keeps a mean and a deviation of each channel, too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, *others: Tensor) -> Tensor:
        channels = images.shape[1:2]
        ctx.save_for_backward(images, *others, _empty(images, channels), _empty(images, channels))
        return _empty(images, images.shape)


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
    fits = images.is_meta and images.is_floating_point() and images.dim() > 1 and images.numel() > images.shape[1]
    if not fits or any(each.shape != images.shape[1:2] or each.dtype != images.dtype for each in values):
        return None
    normalised: Tensor = _Normalised.apply(images, *values)
    return normalised


def _each_with(images: Tensor, other: object, **others: Any) -> Tensor | None:
    """Return what a difference or quotient gives that takes the first one's shape, and that nothing is learned from."""
    if others or not isinstance(other, Tensor) or not (images.is_meta and other.is_meta):
        return None
    if images.requires_grad or other.requires_grad or other.dtype != images.dtype or not other.is_floating_point():
        return None
    if other.dim() > images.dim():
        return None
    sides = zip(reversed(other.shape), reversed(images.shape), strict=False)
    return _empty(images, images.shape) if all(side in (1, of_images) for side, of_images in sides) else None


class _Product(torch.autograd.Function):
    """What a product of images and weights gives, by its shape alone."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, *shape: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        return _empty(images, shape)


def _fit(images: Tensor, weight: Tensor, bias: Tensor | None, dimensions: int) -> bool:
    each = [images, weight] if bias is None else [images, weight, bias]
    if not all(isinstance(one, Tensor) and one.is_meta and one.dtype == images.dtype for one in each):
        return False
    return weight.dim() == dimensions and (bias is None or bias.shape == weight.shape[:1])


def _linear(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if not _fit(images, weight, bias, 2) or not images.dim() or images.shape[-1] != weight.shape[1]:
        return None
    product: Tensor = _Product.apply(images, weight, bias, *images.shape[:-1], weight.shape[0])
    return product


def _conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return what a convolution gives where it fits; of its words for padding none is known here."""
    if not _fit(images, weight, bias, 4) or images.dim() != 4 or isinstance(padding, str):
        return None
    steps, around, apart = ((each, each) if isinstance(each, int) else each for each in (stride, padding, dilation))
    if min(*steps, *apart, groups) < 1 or min(around) < 0 or images.shape[1] != groups * weight.shape[1]:
        return None
    left = [
        images.shape[2 + axis] + 2 * around[axis] - apart[axis] * (weight.shape[2 + axis] - 1) - 1 for axis in (0, 1)
    ]
    if min(left) < 0 or weight.shape[0] % groups:
        return None
    sides = [left[axis] // steps[axis] + 1 for axis in (0, 1)]
    product: Tensor = _Product.apply(images, weight, bias, len(images), weight.shape[0], *sides)
    return product


_PRODUCTS = (_linear, _conv2d)
_KNOWN: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    Tensor.normal_: _normal,
    Tensor.uniform_: _uniform,
    Tensor.zero_: _filled,
    Tensor.fill_: _filled,
    init.normal_: _normal,  # its own Tensor.normal_ does not come by here
    Tensor.sub: _each_with,
    Tensor.div: _each_with,
    functional.dropout: _dropout,
    functional.batch_norm: _batch_norm,
    functional.relu: _activation(keeps_result=True),
    functional.leaky_relu: _activation(keeps_result=False),
    functional.elu: _activation(keeps_result=False),
    functional.gelu: _activation(keeps_result=False),
    functional.silu: _activation(keeps_result=False),
    torch.tanh: _activation(keeps_result=True),
    functional.linear: _linear,
    torch.conv2d: _conv2d,
}

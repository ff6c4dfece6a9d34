"""Can this configuration exist? Its shapes are followed on torch's meta device, where nothing is computed."""

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundation import RequestError

if TYPE_CHECKING:
    from search.shapes import Shortcuts

_OVERHEAD_BYTES = 200_000  # names, learning rates, random numbers and the epochs so far
IMAGES = 2
LATE_EPOCH = 10**6  # by then all that is to train does
# What torch and a model's own arithmetic raise where shapes do not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, ZeroDivisionError, IndexError)


@dataclass(frozen=True)
class Preflight:
    """Why a model cannot be built, or None if it can; and the most bytes that a state of its training has.

    That is its parameters, two values of the optimizer for each, as adam keeps them, and its buffers, in float32.
    `kept_bytes` are those of the tensors that one image's way forward keeps for the way back, in float32, when all that
    ever trains does; `largest_bytes` those of the largest tensor on the way.
    """

    impossible: str | None
    state_bytes: int = 0
    kept_bytes: int = 0
    largest_bytes: int = 0


def preflight(
    architecture: str,
    config: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    n_classes: int,
    source: str | None = None,
) -> Preflight:
    """Return what can be known of a model for images of a shape (channels, height, width) without computing.

    Whatever fails in `source`, the text of a user's own file, is a reason too, and begins with its line.
    """
    import torch

    try:
        with _Kept() as kept:
            model, logits = _followed(architecture, config, image_shape, n_classes, source)
    except RequestError:
        raise
    except Exception as error:
        place = _place(error, f"{architecture}.py") if source is not None else ""
        if not place and not isinstance(error, _MISFITS):
            raise
        first_line = str(error).splitlines()[0] if str(error) else "no message"
        return Preflight(f"{place}{type(error).__name__}: {first_line}")
    if not isinstance(built := model.net, torch.nn.Module):
        return Preflight(f"build returned {type(built).__name__}, a torch.nn.Module is needed")
    if not isinstance(logits, torch.Tensor):
        return Preflight(f"the model gives {type(logits).__name__}, a tensor of logits is needed")
    if tuple(logits.shape) != (IMAGES, n_classes):
        found = f"an output of shape {tuple(logits.shape)} for {IMAGES} images and {n_classes} classes"
        return Preflight(f"the model gives {found}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())
    state_bytes = _OVERHEAD_BYTES + 4 * (3 * parameters + buffers)
    of_images = kept.but_for(model.parameters())
    return Preflight(None, state_bytes, sum(of_images) // IMAGES, max(kept.largest, *of_images, 0) // IMAGES)


class _Kept:
    """Notes the tensors that autograd keeps for the way back, and the largest that a layer gives, while it is open."""

    def __enter__(self) -> "_Kept":
        import torch

        self.largest = 0
        self._tensors: list[Any] = []  # held, so that no two have the same place
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        self._layers = torch.nn.modules.module.register_module_forward_hook(self._given)
        return self

    def __exit__(self, *of_error: object) -> None:
        self._layers.remove()
        self._hooks.__exit__(*of_error)

    def _given(self, layer: Any, given: Any, output: Any) -> None:
        self.largest = max(self.largest, getattr(output, "nbytes", 0))

    def _keep(self, tensor: Any) -> Any:
        # Not the tensor itself: where an operation keeps its own result, they would hold each other, out of sight of
        # the garbage collector: 66 KB for each trial of a search, for ever.
        self._tensors.append(kept := tensor.detach())
        return kept

    def but_for(self, parameters: Iterable[Any]) -> list[int]:
        """Return the bytes of each storage that was kept, those of the parameters left out; one seen twice is one."""
        known = {parameter.untyped_storage()._cdata for parameter in parameters}
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in self._tensors}
        return [size for place, size in storages.items() if place not in known]


def built(
    architecture: str, config: Mapping[str, Any], image_shape: tuple[int, int, int], n_classes: int, source: str | None
) -> Any:
    """Return a model on the meta device, by `Shortcuts`; raises whatever building it raises."""
    from trainables.compiler import leave_compiler_out
    from trainables.models import build_classifier
    from trainables.recipe import split

    leave_compiler_out()
    _, knobs = split(config)
    around = {"mean": (127.5,) * image_shape[0], "deviation": (64.0,) * image_shape[0]}
    with on_meta():
        return build_classifier(architecture, image_shape, n_classes, knobs, **around, source=source, weights=False)


@contextmanager
def on_meta() -> Iterator["Shortcuts"]:
    """Let new tensors be on the meta device, and follow them by `Shortcuts`."""
    import torch

    from search import shapes

    with torch.device("meta"), shapes.Shortcuts() as shortcuts:
        yield shortcuts


def _followed(
    architecture: str, config: Mapping[str, Any], image_shape: tuple[int, int, int], n_classes: int, source: str | None
) -> tuple[Any, Any]:
    """Return the model and what it gives for `IMAGES` images, when all that ever trains does."""
    import torch

    model = built(architecture, config, image_shape, n_classes, source)
    with on_meta():
        model.begin_epoch(LATE_EPOCH)
        return model, model(torch.zeros(IMAGES, *image_shape)) if isinstance(model.net, torch.nn.Module) else None


def _place(error: Exception, filename: str) -> str:
    """Return "FILE line N: " for the last line of a file that an error passed through, or "" if there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    return f"{filename} line {lines[-1]}: " if lines else ""

"""Can this configuration exist? Its shapes are followed on torch's meta device, where nothing is computed."""

import traceback
from collections.abc import Mapping
from typing import Any

from foundation import RequestError

# What torch and a model's own arithmetic raise where shapes do not fit.
_MISFITS = (RuntimeError, ValueError, TypeError, ZeroDivisionError, IndexError)


def impossible(
    architecture: str,
    config: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    n_classes: int,
    source: str | None = None,
) -> str | None:
    """Return why no such model can be built for images of a shape (channels, height, width), or None if it can.

    Whatever fails in `source`, the text of a user's own file, is a reason too, and begins with its line.
    """
    import torch

    from trainables.models import build_classifier
    from trainables.recipe import split

    _, knobs = split(config)
    channels = image_shape[0]
    try:
        with torch.device("meta"):
            model = build_classifier(
                architecture,
                image_shape,
                n_classes,
                knobs,
                mean=(127.5,) * channels,
                deviation=(64.0,) * channels,
                source=source,
                weights=False,
            )
            built: Any = model.net
            if not isinstance(built, torch.nn.Module):
                return f"build returned {type(built).__name__}, a torch.nn.Module is needed"
            logits = model(torch.zeros(2, *image_shape))
    except RequestError:
        raise
    except Exception as error:
        place = _place(error, f"{architecture}.py") if source is not None else ""
        if not place and not isinstance(error, _MISFITS):
            raise
        return f"{place}{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if not isinstance(logits, torch.Tensor):
        return f"the model gives {type(logits).__name__}, a tensor of logits is needed"
    if tuple(logits.shape) != (2, n_classes):
        return f"the model gives an output of shape {tuple(logits.shape)} for 2 images and {n_classes} classes"
    return None


def _place(error: Exception, filename: str) -> str:
    """Return "FILE line N: " for the last line of a file that an error passed through, or "" if there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    return f"{filename} line {lines[-1]}: " if lines else ""

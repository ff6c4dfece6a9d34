"""Can this configuration exist? Its shapes are followed on torch's meta device, where nothing is computed."""

from collections.abc import Mapping
from typing import Any


def impossible(
    architecture: str,
    config: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    n_classes: int,
    source: str | None = None,
) -> str | None:
    """Return why no such model can be built for images of a shape (channels, height, width), or None if it can."""
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
            logits = model(torch.zeros(2, *image_shape))
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError, IndexError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if tuple(logits.shape) != (2, n_classes):
        return f"the model gives an output of shape {tuple(logits.shape)} for 2 images and {n_classes} classes"
    return None

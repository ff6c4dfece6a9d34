"""What a trained model says of images, outside of training."""

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.device import best_device, evaluation_batch
from trainables.models import Classifier


@torch.inference_mode()
def predict(model: Classifier, images: NDArray[np.uint8], device: torch.device | None = None) -> NDArray[np.float64]:
    """Return class probabilities (N x classes) for images N x H x W x C, in fp32.

    On a GPU from Ampere on, convolutions round to TF32 as torch has it. The model is left where it was.
    """
    device, before = device or best_device(), next(model.parameters()).device
    model = model.to(device).eval()
    batch = evaluation_batch(device.type, images.shape[1], images.shape[2], model.input_size)
    parts = []
    for start in range(0, len(images), batch):
        chunk = torch.from_numpy(np.array(images[start : start + batch])).to(device)  # a copy: torch wants it writable
        logits = model(chunk.permute(0, 3, 1, 2).float())
        parts.append(torch.softmax(logits.double() if device.type != "mps" else logits, dim=1).cpu().numpy())
    model.to(before)
    return np.concatenate(parts)

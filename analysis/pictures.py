"""Images as a page or TensorBoard shows them."""

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 80


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image (height, width, 1 or 3; RGB) as a PNG."""
    pixels: Any = image if image.shape[2] == 1 else image[:, :, ::-1]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes())


def png_data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (height, width, 1 or 3; RGB) as a PNG in a data URI: inside the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def jpeg_data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (height, width, 1 or 3; RGB) as a JPEG in a data URI."""
    pixels: Any = image if image.shape[2] == 1 else image[:, :, ::-1]
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def enlarged(image: NDArray[np.uint8], least_px: int) -> NDArray[np.uint8]:
    """Return an image with each pixel repeated, in both directions, until neither side is under `least_px`."""
    times = max(1, -(-least_px // min(image.shape[:2])))
    return image.repeat(times, axis=0).repeat(times, axis=1)

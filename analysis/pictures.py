"""Images as a page shows them: inside the page itself."""

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def png_data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (height, width, 1 or 3; RGB) as a PNG in a data URI."""
    pixels: Any = image if image.shape[2] == 1 else image[:, :, ::-1]
    encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))[1]
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"

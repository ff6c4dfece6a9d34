"""Whether the files of a cache are whole, and belong together."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundation import RequestError

LEARNED, TESTED = "", "test_"  # what the names of files of train and val begin with, and those of test


def checked_manifest(folder: Path, prefixes: Sequence[str]) -> dict[str, Any]:
    """Return the manifest of a cache whose files with these prefixes are there and whole.

    Raises `RequestError` where there is none, or only a part of one.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        channels, height, width = manifest["image_shape"]
        counts = {name: sum(of_class.values()) for name, of_class in manifest["counts"].items()}
        images_of = {LEARNED: counts["train"] + counts["val"], TESTED: counts["test"]}
        for prefix in prefixes:
            expected = images_of[prefix]
            images = np.load(folder / f"{prefix}images.npy", mmap_mode="r")  # fails where the file is too short
            if images.shape != (expected, height, width, channels):
                raise ValueError(f"{prefix}images.npy holds {images.shape}, not {expected} images")
            if len(np.load(folder / f"{prefix}labels.npy")) != expected:
                raise ValueError(f"{prefix}labels.npy does not hold {expected} labels")
            if len(json.loads((folder / f"{prefix}paths.json").read_text("utf-8"))) != expected:
                raise ValueError(f"{prefix}paths.json does not hold {expected} paths")
        if np.bincount(np.load(folder / "split.npy"), minlength=2).tolist() != [counts["train"], counts["val"]]:
            raise ValueError("split.npy is not that of the manifest")
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        raise RequestError(f"image cache {str(folder)!r} cannot be opened ({error}): prepare the data again") from error
    return manifest

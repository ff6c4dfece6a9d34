"""The images of the race: a stratified part of CIFAR-10 as a folder of JPEGs, and the same as arrays."""

import io
import random
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"train": 5000, "val": 1000, "test": 1000}


def chosen(names: list[str], seed: int) -> dict[str, list[str]]:
    """Return the names of the files of each part: as many of every class, test from test/ and the rest from train/."""
    classes = sorted({name.split("/")[1] for name in names if name.startswith("train/")})
    parts: dict[str, list[str]] = {part: [] for part in SIZES}
    for label in classes:
        each = {part: size // len(classes) for part, size in SIZES.items()}
        rng = random.Random(f"{seed} {label}")
        train = sorted(name for name in names if name.startswith(f"train/{label}/") and name.endswith(".jpg"))
        test = sorted(name for name in names if name.startswith(f"test/{label}/") and name.endswith(".jpg"))
        drawn = rng.sample(train, each["train"] + each["val"])
        parts["train"] += drawn[: each["train"]]
        parts["val"] += drawn[each["train"] :]
        parts["test"] += rng.sample(test, each["test"])
    return parts


def prepare(archive: Path, folder: Path, seed: int = 0) -> None:
    """Write `images/PART/CLASS/*.jpg`, `PART_images.npy` (uint8, NHWC) and `PART_labels.npy`.

    Nobody looks at test: it is there because `convscout` would otherwise make one of the training images.
    """
    with zipfile.ZipFile(archive) as opened:
        parts = chosen(opened.namelist(), seed)
        classes = sorted({name.split("/")[1] for name in parts["train"]})
        for part, names in parts.items():
            images, labels = [], []
            for name in names:
                content = opened.read(name)
                _, label, file_name = name.split("/")
                target = folder / "images" / part / label / file_name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                images.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
                labels.append(classes.index(label))
            np.save(folder / f"{part}_images.npy", np.stack(images))
            np.save(folder / f"{part}_labels.npy", np.array(labels))

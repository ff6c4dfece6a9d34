"""What all contestants share: the clock, the command line, the log, the images and the space."""

import argparse
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clock import START_SECONDS  # before numpy

# isort: split
import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
SPACE_FILE = HERE / "space.yaml"
EPOCHS = 10  # at most, of a trial
CLASSES = 10

Config = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The command line of a contestant."""

    data: Path
    seconds: float
    seed: int
    first: Path
    log: Path

    @property
    def work(self) -> Path:
        """The folder for what a contestant leaves behind, which nobody needs after its run."""
        return self.log.parent / "work"


def read_options(description: str | None) -> Options:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="the folder that prepare.py made")
    parser.add_argument("--seconds", type=float, default=240.0, help="by the clock, from the start of the process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=Path, required=True, help="JSON list of the configurations to try first")
    parser.add_argument("--log", type=Path, required=True, help="gets one JSON line per epoch")
    given = parser.parse_args()
    options = Options(given.data.resolve(), given.seconds, given.seed, given.first.resolve(), given.log.resolve())
    options.work.mkdir(parents=True, exist_ok=True)
    return options


@dataclass(frozen=True)
class Log:
    """The epochs of a contestant, written as they end, by any of its processes; those after its time do not count."""

    path: Path
    start_seconds: float
    limit_seconds: float

    def seconds_left(self) -> float:
        """Return the seconds until this contestant's time is over."""
        return self.start_seconds + self.limit_seconds - time.time()

    def epoch(self, trial: int | str, epoch: int, images: int, val_accuracy: float) -> None:
        """Append one epoch, counted from 1; `images` is how many the network was trained on in it."""
        seconds = time.time() - self.start_seconds
        if seconds <= self.limit_seconds:
            append_line(self.path, seconds, trial, epoch, images, val_accuracy)


def append_line(path: Path, seconds: float, trial: int | str, epoch: int, images: int, val_accuracy: float) -> None:
    """Append one line to a log."""
    row = {
        "time": round(seconds, 3),
        "trial": trial,
        "epoch": epoch,
        "images": images,
        "val_accuracy": round(val_accuracy, 6),
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def open_log(options: Options) -> Log:
    """Return the log of this contestant, whose time began with this process."""
    return Log(options.log, START_SECONDS, options.seconds)


def end_in_time(log: Log) -> None:
    """End this process when its time is over, whatever it does then."""

    def wait() -> None:
        time.sleep(max(log.seconds_left(), 0.0))
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def read_images(data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (uint8, NHWC) and labels of `train`, `val` or `test`."""
    return np.load(data / f"{part}_images.npy"), np.load(data / f"{part}_labels.npy")


def read_space() -> dict[str, Any]:
    """Return the knobs that vary: a list of options, or a mapping of low, high and log."""
    content = yaml.safe_load(SPACE_FILE.read_text(encoding="utf-8"))
    return {name: domain for name, domain in content.items() if isinstance(domain, list | dict)}


def fixed(name: str) -> Any:
    """Return the value of a knob that does not vary."""
    return yaml.safe_load(SPACE_FILE.read_text(encoding="utf-8"))[name]


def read_first(options: Options) -> list[Config]:
    """Return the configurations that everyone tries first, reduced to the knobs that vary."""
    space = read_space()
    configs = json.loads(options.first.read_text(encoding="utf-8"))
    return [{name: config[name] for name in space} for config in configs]

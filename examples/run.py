"""Run a worked example the whole way: search, analyse, predict. `make example NAME=characters DATA=FILE` does.

Every step is a command that can be typed in the folder above this one; each is printed before it runs. An example is a
folder with the options of its searches: `quick.yaml` for two cores and ten minutes, `full.yaml` for a GPU, and before
either of them `pretrain-quick.yaml` and `pretrain-full.yaml` where a model is trained first whose weights the search
then starts from. A second run goes on where the first one was interrupted.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from foundation import RequestError, count, read_yaml
from trainables.builtin import BUILTIN
from trainables.cache import prepare
from trainables.formats import IMAGE_SUFFIXES
from trainables.images import open_source

HERE = Path(__file__).resolve().parent
NEW_IMAGES = 6
DATA_OPTIONS = ("image_size", "resize", "val_fraction", "test_fraction", "duplicates")


@dataclass(frozen=True)
class Plan:
    """What is not in an example's files: how many images of each folder of the data to take, and how to analyse."""

    images: int | None = None
    finalists: int = 3
    seeds: int = 5
    ablate: tuple[str, ...] = ()


FULL, QUICK = Plan(), Plan(finalists=1, seeds=3)
PLANS = {
    "digits/quick": Plan(finalists=1, seeds=2),
    "characters/quick": Plan(images=100, finalists=1, seeds=3),
    "characters/full": Plan(ablate=("optimizer", "activation", "schedule", "accumulation_steps", "dropout")),
    "cifar10/quick": Plan(images=250, finalists=1, seeds=3, ablate=("optimizer",)),
    "cifar10/full": Plan(ablate=("optimizer",)),
    "twenty-classes/quick": Plan(images=130, finalists=1, seeds=3),
    "transfer/pretrain-quick": Plan(images=150, finalists=1, seeds=1),
    "transfer/pretrain-full": Plan(finalists=1, seeds=1),
    "transfer/quick": Plan(images=60, finalists=1, seeds=2),
}


def names() -> list[str]:
    """Return the names of the examples: every folder beside this file that has a quick form."""
    return sorted(path.parent.name for path in HERE.glob("*/quick.yaml"))


def parts(name: str, form: str) -> list[str]:
    """Return the searches of an example in their order, named as in PLANS: each has a file of that name and `.yaml`."""
    before = f"{name}/pretrain-{form}"
    return [before] * (HERE / f"{before}.yaml").exists() + [f"{name}/{form}"]


def few(data: str, per_class: int, target: Path) -> None:
    """Write a zip with at most `per_class` images of each folder of `data`, evenly spaced in the order of names."""
    source = open_source(data)
    if not hasattr(source, "tree"):
        raise RequestError(
            f"--data {data}: the quick form takes a part of a folder, zip or tar; --full takes a CSV too"
        )
    folders: dict[PurePosixPath, list[str]] = defaultdict(list)
    for file in sorted(source.tree().files):
        if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES:
            folders[PurePosixPath(file).parent].append(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for files in folders.values():
            step = max(len(files) / per_class, 1)
            for number in range(min(len(files), per_class)):
                path = files[int(number * step)]
                archive.writestr(zipfile.ZipInfo(path), source.read(path))


def write_aside(data: str, options: dict[str, Any], folder: Path) -> None:
    """Write a few images of the test split, which no search or training sees, as files named by their class."""
    cache = prepare(data, **{name: options[name] for name in DATA_OPTIONS if name in options})
    held_out = json.loads((cache.folder / "test_paths.json").read_text(encoding="utf-8"))
    source = open_source(data)
    folder.mkdir(parents=True, exist_ok=True)
    for path in held_out[:: max(len(held_out) // NEW_IMAGES, 1)][:NEW_IMAGES]:
        (folder / path.replace("/", "-")).write_bytes(source.read(path))


def convscout(*arguments: str | Path) -> None:
    """Print a command and run it in the project's folder; a failure ends the example with the command's exit code."""
    words = [_shortest(argument) for argument in arguments]
    print(f"\n$ convscout {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, str(HERE.parent / "convscout.py"), *words], cwd=HERE.parent).returncode
    if code:
        sys.exit(code)


def _shortest(argument: str | Path) -> str:
    """Return a path in the project's folder as it is typed there, anything else as it is."""
    if isinstance(argument, Path) and argument.is_relative_to(HERE.parent):
        argument = argument.relative_to(HERE.parent)
    return str(argument)


def run_part(part: str, data: str, storage: Path, weights: Path | None) -> Path:
    """Search, analyse and predict as one part of an example asks; return the experiment's folder."""
    config = HERE / f"{part}.yaml"
    options = read_yaml(config, "--config")
    name = str(options["name"])
    plan = PLANS.get(part, QUICK if part.endswith("quick") else FULL)
    if plan.images:
        smaller = storage / "few-images" / f"{name}.zip"
        few(data, plan.images, smaller)
        data = str(smaller)
    run, new_images = storage / name, storage / "new-images" / name
    write_aside(data, options, new_images)
    where = ("--config", config, "--storage", storage)
    convscout("search", data, *where, *(("--weights", weights) if weights else ()))
    ablate = (word for knob in plan.ablate for word in ("--ablate", knob))
    convscout("analyze", run, "--finalists", str(plan.finalists), "--seeds", str(plan.seeds), *ablate)
    convscout("predict", run, new_images, "--html", run / "predictions.html")
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one example; exit with the code of the command that failed, or with 2 where the request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=names(), help="the example: a folder here")
    parser.add_argument(
        "--data", nargs="+", required=True, help="your images; transfer takes two: to pretrain on, and its own"
    )
    parser.add_argument("--full", action="store_true", help="the form for a GPU, instead of two cores and ten minutes")
    parser.add_argument("--storage", default="runs", help="the folder that holds the experiments (default runs)")
    asked = parser.parse_args(arguments)
    form = "full" if asked.full else "quick"
    wanted = parts(asked.name, form)
    if not (HERE / f"{wanted[-1]}.yaml").exists():
        parser.error(f"{asked.name} has no {form} form: there is no {HERE / wanted[-1]}.yaml")
    if len(asked.data) != len(wanted):
        parser.error(
            f"{asked.name} trains {count(len(wanted), 'time')}: --data found {asked.data}, one for each is needed"
        )
    began, weights = time.monotonic(), None
    for part, data in zip(wanted, asked.data, strict=True):
        try:
            path = data if data in BUILTIN else str(Path(data).resolve())
            run = run_part(part, path, Path(asked.storage).resolve(), weights)
        except RequestError as error:
            parser.error("; ".join(error.problems))
        weights = run / "model" / "weights.safetensors"
    print(f"\n{asked.name} took {time.monotonic() - began:.0f} s. The report: {run / 'report.html'}")


if __name__ == "__main__":
    main()

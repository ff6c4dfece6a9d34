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

# The quick forms take so many images of each class, and of a split that is given, so many of each class in it.
QUICK_IMAGES = {"characters": 100, "cifar10": 250, "twenty-classes": 100, "transfer": 80, "transfer pretrain": 200}
SEEDS = {"quick": 3, "full": 5}
QUICK_SEEDS = {"transfer": 2, "transfer pretrain": 1}


def names() -> list[str]:
    """Return the names of the examples: every folder beside this file that has a quick form."""
    return sorted(path.parent.name for path in HERE.glob("*/quick.yaml"))


def parts(name: str, form: str) -> list[tuple[str, Path]]:
    """Return the searches of an example in their order: what each is called in the tables above, and its file."""
    before, own = HERE / name / f"pretrain-{form}.yaml", HERE / name / f"{form}.yaml"
    return ([(f"{name} pretrain", before)] if before.exists() else []) + [(name, own)]


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
    words = [str(argument) for argument in arguments]
    print(f"\n$ convscout {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, str(HERE.parent / "convscout.py"), *words], cwd=HERE.parent).returncode
    if code:
        sys.exit(code)


def run_part(part: str, config: Path, data: str, form: str, storage: Path, weights: Path | None) -> Path:
    """Search, analyse and predict with the options of one file; return the experiment's folder."""
    options = read_yaml(config, "--config")
    if form == "quick" and part in QUICK_IMAGES:
        smaller = storage / "few-images" / f"{options['name']}.zip"
        few(data, QUICK_IMAGES[part], smaller)
        data = str(smaller)
    run = storage / options["name"]
    write_aside(data, options, storage / "new-images" / options["name"])
    where = ("--config", config.relative_to(HERE.parent), "--storage", storage)
    convscout("search", data, *where, *(("--weights", weights) if weights else ()))
    seeds = QUICK_SEEDS.get(part, SEEDS[form]) if form == "quick" else SEEDS[form]
    finalists = 1 if form == "quick" else 3
    convscout("analyze", run, "--finalists", str(finalists), "--seeds", str(seeds))
    convscout("predict", run, storage / "new-images" / options["name"])
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
    if not wanted[-1][1].exists():
        parser.error(f"{asked.name} has no {form} form: there is no {wanted[-1][1]}")
    if len(asked.data) != len(wanted):
        parser.error(
            f"{asked.name} trains {count(len(wanted), 'time')}: --data found {asked.data}, one for each is needed"
        )
    began, weights = time.monotonic(), None
    for (part, config), data in zip(wanted, asked.data, strict=True):
        try:
            run = run_part(
                part,
                config,
                data if data in BUILTIN else str(Path(data).resolve()),
                form,
                Path(asked.storage).resolve(),
                weights,
            )
        except RequestError as error:
            parser.error("; ".join(error.problems))
        weights = run / "model" / "weights.safetensors"
    print(f"\n{asked.name} took {time.monotonic() - began:.0f} s. The report: {run / 'report.html'}")


if __name__ == "__main__":
    main()

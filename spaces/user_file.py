"""A user's own architecture: one Python file with SPACE, BASELINE and `build`, checked before anything runs."""

import inspect
import runpy
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

from foundation import Problems, RequestError, unknown_word
from spaces.knobs import Knob
from spaces.space import Space, assembled
from spaces.training import TRAINING


def load_file(path: Path, taken: Collection[str]) -> Space:
    """Return the space of the architecture in a file, which is run; its name is the file's, without .py.

    RequestError if the file is missing, fails or exits, if its name is among `taken`, if `build` does not take
    (image_shape, classes), or if SPACE, BASELINE and its keyword-only arguments do not fit one another.
    """
    module = _run(path)
    problems = Problems()
    if path.stem in taken:
        problems.add(f"{path}: {path.stem} is a built-in architecture: give the file another name")
    space, baseline, build = (module.get(name) for name in ("SPACE", "BASELINE", "build"))
    if not isinstance(space, dict) or not all(isinstance(knob, Knob) for knob in space.values()):
        problems.add(f"{path}: SPACE is needed, a mapping of names to spaces.Knob")
    if not isinstance(baseline, dict):
        problems.add(f"{path}: BASELINE is needed, a mapping of names to values")
    if not callable(build):
        problems.add(f"{path}: build(image_shape, classes, *, knobs) is needed, a function that returns the model")
    problems.raise_if_any()
    for mistake in _mismatches(module["SPACE"], module["build"]):
        problems.add(f"{path}: {mistake}")
    problems.raise_if_any()
    try:
        return assembled(path.stem, module["SPACE"], module["BASELINE"])
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from error


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(f"the architecture file {path} is not there")
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f" in line {lines[-1]}" if lines else ""
        raise RequestError(f"the architecture file {path} failed{place}: {type(error).__name__}: {error}") from error


def _mismatches(space: dict[str, Knob], build: Any) -> list[str]:
    signature = inspect.signature(build)
    consumed = [each.name for each in signature.parameters.values() if each.kind is inspect.Parameter.KEYWORD_ONLY]
    found = [f"build takes {name}, which is not in SPACE" for name in consumed if name not in space]
    try:
        signature.bind("image_shape", "classes", **dict.fromkeys(consumed))
    except TypeError:
        found.append(f"build{signature} must take two positional arguments, image_shape and classes")
    for name in space:
        if name in TRAINING:
            found.append(f"{name} is a training knob of every architecture: SPACE needs another name for it")
        elif name not in consumed:
            found.append(unknown_word("keyword-only argument of build", name, consumed))
    return found

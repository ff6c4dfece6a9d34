"""What may vary: a space of hyperparameters for each architecture. Nothing here knows Ray, torch or numpy.

An architecture is a module in this folder with SPACE (its own knobs) and BASELINE (their usual values, and those
training values that differ from the usual), or one file of the user's with SPACE, BASELINE and `build`.
"""

import pkgutil
from importlib import import_module
from pathlib import Path

from foundation import RequestError, unknown_word
from spaces.domains import Choice, Integer, LogUniform, Uniform, Unless, When
from spaces.knobs import Among, Anything, Between, Knob, WordOrFile
from spaces.overrides import narrowed, read_space_file
from spaces.space import Space, assembled, describe
from spaces.training import TRAINING, TRAINING_BASELINE
from spaces.user_file import load_file

__all__ = [
    "TRAINING",
    "TRAINING_BASELINE",
    "Among",
    "Anything",
    "Between",
    "Choice",
    "Integer",
    "Knob",
    "LogUniform",
    "Space",
    "Uniform",
    "Unless",
    "When",
    "WordOrFile",
    "describe",
    "load",
    "names",
    "narrowed",
    "read_space_file",
]


def names() -> tuple[str, ...]:
    """Return the names of the built-in architectures, sorted: every module of this folder that defines a SPACE."""
    modules = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return tuple(sorted(name for name in modules if hasattr(import_module(f"{__name__}.{name}"), "SPACE")))


def load(name_or_path: str) -> Space:
    """Return the space of a built-in architecture, or of a user's own file (its name is the file's, without .py).

    RequestError for an unknown name, and with all mistakes in a user's file.
    """
    if name_or_path.endswith(".py"):
        return load_file(Path(name_or_path), names())
    if name_or_path not in names():
        sentence = unknown_word("architecture", name_or_path, names())
        raise RequestError(f"{sentence}, or the path of a .py file of your own")
    module = import_module(f"{__name__}.{name_or_path}")
    return assembled(name_or_path, module.SPACE, module.BASELINE)

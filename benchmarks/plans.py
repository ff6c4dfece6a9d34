"""Who plans a search in the benchmarks: the real planner, on images of which only the shape is looked at."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from measure import HOUSE as HOUSE  # the rooms are found from here on

import spaces
from search.request import Request
from search.run import Planner
from search.spec import checked_spec
from spaces.overrides import narrowed


def planner(trials: int, epochs: int, method: str, knobs: Mapping[str, Any] | None = None) -> Planner:
    """Return who plans a search over the plain CNN at 32 x 32: draws, looks whether a network can be built, decides.

    `knobs` are changed as by a --space file.
    """
    space = narrowed(spaces.load("cnn"), knobs or {}, "the benchmark")
    asked = {"data": "made", "name": "benchmark", "arch": ["cnn"], "trials": trials, "epochs": epochs, "method": method}
    cache: Any = SimpleNamespace(image_shape=(3, 32, 32), classes=tuple("abcdefghij"), counts={"train": {"a": 5000}})
    return Planner(Request(checked_spec(asked), cache, {"cnn": space}, {}))

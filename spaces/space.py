"""The space of one architecture: its hyperparameters in a fixed order, and a baseline inside it."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from foundation import unknown_word
from spaces.domains import When, active, contains, draw, plain, text
from spaces.knobs import Knob
from spaces.training import TRAINING, TRAINING_BASELINE


@dataclass(frozen=True)
class Space:
    """What may vary for one architecture; a knob comes after the one it depends on.

    The baseline is a configuration like any other: it holds the active knobs only. ValueError if the order or the
    baseline is wrong.
    """

    architecture: str
    knobs: dict[str, Knob]
    baseline: dict[str, Any]

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for name, knob in self.knobs.items():
            if isinstance(knob.domain, When) and knob.domain.knob not in earlier:
                raise ValueError(f"{name} depends on {knob.domain.knob}, which is not a knob before it")
            earlier.add(name)
        wrong = self.mistakes(self.baseline)
        if wrong:
            raise ValueError(f"the baseline of {self.architecture} is outside its space: " + "; ".join(wrong))

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """Return a random configuration: the active knobs, in the order of the space."""
        config: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            if active(knob.domain, config):
                config[name] = draw(knob.domain, rng)
        return config

    def mistakes(self, config: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each knob that is unknown, missing, out of range, or set while inactive."""
        found = [unknown_word("knob", name, self.knobs) for name in config if name not in self.knobs]
        for name, knob in self.knobs.items():
            if not active(knob.domain, config):
                if name in config:
                    found.append(f"{name} = {plain(config[name])} has no effect here: allowed are {text(knob.domain)}")
            elif name not in config:
                found.append(f"{name} has no value: allowed are {text(knob.domain)}")
            elif not contains(knob.domain, config[name]):
                found.append(f"{name} = {plain(config[name])} is out of range: allowed are {text(knob.domain)}")
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return the space as JSON rows, one per knob; the baseline is absent from a knob inactive in it."""
        rows = []
        for name, knob in self.knobs.items():
            row = {"architecture": self.architecture, "knob": name, **knob.to_json()}
            if name in self.baseline:
                row["baseline"] = self.baseline[name]
            rows.append(row)
        return rows

    @staticmethod
    def from_rows(rows: Iterable[Mapping[str, Any]]) -> "Space":
        """Return the space whose rows these are; ValueError unless they are of exactly one architecture."""
        rows = list(rows)
        architectures = {row["architecture"] for row in rows}
        if len(architectures) != 1:
            raise ValueError(f"rows of one architecture are needed, not of {sorted(architectures)}")
        return Space(
            architectures.pop(),
            {row["knob"]: Knob.from_json(row) for row in rows},
            {row["knob"]: row["baseline"] for row in rows if "baseline" in row},
        )


def assembled(architecture: str, own: Mapping[str, Knob], values: Mapping[str, Any]) -> Space:
    """Return the space of the training knobs and an architecture's own, with the usual values changed by `values`.

    ValueError if `values` has an unknown knob or one out of range, or lacks one of the architecture's own.
    """
    knobs = {**TRAINING, **own}
    baseline: dict[str, Any] = {name: value for name, value in values.items() if name not in knobs}
    usual = {**TRAINING_BASELINE, **values}
    for name, knob in knobs.items():
        if active(knob.domain, baseline) and name in usual:
            baseline[name] = usual[name]
    return Space(architecture, knobs, baseline)


def describe(space: Space) -> list[dict[str, str]]:
    """Return a table of the space for a person: knob, range, unit, baseline and why, one row per knob."""
    return [
        {
            "knob": name,
            "range": text(knob.domain),
            "unit": knob.unit,
            "baseline": plain(space.baseline[name]) if name in space.baseline else "",
            "why": knob.why,
        }
        for name, knob in space.knobs.items()
    ]

"""What is known of one hyperparameter: where it may come from, its unit, why, and how far a user may widen it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundation import unknown_word
from spaces.domains import Domain, from_json, is_number, plain, same, to_json


@dataclass(frozen=True)
class Between:
    """The numbers from low to high, both included; only whole ones if `whole`; or one of `words`."""

    low: float
    high: float
    whole: bool = False
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "whole numbers" if self.whole else "numbers"
        return " or ".join([f"{kind} from {self.low:g} to {self.high:g}", *map(repr, self.words)])

    def read(self, value: Any) -> Any:
        """Return a value as a number or word; ValueError if it is not allowed. "1e-4" is text in YAML 1.1."""
        if value in self.words:
            return value
        number = _number(value)
        if number is None or not self.low <= number <= self.high or (self.whole and number != int(number)):
            raise ValueError(f"{plain(value)} is not allowed: allowed are {self}")
        return int(number) if self.whole else number


@dataclass(frozen=True)
class Among:
    """A few values and no others."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(map(plain, self.values))

    def read(self, value: Any) -> Any:
        """Return the allowed value that was meant, also if it was written as text; ValueError if there is none."""
        for option in self.values:
            if same(value, option) or (isinstance(value, str) and value == plain(option)):
                return option
        raise ValueError(unknown_word("value", plain(value), map(plain, self.values)))


@dataclass(frozen=True)
class WordOrFile:
    """One of a few words, or the path of a file that is there and ends in one of `suffixes`."""

    words: tuple[str, ...]
    suffixes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.words)} or a file ({', '.join(self.suffixes)})"

    def read(self, value: Any) -> Any:
        """Return the word, or the file's absolute path, which holds in every process; ValueError otherwise."""
        if value in self.words:
            return value
        path = Path(str(value)).expanduser()
        if path.suffix not in self.suffixes:
            raise ValueError(f"{unknown_word('value', str(value), self.words)} or a file ({', '.join(self.suffixes)})")
        if not path.is_file():
            raise ValueError(f"there is no file {value}: allowed are {self}")
        return str(path.resolve())


@dataclass(frozen=True)
class Anything:
    """No limit beyond the knob's own range: for a user's own architecture."""

    def __str__(self) -> str:
        return "anything"

    def read(self, value: Any) -> Any:
        """Return the value, as a number where it is one written as text."""
        number = _number(value)
        return value if number is None else number


Limits = Between | Among | WordOrFile | Anything

_KINDS = {"between": Between, "among": Among, "word_or_file": WordOrFile, "anything": Anything}


@dataclass(frozen=True)
class Knob:
    """One hyperparameter: its range, the unit, why these bounds, and what a --space file may widen it to."""

    domain: Domain
    unit: str = ""
    why: str = ""
    allowed: Limits = Anything()

    def to_json(self) -> dict[str, Any]:
        """Return the knob as JSON values."""
        kind = next(name for name, cls in _KINDS.items() if type(self.allowed) is cls)
        limits = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.allowed).items()}
        return {
            "domain": to_json(self.domain),
            "unit": self.unit,
            "why": self.why,
            "allowed": {"kind": kind, **limits},
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Knob":
        """Return the knob that `to_json` wrote; other keys of the row are left alone."""
        limits = {key: tuple(v) if isinstance(v, list) else v for key, v in row["allowed"].items() if key != "kind"}
        allowed = _KINDS[row["allowed"]["kind"]](**limits)
        return Knob(from_json(row["domain"]), row["unit"], row["why"], allowed)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        for kind in (int, float):
            try:
                value = kind(value)
                break
            except ValueError:
                continue
    return value if is_number(value) else None

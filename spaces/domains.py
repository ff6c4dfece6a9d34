"""The sets a hyperparameter may come from: plain dataclasses that know neither Ray nor any search method."""

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


def same(one: object, other: object) -> bool:
    """Tell whether two values are equal, where True is not 1 and False is not 0."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number; True and False are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: object) -> str:
    """Return a value as it would be written in a --space file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Choice:
    """One of a few values, in the order in which a grid visits them; ValueError if there are none or a double."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a choice needs at least one option")
        for index, option in enumerate(self.options):
            if any(same(option, earlier) for earlier in self.options[:index]):
                raise ValueError(f"the option {plain(option)} is there twice")


@dataclass(frozen=True)
class Uniform:
    """Every real number from low to high, both included, equally likely; ValueError unless low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """Every real number from low to high, its logarithm equally likely; ValueError unless 0 < low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"a log range needs low above 0: low is {self.low:g}, high is {self.high:g}")


@dataclass(frozen=True)
class Integer:
    """The whole numbers low, low + step, ... up to high; with `log`, small ones are as likely as large ones.

    ValueError unless low < high, at least two values fit, and low is 1 or more where `log` is asked for.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)
        if self.step < 1 or self.low + self.step > self.high:
            raise ValueError(
                f"a step of {self.step} does not fit between low {self.low} and high {self.high}: "
                f"1 .. {self.high - self.low} do"
            )
        if self.log and self.low < 1:
            raise ValueError(f"a log range needs low above 0: low is {self.low}, high is {self.high}")


Range = Choice | Uniform | LogUniform | Integer


@dataclass(frozen=True)
class When:
    """A range that is active only where the configuration's `knob` is active and among `values`."""

    domain: Range
    knob: str
    values: tuple[Any, ...]

    def admits(self, value: object) -> bool:
        """Tell whether this value of the other knob makes the range active."""
        return any(same(value, option) for option in self.values)


@dataclass(frozen=True)
class Unless(When):
    """A range that is active only where the configuration's `knob` is active and not among `values`."""

    def admits(self, value: object) -> bool:
        """Tell whether this value of the other knob makes the range active."""
        return not super().admits(value)


Domain = Range | When

_KINDS = {
    "choice": Choice,
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "integer": Integer,
    "when": When,
    "unless": Unless,
}


def _check_ends(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low {low:g} is not below high {high:g}")


def bare(domain: Domain) -> Range:
    """Return the range itself, without the condition it may have."""
    return domain.domain if isinstance(domain, When) else domain


def active(domain: Domain, config: Mapping[str, Any]) -> bool:
    """Tell whether a domain has a value at all in a configuration, which must hold the knob it depends on."""
    return not isinstance(domain, When) or (domain.knob in config and domain.admits(config[domain.knob]))


def draw(domain: Domain, rng: random.Random) -> Any:
    """Return a random value of the domain; a condition is not looked at."""
    match bare(domain):
        case Choice(options):
            return rng.choice(options)
        case Uniform(low, high):
            return rng.uniform(low, high)
        case LogUniform(low, high):
            return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
        case Integer(low, high, step, True):
            # Rounding down from the end of the last step gives both ends their full share.
            value = math.exp(rng.uniform(math.log(low), math.log(high + step)))
            steps = min(int((value - low) / step), (high - low) // step)
            return low + step * max(steps, 0)
        case Integer(low, high, step):
            return low + step * rng.randint(0, (high - low) // step)


def contains(domain: Domain, value: object) -> bool:
    """Tell whether a value lies in the domain; a condition is not looked at."""
    match bare(domain):
        case Choice(options):
            return any(same(value, option) for option in options)
        case Integer(low, high, step):
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and low <= value <= high and (value - low) % step == 0  # type: ignore[operator]
        case Uniform(low, high) | LogUniform(low, high):
            return is_number(value) and low <= value <= high  # type: ignore[operator]


def nearest(domain: Domain, value: Any) -> Any:
    """Return the value of the domain closest to the given one; the first one where distance means nothing."""
    if contains(domain, value):
        return value
    match bare(domain):
        case Choice(options):
            numbers = [option for option in options if is_number(option)]
            if not (is_number(value) and numbers):
                return options[0]
            return min(numbers, key=lambda option: abs(option - value))
        case Integer(low, high, step):
            if not is_number(value):
                return low
            steps = min(max(round((value - low) / step), 0), (high - low) // step)
            return low + step * steps
        case Uniform(low, high) | LogUniform(low, high):
            return min(max(value, low), high) if is_number(value) else low


def grid(domain: Domain, points: int = 3) -> list[Any]:
    """Return the values for grid search: all options of a choice, `points` of a range with both its ends.

    They are spaced evenly, in the logarithm where the range is logarithmic. Fewer come back where a range of
    whole numbers has fewer values. ValueError for fewer than 2 points.
    """
    if points < 2:
        raise ValueError(f"a grid needs 2 points or more to hold both ends of a range, not {points}")
    fractions = [index / (points - 1) for index in range(points)]
    match bare(domain):
        case Choice(options):
            return list(options)
        case Integer(low, high, step, log):
            last = high - (high - low) % step
            values = [_between(low, last, fraction, log) for fraction in fractions]
            return sorted({nearest(domain, value) for value in values})
        case Uniform(low, high):
            return [_between(low, high, fraction, log=False) for fraction in fractions]
        case LogUniform(low, high):
            return [_between(low, high, fraction, log=True) for fraction in fractions]


def _between(low: float, high: float, fraction: float, log: bool) -> float:
    if fraction in (0.0, 1.0):
        return high if fraction else low
    value = low * (high / low) ** fraction if log else low + (high - low) * fraction
    return float(f"{value:.12g}")


def text(domain: Domain) -> str:
    """Return the domain for a person to read, such as "1e-05 .. 0.1 (log)"."""
    match domain:
        case Unless(inner, knob, values):
            return f"{text(inner)}, unless {knob} is {' or '.join(map(plain, values))}"
        case When(inner, knob, values):
            return f"{text(inner)}, if {knob} is {' or '.join(map(plain, values))}"
        case Choice(options):
            return ", ".join(map(plain, options))
        case Uniform(low, high):
            return f"{low:g} .. {high:g}"
        case LogUniform(low, high):
            return f"{low:g} .. {high:g} (log)"
        case Integer(low, high, step, log):
            notes = [f"step {step}"] * (step > 1) + ["log"] * log
            return f"{low} .. {high}" + (f" ({', '.join(notes)})" if notes else "")


def to_json(domain: Domain) -> dict[str, Any]:
    """Return the domain as JSON values, with its kind."""
    kind = next(name for name, cls in _KINDS.items() if type(domain) is cls)
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(domain).items()}
    if isinstance(domain, When):
        fields["domain"] = to_json(domain.domain)
    return {"kind": kind, **fields}


def from_json(row: Mapping[str, Any]) -> Domain:
    """Return the domain that `to_json` wrote."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key != "kind"}
    kind = _KINDS[row["kind"]]
    if issubclass(kind, When):
        fields["domain"] = from_json(row["domain"])
    domain: Domain = kind(**fields)
    return domain

"""A user's --space file: narrows, widens or fixes any hyperparameter, checked key by key."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation import Problems, RequestError, read_yaml, unknown_word
from spaces.domains import (
    Choice,
    Integer,
    LogUniform,
    Range,
    Uniform,
    When,
    active,
    bare,
    grid,
    is_number,
    nearest,
    plain,
)
from spaces.knobs import Among, Between, Knob, Limits, WordOrFile
from spaces.space import Space
from spaces.training import TRAINING_BASELINE

_RANGE_KEYS = ("low", "high", "log", "step")


def read_space_file(path: Path, spaces: Sequence[Space]) -> tuple[Space, ...]:
    """Return the spaces as the YAML file changes them.

    A top-level key is a knob, which changes every one of the spaces that has it, or an architecture, whose own
    mapping of knobs comes before the general one; that of a built-in architecture which is not among the spaces is
    left unread, so that one file serves every search. A scalar fixes a knob, a list is a choice, and a mapping of
    low, high, log and step is a range. RequestError with all mistakes in the file.
    """
    from spaces import names  # not above: that module imports this one

    content = {plain(key): value for key, value in read_yaml(path, "--space").items()}
    problems = Problems()
    architectures = {*names(), *(space.architecture for space in spaces)}
    known = architectures.union(*(space.knobs for space in spaces))
    for key, value in content.items():
        if key not in known:
            problems.add(f"{path.name}: {_unknown('knob or architecture', key, known)}")
        elif key in architectures and not isinstance(value, dict):
            problems.add(f"{path.name}: {key}: found {plain(value)}: an architecture needs a mapping of its knobs")
    changed = []
    for space in spaces:
        own = content.get(space.architecture)
        own = own if isinstance(own, dict) else {}
        general = {key: value for key, value in content.items() if key in space.knobs and key not in own}
        for overrides, where in ((general, path.name), (own, f"{path.name}: {space.architecture}")):
            try:
                space = narrowed(space, overrides, where)
            except RequestError as error:
                for problem in error.problems:
                    if problem not in problems.found:
                        problems.add(problem)
        changed.append(space)
    problems.raise_if_any()
    return tuple(changed)


def narrowed(space: Space, overrides: Mapping[str, Any], where: str) -> Space:
    """Return the space with some knobs changed, and the baseline moved to the nearest value where it fell outside.

    The values are those of a --space file; `where` says where they were read. A knob stays conditional as it was.
    RequestError with all mistakes.
    """
    problems = Problems()
    knobs = dict(space.knobs)
    for name, value in overrides.items():
        if name not in knobs:
            problems.add(f"{where}: {_unknown('knob', str(name), knobs)}")
            continue
        try:
            knobs[name] = _changed(knobs[name], value)
        except ValueError as error:
            problems.add(f"{where}: {name}: {error}")
    problems.raise_if_any()
    return Space(space.architecture, knobs, _moved(space.baseline, knobs))


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    from spaces import load, names

    owners = [name for name in names() if word in load(name).knobs]
    if owners:
        return f"{word} is a knob of {', '.join(owners)} only: allowed here are {', '.join(sorted(known))}"
    return unknown_word(kind, word, known)


def _changed(knob: Knob, value: Any) -> Knob:
    domain = _range(value, knob) if isinstance(value, dict) else _choice(value, knob.allowed)
    if isinstance(knob.domain, When):
        return replace(knob, domain=replace(knob.domain, domain=domain))
    return replace(knob, domain=domain)


def _choice(value: Any, limits: Limits) -> Choice:
    if value is None or value == []:
        raise ValueError(f"there is no value: allowed are {limits}")
    return Choice(tuple(limits.read(option) for option in (value if isinstance(value, list) else [value])))


def _range(value: Mapping[str, Any], knob: Knob) -> Range:
    limits, present = knob.allowed, bare(knob.domain)
    if isinstance(limits, Among | WordOrFile):
        raise ValueError(f"a range is for numbers: allowed are {limits}")
    for key in value:
        if key not in _RANGE_KEYS:
            raise ValueError(unknown_word("key of a range", str(key), _RANGE_KEYS))
    missing = [key for key in ("low", "high") if value.get(key) is None]
    if missing:
        raise ValueError(f"a range needs low and high: {' and '.join(missing)} is missing")
    low, high = limits.read(value["low"]), limits.read(value["high"])
    if not (is_number(low) and is_number(high)):
        raise ValueError(f"a range needs two numbers, not {plain(low)} and {plain(high)}")
    if low == high:
        return Choice((low,))
    # A range that says nothing of its scale keeps the one that the knob has.
    log = value.get("log", isinstance(present, LogUniform) or (isinstance(present, Integer) and present.log))
    if not isinstance(log, bool):
        raise ValueError(f"log is {plain(log)}: allowed are true, false")
    if limits.whole if isinstance(limits, Between) else isinstance(present, Integer):
        step = Between(1, max(high - low, 1), whole=True)
        return Integer(low, high, _named("step", step, value.get("step", 1)), log)
    if "step" in value:
        raise ValueError("step is for whole numbers: this knob takes any number of its range")
    return LogUniform(low, high) if log else Uniform(low, high)


def _named(name: str, limits: Between, value: Any) -> Any:
    try:
        return limits.read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _moved(baseline: Mapping[str, Any], knobs: Mapping[str, Knob]) -> dict[str, Any]:
    """Return the baseline with each value in its range; a knob that became active starts at its usual value."""
    moved: dict[str, Any] = {}
    for name, knob in knobs.items():
        if active(knob.domain, moved):
            points = grid(knob.domain)
            usual = baseline.get(name, TRAINING_BASELINE.get(name, points[len(points) // 2]))
            moved[name] = nearest(knob.domain, usual)
    return moved

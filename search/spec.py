"""What was asked: one frozen, checked, JSON-able request for a search."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from foundation import RequestError, read_yaml, unknown_word
from search.methods import METHODS
from trainables.builtin import BUILTIN

Metric = Literal["val_accuracy", "val_loss", "val_balanced_accuracy", "val_macro_f1"]
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")

LEAST_SHARE = 0.01  # of a GPU: a process of its own takes more of one

RESERVED = frozenset({*BUILTIN, "none", "published"})  # these words never mean a file of that name

# What may differ when an experiment goes on: where and for how long it runs, not what it is.
OPERATIONAL = frozenset(
    {"storage", "address", "time_budget", "max_concurrent", "trials", "name", "checkpoint_every", "epoch_timeout"}
)


def known_method(word: str) -> str:
    """Return the name of a method as it is; ValueError if there is none of that name."""
    if word not in METHODS:
        raise ValueError(unknown_word("method", word, METHODS))
    return word


def seconds_of(text: str | float | None) -> float | None:
    """Return the seconds of a duration such as `90s`, `10m`, `1h30m` or a plain number of seconds."""
    if text is None or (isinstance(text, int | float) and not isinstance(text, bool)):
        return text
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no duration: write it like 90s, 10m or 1h30m")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = DURATION.fullmatch(text.strip().lower())
    if not match or not any(match.groups()):
        raise ValueError(f"{text!r} is no duration: write it like 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def gpus_of(text: str | float | None) -> str | float | None:
    """Return `--gpus-per-trial`: a share of a GPU or a whole number of them, `auto`, or None if it was not given."""
    if text is None or text == "auto":
        return text
    allowed = f"0, a share such as 0.5 (at least {LEAST_SHARE:g}), a whole number, or auto is needed"
    try:
        gpus = math.nan if isinstance(text, bool) else float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is no number of GPUs: {allowed}") from None
    if not (0 <= gpus < math.inf) or 0 < gpus < LEAST_SHARE:
        raise ValueError(f"{text!r} is no number of GPUs: {allowed}")
    return gpus


class SearchSpec(BaseModel):
    """A request for a search; every field is an option of `convscout search` and a key of its `--config` file.

    `trials` counts all trials together, dealt out evenly over the architectures; `epochs` is the most that one
    trial runs; up to the first rung they are trained on a share of the images, `grace_images`; `patience` ends a trial
    whose validation loss has not fallen for so many epochs; `time_budget` is in
    seconds, over all resumes. A trial's state is kept every `checkpoint_every` seconds, and at least after each epoch
    that takes longer; one whose epoch takes longer than `epoch_timeout` seconds has hung.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_min_length=1)

    data: str
    arch: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
    ] = ()
    method: Annotated[str, AfterValidator(known_method)] = "tpe_asha"
    trials: int = Field(20, ge=1, le=1_000_000)
    epochs: int = Field(20, ge=1, le=100_000)
    grace_images: float | None = Field(None, ge=0.2, lt=1)
    patience: int | None = Field(None, ge=1)
    time_budget: Annotated[float | None, BeforeValidator(seconds_of)] = Field(None, gt=0)
    metric: Metric = "val_accuracy"
    seed: int = Field(0, ge=0, lt=2**31)
    name: str
    storage: str = "runs"
    space: str | None = None
    weights: str | None = None
    image_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    val_fraction: float = Field(0.15, ge=0.01, le=0.5)
    test_fraction: float = Field(0.2, ge=0.01, le=0.5)
    cpus_per_trial: int | None = Field(None, ge=1)
    gpus_per_trial: Annotated[float | Literal["auto"] | None, BeforeValidator(gpus_of)] = None
    max_concurrent: int | None = Field(None, ge=1)
    address: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    duplicates: Literal["leave_out", "keep"] = "leave_out"
    checkpoint_every: Annotated[float, BeforeValidator(seconds_of)] = Field(30.0, ge=0)
    epoch_timeout: Annotated[float | None, BeforeValidator(seconds_of)] = Field(None, gt=0)

    @model_validator(mode="after")
    def _has_a_grace_period(self) -> Self:
        if self.grace_images is None:
            return self
        if not METHODS[self.method]().stops_early:
            with_rungs = " or ".join(name for name, method in METHODS.items() if method().stops_early)
            raise ValueError(f"--grace-images: method {self.method} has no rungs, choose {with_rungs}")
        if self.epochs == 1:
            raise ValueError("--grace-images: a trial of 1 epoch has no rung, ask for 2 --epochs or more")
        return self


def make_spec(options: dict[str, Any], config_file: str | None = None) -> SearchSpec:
    """Return the checked request from command-line options over those of a YAML file.

    Options that are None were not given. Raises `RequestError` with every mistake at once.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    merged = (_read_config(config_file) if config_file else {}) | given
    if isinstance(merged.get("arch"), str):
        merged["arch"] = (merged["arch"],)
    for name in ("data", "weights", "space"):
        word = merged.get(name)
        if isinstance(word, str) and word not in RESERVED and Path(word or "-").exists():
            merged[name] = str(Path(word).resolve())  # workers and later resumes run elsewhere
    merged.setdefault("name", default_name(str(merged.get("data", ""))))
    return checked_spec(merged, config_file)


def checked_spec(fields: dict[str, Any], config_file: str | None = None) -> SearchSpec:
    """Return the request with these fields; raises `RequestError` with a sentence for every mistake."""
    try:
        return SearchSpec(**fields)
    except ValidationError as error:
        raise RequestError(*(_explained(problem, config_file) for problem in error.errors())) from None


def default_name(data: str) -> str:
    """Return the name an experiment gets from its data: the file's or folder's, without endings."""
    stem = Path(data).name.split(".")[0] if Path(data).suffix else Path(data).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "experiment"


def differences(old: dict[str, Any], new: SearchSpec) -> list[str]:
    """Return a sentence for each thing that an experiment's recorded request and a new one disagree on."""
    asked = new.model_dump(mode="json")
    return [
        f"{name}: the experiment has {old.get(name)!r}, now asked {asked[name]!r}"
        for name in asked
        if name not in OPERATIONAL and old.get(name) != asked[name]
    ]


def _read_config(path: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for key, value in read_yaml(Path(path), "--config").items():
        name = str(key).replace("-", "_")
        if name in named:
            raise RequestError(f"--config {path}: the key {key} is there twice")
        named[name] = value
    return {name: value for name, value in named.items() if value is not None}


def _explained(problem: Any, config_file: str | None) -> str:
    """Return one mistake as a sentence: where it is, what was found, what is allowed, the closest valid word."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    option = f"--{name.replace('_', '-')}"
    match problem["type"]:
        case "extra_forbidden":
            options = [field.replace("_", "-") for field in SearchSpec.model_fields]
            return f"{config_file or 'the request'}: {unknown_word('key', name.replace('_', '-'), options)}"
        case "literal_error":
            words = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
            return unknown_word(option, str(problem["input"]), words)
        case "missing":
            return f"{option.removeprefix('--')} is missing"
        case "value_error":
            return f"{option + ': ' if name else ''}{problem['ctx']['error']}"
    message = str(problem["msg"]).replace("Input should be", "it must be").replace("String should", "it should")
    where = f"{config_file}, " if config_file else ""
    return f"{where}{option} {problem['input']!r}: {message}"

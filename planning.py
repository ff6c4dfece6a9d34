"""The command that says what a search and its analysis would take; the front door lists it."""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import options
import terminal
from foundation import count, duration

if TYPE_CHECKING:
    from analysis.price import Price
    from cluster.forecast import Span
    from search.plan import Plan
    from search.spec import SearchSpec

DISPLAYED = ("quiet",)  # options of a search that say how it is shown, not what it is


def asked_as(search: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a search before its own: what is searched and what is planned stay one."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        of_search = [each for each in inspect.signature(search).parameters.values() if each.name not in DISPLAYED]
        own = [each for each in inspect.signature(command).parameters.values() if each.kind is each.KEYWORD_ONLY]
        together = [each.replace(kind=each.KEYWORD_ONLY) for each in (*of_search, *own)]
        command.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in together}
        return command

    return decorate


def plan(
    *,
    finalists: options.Finalists = 3,
    seeds: options.Seeds = 3,
    folds: options.Folds = 0,
    price_per_hour: options.PricePerHour = None,
    as_json: options.AsJson = False,
    **asked: Any,
) -> None:
    """Say what a search with these options would take, and its analysis; start neither."""
    from analysis.price import price
    from analysis.select import check_numbers
    from search.plan import plan as make_plan
    from search.spec import make_spec

    check_numbers(finalists, seeds, folds)
    config = asked.pop("config")
    spec = make_spec(asked | {"arch": tuple(asked["arch"] or ())}, config)
    with terminal.decoding() as on_decoded:
        found = make_plan(
            spec,
            on_decoded=on_decoded,
            on_request=lambda request: terminal.show_refused(request.cache.refused, terminal.errors),
            tell=terminal.tell,
        )
    analysis = price(
        {each.architecture: each.epoch_seconds for each in found.paces},
        trials=sum(found.trials.values()),
        epochs=spec.epochs,
        val_share=found.val_share,
        slots=found.slots,
        finalists=finalists,
        seeds=seeds,
        folds=folds,
        seed=spec.seed,
    )
    if as_json:
        more = {"analysis": asdict(analysis), **spent(found, analysis, price_per_hour)}
        print(json.dumps(asdict(found) | more, indent=1, allow_nan=False))
        return
    _show_architectures(found)
    for sentence in sentences(found, analysis, spec, price_per_hour):
        terminal.say(sentence)


def sentences(found: "Plan", analysis: "Price", spec: "SearchSpec", price_per_hour: float | None) -> list[str]:
    """Return what is said under the table of a plan, a line each."""
    slot, epochs, begun, trials = found.slot, found.epochs, found.begun, sum(found.trials.values())
    gpus = f" and {slot.gpus:g} GPU" if slot.gpus else ""
    said = [
        f"Search: {epochs.middle:,} epochs in all [{epochs.low:,} to {epochs.high:,}], {_time(found.seconds)}, on "
        f"{count(found.slots, 'slot')} of {count(slot.cpus, 'core')}{gpus} ({found.device})."
    ]
    if begun.low < trials:
        more = " TPE begins with cheap ones, so more may." if spec.method.startswith("tpe") else ""
        said.append(
            f"Of {count(trials, 'trial')}, {begun.middle} [{begun.low} to {begun.high}] begin within the time "
            f"budget.{more}"
        )
    if found.grows:
        said.append("That is with the hosts there are now: others may come while it runs, and it then takes less time.")
    if found.freezes:
        said.append("Where what frozen layers give is kept, computing it once a host is not in it.")
    said += [
        f"Analysis: at most {count(analysis.contenders, 'contender')}, {count(analysis.trainings, 'training')}, "
        f"{_time(analysis.seconds)}.",
        _used(found, analysis, price_per_hour),
        found.disk.sentence,
    ]
    if spec.patience:
        said.append("Patience will end trials earlier than reckoned here: how many, only their curves can say.")
    return said


def _used(found: "Plan", analysis: "Price", price_per_hour: float | None) -> str:
    """Return what both take of the machines, and what that costs: the medians."""
    both = spent(found, analysis, price_per_hour)
    said = f"Together: {both['machine_hours']:.2g} {'GPU-hours' if found.slot.gpus else 'core-hours'}"
    return f"{said}." if both["cost"] is None else f"{said}, {both['cost']:.2f} at {price_per_hour:g} an hour."


def spent(found: "Plan", analysis: "Price", price_per_hour: float | None) -> dict[str, float | None]:
    """Return the median hours of GPUs, or of cores where none is used, that both take, and what they cost."""
    hours = (found.seconds.middle + analysis.seconds.middle) / 3600
    of_machines = hours * found.slots * (found.slot.gpus or found.slot.cpus)
    return {"machine_hours": of_machines, "cost": None if price_per_hour is None else hours * price_per_hour}


def _time(span: "Span") -> str:
    return f"{duration(span.middle)} [{duration(span.low)} to {duration(span.high)}]"


def _show_architectures(found: "Plan") -> None:
    """Print a row per architecture, with the trials that are to be expected at each rung."""
    levels = sorted({level for at_rungs in found.reached.values() for level in at_rungs})
    columns = ["architecture", "trials", *(f"to epoch {level}" for level in levels)]
    columns += ["baseline's epoch", "other epochs"]
    rows = []
    for each in found.paces:
        drawn = sorted(each.epoch_seconds[1:] or each.epoch_seconds)
        low, high = (drawn[round(share * (len(drawn) - 1))] for share in (0.05, 0.95))
        name = each.architecture
        at_rungs = [f"{found.reached[name][level]:.1f}" for level in levels]
        baseline = f"{each.epoch_seconds[0]:.2g} s"
        rows.append([name, found.trials[name], *at_rungs, baseline, f"{low:.2g} to {high:.2g} s"])
    terminal.show_table(columns, rows)

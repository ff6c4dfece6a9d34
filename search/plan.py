"""What a search would take, before it is started: measured on this machine, then gone through many times on paper."""

import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.forecast import PaperRungs, Span, Stopping, timetable
from cluster.resources import Slot
from cluster.session import Tell, open_session
from search.calibration import measured
from search.disk import Disk, disk_bound
from search.halving import stopping
from search.methods import METHODS
from search.pacing import Paces, measured_paces
from search.request import OnDecoded, Request, prepare_request
from search.run import Planner, check_cluster, folder_of
from search.spec import SearchSpec

SIMULATIONS, SIMULATED_TRIALS = 300, 20_000
MACHINE_ERROR = 0.1  # of all paces of a search together, as a share: so much do two runs on a shared machine differ
AROUND_SECONDS = 5.0  # Python's start, and Ray's end


@dataclass(frozen=True)
class Plan:
    """What a search would take. `trials` and `reached` are by architecture: how many trials it gets, and at each rung's
    epoch how many are to be expected there; `begun` is the number of trials that begin within the time budget, and
    `val_share` that of the validation images over that of training images. `slots` are those of the hosts there are
    now, and `grows` says whether others may come that the search could use; `freezes`, whether layers may be frozen."""

    paces: tuple[Paces, ...]
    trials: Mapping[str, int]
    reached: Mapping[str, Mapping[int, float]]
    epochs: Span
    begun: Span
    seconds: Span
    val_share: float
    slot: Slot
    slots: int
    grows: bool
    freezes: bool
    device: str
    disk: Disk


def plan(
    spec: SearchSpec,
    *,
    on_decoded: OnDecoded | None = None,
    on_request: Callable[[Request], None] = lambda _: None,
    tell: Tell = lambda _: None,
) -> Plan:
    """Measure on this machine, or on the cluster, what the search that `spec` asks for would take; start nothing.

    The images are decoded, as a search would; the settings are measured as for a search, and then a few configurations
    of each architecture are trained for half a minute in all, side by side. The others' paces are reckoned from their
    operations. The search is gone through some hundred times on paper: trials drawn from the space, their scores by
    chance, the rungs as they are. What that leaves out: TPE comes to prefer some configurations, and patience ends
    trials earlier. Raises `RequestError` for whatever a search would refuse.
    """
    planner, folder = Planner(prepare_request(spec, on_decoded, tell)), folder_of(spec)
    request, spec, began = planner.request, planner.spec, time.monotonic()
    check_cluster(planner, folder, tell)
    on_request(request)
    tell("The machine is measured, then a few configurations are trained for half a minute; nothing is kept of them.")
    calibrated = measured(request, spec.trials)
    if sentence := calibrated["shares"]["sentence"]:
        tell(sentence)
    place = open_session(spec.model_dump(), calibrated, folder, tell)
    start_seconds = AROUND_SECONDS + time.monotonic() - began
    disk = disk_bound(request, planner.most_state_bytes, place.slots, spec.trials, folder)
    paces = tuple(measured_paces(request, calibrated, place))
    simulated = simulate(paces, spec, place.slots, random.Random(spec.seed))
    return Plan(
        paces,
        simulated.trials,
        simulated.reached,
        Span.of(simulated.epochs),
        Span.of(simulated.begun),
        Span.of([start_seconds + seconds for seconds in simulated.seconds]),
        request.val_share,
        place.slot,
        place.slots,
        place.grows and place.slots < min(spec.trials, spec.max_concurrent or spec.trials),
        any("weights" in space.knobs for name, space in request.spaces.items() if name not in request.sources),
        calibrated["device"],
        disk,
    )


@dataclass(frozen=True)
class Simulated:
    """What came of going through a search many times: a figure of each time, and means by architecture."""

    trials: Mapping[str, int]
    reached: Mapping[str, Mapping[int, float]]
    epochs: Sequence[int]
    begun: Sequence[int]
    seconds: Sequence[float]


def simulate(
    paces: Sequence[Paces], spec: SearchSpec, slots: int, rng: random.Random, machine_error: float = MACHINE_ERROR
) -> Simulated:
    """Go through a search on paper, as often as makes 20,000 trials, 30 times at the least and 300 at the most.

    Trials are dealt out evenly, each architecture's in the order of its paces, and when these are used up any of them;
    scores are by chance, and a trial that is better at one rung is so at all. A pace errs by its `error`, and all paces
    of a search together by `machine_error`. A trial that runs when the time budget ends has its epoch to the end.
    """
    stops = stopping(spec.epochs, spec.grace_images) if METHODS[spec.method]().stops_early else Stopping()
    times = max(30, min(SIMULATIONS, SIMULATED_TRIALS // spec.trials))
    rounds = ([(each, nth) for each in paces if each.most is None or nth < each.most] for nth in range(spec.trials))
    dealt = list(itertools.islice(itertools.chain.from_iterable(rounds), spec.trials))
    budget = spec.time_budget or math.inf
    most_seconds = budget / stops.whole_epochs(spec.epochs)
    reached = {each.architecture: dict.fromkeys(stops.levels, 0) for each in paces}
    epochs, begun, seconds = [], [], []
    for _ in range(times):
        rungs = {each.architecture: PaperRungs(stops) for each in paces}
        common = math.exp(rng.gauss(0, machine_error))
        lengths, ran, of_epoch = [], [], []
        for each, nth in dealt:
            pace = common * _pace(each, nth, most_seconds, rng) * math.exp(rng.gauss(0, each.error))
            ran.append(rungs[each.architecture].epochs_run(spec.epochs, rng.random()))
            lengths.append(each.begin_seconds + stops.whole_epochs(ran[-1]) * pace)
            of_epoch.append(pace)
        table = timetable(lengths, slots)
        within = [max(0.0, min(1.0, (budget - start) / max(end - start, 1e-9))) for start, end in table]
        epochs.append(round(sum(share * count for share, count in zip(within, ran, strict=True))))
        begun.append(sum(start < budget for start, _ in table))
        ends = [_end(*times, budget, epoch) for times, epoch in zip(table, of_epoch, strict=True) if times[0] < budget]
        seconds.append(max(ends))
        for name, of_architecture in rungs.items():
            for level, values in of_architecture.scores.items():
                reached[name][level] += len(values)
    means = {name: {level: found / times for level, found in of.items()} for name, of in reached.items()}
    trials = {each.architecture: sum(other is each for other, _ in dealt) for each in paces}
    return Simulated(trials, means, epochs, begun, seconds)


def _end(start: float, end: float, budget: float, epoch_seconds: float) -> float:
    """Return when a trial that began within the budget ends: with the epoch in which the budget does, at the latest."""
    if end <= budget:
        return end
    epochs = math.ceil((budget - start) / epoch_seconds)
    return min(end, start + epochs * epoch_seconds)


def _pace(paces: Paces, index: int, most_seconds: float, rng: random.Random) -> float:
    """Return the seconds per epoch of an architecture's trial: none that the time budget has no room for, as a search
    would draw again."""
    if index < paces.known and (index == 0 or paces.epoch_seconds[index] <= most_seconds):
        return paces.epoch_seconds[index]
    drawn = paces.epoch_seconds[1:] or paces.epoch_seconds
    return rng.choice([each for each in drawn if each <= most_seconds] or drawn)

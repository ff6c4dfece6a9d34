"""Run a search, or go on with one: replay the ledger, then launch with the method's proposals and decisions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.inspection import check_hosts
from cluster.launch import launch
from cluster.ledger import Ledger
from cluster.lock import Lock
from cluster.naming import run_argument
from cluster.place import parcel
from cluster.proposal import Decision, Proposal
from cluster.record import Row, TrialRecord, ranked
from cluster.session import Tell, keep_address, open_session
from cluster.storage import SPEC, TRIALS, experiment_folder, read_experiment, write_experiment
from cluster.table import write_trials_csv
from cluster.trial_store import trial_store
from foundation import RequestError, seed_from
from search.calibration import calibrate
from search.cost import Costs, seconds_left
from search.disk import disk_bound, largest_state
from search.extended import note_extended, trials_in_all
from search.halving import Halving, out_of_patience, stopping, work_of
from search.methods import METHODS, STARTUP
from search.question import Observation, Question
from search.request import (
    OnDecoded,
    Request,
    changes,
    decoded,
    decoded_before,
    default_architectures,
    describe_experiment,
    keep_asked,
    needs_of,
    prepare_request,
    reopen,
)
from search.spec import SearchSpec, checked_spec
from spaces import Space

MAX_DRAWS = 50  # configurations refused in a row before the space itself is refused
COSTED_DRAWS = 25  # of these, how many must fit into the time budget: where none does, the search still tries one


@dataclass(frozen=True)
class Outcome:
    """Where the experiment lies, whether it was interrupted before its end, and what ended it else."""

    folder: Path
    interrupted: bool
    out_of_time: bool = False
    rescued: bool = False


def folder_of(spec: SearchSpec) -> Path:
    """Return the folder of the experiment that `spec` asks for; `RequestError` if it can be none."""
    return experiment_folder(spec.storage, spec.name)


def search(
    spec: SearchSpec,
    *,
    lock: Lock | None = None,
    command_line: str = "",
    quiet: bool = False,
    on_decoded: OnDecoded | None = None,
    on_request: Callable[[Request], None] = lambda _: None,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Run the search that `spec` asks for, or go on with the experiment of that name if it asked for the same.

    A live table goes to standard error unless `quiet`; `on_decoded(done, total)` is told while images are decoded,
    and `on_request` when nothing speaks against the request; `tell` is given sentences for the user. Raises
    `RequestError`, before the experiment is made, with everything that is wrong in the request.
    """
    folder = folder_of(spec)
    planner = _same_planner(folder, spec, on_decoded, tell)
    if planner is None:  # all that can be refused is refused before the experiment exists
        if not spec.arch and (left_out := default_architectures()[1]):
            tell(f"Left out, their pretrained weights are not at hand (see --weights): {', '.join(left_out)}")
        planner = Planner(prepare_request(spec, on_decoded, tell))
        check_cluster(planner, folder, tell)
    on_request(planner.request)
    (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    with Ledger(folder, lock) as ledger:
        if ledger.history.experiment is None:
            write_experiment(folder, describe_experiment(planner.request, command_line))
            ledger.append("experiment", name=spec.name, trials=planner.spec.trials)
        else:
            keep_asked(folder, read_experiment(folder), planner.request)
            wanted = max(spec.trials, ledger.history.trials_wanted or 0)
            note_extended(ledger, planner.request, read_experiment(folder), wanted, tell)
        return _run(planner, ledger, quiet, tell)


def check_cluster(planner: "Planner", folder: Path, tell: Tell) -> None:
    """Connect to the cluster that a request names; raise `RequestError` with whatever speaks against it there."""
    spec = planner.spec
    with ThreadPoolExecutor(1) as beside:  # torch takes as long to import as Ray to start
        proposed = beside.submit(planner.check)
        slots = open_session(spec.model_dump(), None, folder, tell).slots
        proposed.result()
    check_hosts(needs_of(planner.request, parcel).probes())
    disk_bound(planner.request, planner.most_state_bytes, slots, spec.trials, folder)


def resume(
    folder: Path,
    *,
    lock: Lock | None = None,
    trials: str | None = None,
    overrides: dict[str, Any] | None = None,
    quiet: bool = False,
    on_decoded: OnDecoded | None = None,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Go on with an experiment; `trials` extends it: `+20` by twenty, `60` to sixty in all.

    `overrides` replaces operational settings of the request (`time_budget`, `address`, `max_concurrent`,
    `checkpoint_every`, `epoch_timeout`), from now on.
    """
    with Ledger(folder, lock) as ledger:
        experiment = read_experiment(folder)
        spec = checked_spec(experiment["spec"] | (overrides or {}))
        request = reopen(spec, experiment, decoded_before(spec, experiment, on_decoded, tell))
        keep_asked(folder, experiment, request)
        wanted = trials_in_all(trials, ledger.history.trials_wanted or spec.trials)
        note_extended(ledger, request, experiment, wanted, tell)
        return _run(Planner(request), ledger, quiet, tell)


def _same_planner(folder: Path, spec: SearchSpec, on_decoded: OnDecoded | None, tell: Tell) -> "Planner | None":
    """Return who plans for the experiment of that name, None if there is none; `RequestError` if it was another."""
    if not (folder / SPEC).exists():
        return None
    experiment = read_experiment(folder)
    if found := changes(spec, experiment):
        raise RequestError(
            f"the experiment {spec.name!r} is there already and asked for something else; give another --name, or "
            f"go on with it by `convscout resume {run_argument(folder)}`",
            *found,
        )
    return Planner(reopen(spec, experiment, decoded(spec, on_decoded, tell)))


def _run(planner: "Planner", ledger: Ledger, quiet: bool, tell: Tell) -> Outcome:
    left = seconds_left(planner.spec, ledger.history)
    over = left is not None and left <= 0
    live = any(record.live for record in ledger.history.of_role("search"))
    if not live and (over or planner.next_work(ledger.history) is None):
        _write_trials(planner, ledger)  # it may have been killed before it came to that
        return Outcome(ledger.path.parent, interrupted=False, out_of_time=over)  # nothing to do: Ray need not start
    return train(planner, ledger, planner.next_work, left, quiet, tell)


def train(
    planner: "Planner",
    ledger: Ledger,
    next_work: Callable[[History], Proposal | None],
    budget_seconds: float | None,
    quiet: bool,
    tell: Tell,
) -> Outcome:
    """Launch the unfinished trials of a search and those that `next_work` proposes; write `trials.csv`."""
    request, spec, folder = planner.request, planner.spec, ledger.path.parent
    wanted = ledger.history.trials_wanted or spec.trials
    calibrated = ledger.history.calibrated or calibrate(request, ledger, wanted, tell)
    place = open_session(spec.model_dump(), calibrated, folder, tell)
    keep_address(folder, spec.address)
    needs = needs_of(request, parcel)
    check_hosts(needs.probes())
    tell(disk_bound(request, planner.most_state_bytes, place.slots, wanted, folder).sentence)
    from cluster.watch import watchers  # imports TensorBoard, beside what starts
    from trainables.learned import worker_parameters
    from trainables.trainable import ImageTrainable  # imports ray, so not before it is set up

    experiment = read_experiment(folder)
    rungs = stopping(spec.epochs, spec.grace_images) if planner.method.stops_early else None
    rescued = any(record.live and record.reopened for record in ledger.history.of_role("search"))
    bound = None if rescued else budget_seconds  # of the time left: what is rescued runs to its end
    options: dict[str, Any] = {"budget_seconds": bound, "stopping": rungs, "quiet": quiet}
    watching = watchers(folder, experiment, ("search",), place.slots, what="search", **options)
    dispatcher = Dispatcher(
        ledger,
        ("search",),
        next_work,
        planner.decide,
        watching,
        budget_seconds,
        metric=spec.metric,
        in_order=place.slots == 1,
    )
    given = place.slot.cpus, spec.checkpoint_every, needs, trial_store(folder)
    parameters = worker_parameters(folder, experiment, calibrated, *given)
    done = launch(ImageTrainable, dispatcher, place, parameters, tell)
    _write_trials(planner, ledger)
    return Outcome(folder, interrupted=not done, out_of_time=dispatcher.out_of_time)


def _write_trials(planner: "Planner", ledger: Ledger) -> None:
    write_trials_csv(ledger.path.parent / "trials.csv", ledger.history.trials.values(), planner.spec.metric)


class Planner:
    """Proposes the next trial and judges the running ones; a pure function of the request and the history."""

    def __init__(self, request: Request) -> None:
        self.spec = request.spec
        self.request = request
        self.method = METHODS[request.spec.method]()
        self.halving = Halving(request.spec.metric, request.spec.epochs)
        self.costs = Costs(request)

    def check(self) -> None:
        """Raise `RequestError` for an architecture of one's own whose baseline cannot be built for this data."""
        for space in self.request.spaces.values():
            self._propose(space, (), History())

    def next_work(self, history: History) -> Proposal | None:
        """Return the next trial, of the architecture with the fewest so far; None when all wanted ones are there."""
        of = {name: history.searched(name) for name in self.request.spaces}
        if sum(map(len, of.values())) >= (history.trials_wanted or self.spec.trials):
            return None
        for name in sorted(of, key=lambda name: len(of[name])):  # stable: ties go in the order asked
            if proposal := self._propose(self.request.spaces[name], of[name], history):
                return proposal
        return None

    def decide(self, history: History, record: TrialRecord, row: Row) -> Decision | None:
        """Return whether a trial goes on after an epoch: rungs first, where the method has them, then patience."""
        decision = self.halving.decide(history, record, row) if self.method.stops_early else None
        if self.spec.patience and not (decision and decision.stop):
            decision = out_of_patience(record, row, self.spec.patience) or decision
        return decision

    def _propose(self, space: Space, records: Sequence[TrialRecord], history: History) -> Proposal | None:
        rejected: list[dict[str, Any]] = []
        refused = history.refused(space.architecture)
        prices = self.costs.prices(space, history) if self.method.learns and len(records) >= STARTUP else None
        for draw in range(MAX_DRAWS):
            seen = self._observations(records, [*refused, *rejected]) if self.method.learns else ()
            question = Question(space, len(records), len(refused), draw, self.spec.seed, seen, prices)
            baseline = not records and draw == 0
            config = dict(space.baseline) if baseline else self.method.propose(question)
            if config is None:
                return None
            cause, why = "impossible", self._refused(space, config)
            if why is None and not baseline and draw < COSTED_DRAWS:
                cause, why = "too_long", self.costs.too_long(space.architecture, config, history)
            if why is None:
                return Proposal(
                    role="search",
                    architecture=space.architecture,
                    config=config,
                    seed=seed_from(self.spec.seed, "trial", history.next_trial()),
                    work=work_of(self.spec.epochs, self.spec.grace_images),
                    method="baseline" if baseline else self.spec.method,
                    rejected=tuple(rejected),
                )
            if baseline and space.architecture in self.request.sources:  # of one's own: the mistake is in the file
                raise RequestError(f"{space.architecture}: its baseline cannot be built for this data: {why}")
            rejected.append(
                {"architecture": space.architecture, "draw": draw, "config": config, "cause": cause, "why": why}
            )
        raise RequestError(
            f"{space.architecture}: {MAX_DRAWS} configurations in a row cannot be built for this data, the last one "
            f"because: {rejected[-1]['why']}. Narrow its space with --space"
        )

    def _refused(self, space: Space, config: dict[str, Any]) -> str | None:
        found = self.request.preflight(space.architecture, config)
        if found.state_bytes > self.most_state_bytes:
            return (
                f"its state has {found.state_bytes:,} bytes, and {self.most_state_bytes:,} were reckoned with at most"
            )
        return found.impossible

    @cached_property
    def most_state_bytes(self) -> int:
        """The largest state of a trial that the disk was reckoned for."""
        return largest_state(self.request)

    def _observations(self, records: Sequence[TrialRecord], refused: Sequence[Row]) -> list[Observation]:
        """Return the trials in order with their ranks; those still running, and what was refused, rank as the worst.

        A method that did not learn from what was refused would propose it again: TPE did, 25 times in a row.
        """
        ended = ranked([record for record in records if not record.live], self.spec.metric)
        rank = {record.trial: position for position, record in enumerate(ended)}
        seen = [Observation(record.config, rank.get(record.trial, len(ended))) for record in records]
        return seen + [Observation(row["config"], len(ended)) for row in refused]

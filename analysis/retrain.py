"""Retraining: every contender with fresh seeds, never stopped early, then the final trainings its curves call for.

Both go through the search's launcher in one launch: a contender's final trainings start as soon as its retrained
runs have ended, while another's still run.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.contest import Contestant
from analysis.select import Contender, no_faster
from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.inspection import check_hosts
from cluster.launch import launch
from cluster.ledger import Ledger
from cluster.naming import run_argument
from cluster.place import parcel
from cluster.proposal import Proposal
from cluster.record import Row, TrialRecord
from cluster.resources import Place
from cluster.session import Tell, keep_address, open_session
from cluster.storage import read_experiment
from cluster.trial_store import trial_store
from cluster.watch import watchers
from foundation import RequestError, seed_from
from trainables.learned import Needs, needs, worker_parameters

ROLES = ("retrain", "final")


class Plan:
    """What an analysis has to train; a pure function of the contenders, the seeds and the history.

    `seeds` is the number of runs of each contender, `seed` what theirs are drawn from. With `folds`, of 2 or more, the
    runs that the number of epochs is read from are those of a cross-validation over train and validation together: as
    many as there are folds. `image_losses` gives what a retrained run kept of its validation images.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        seeds: int,
        seed: int,
        folds: int = 0,
        image_losses: Callable[[TrialRecord], NDArray[np.float32] | None] = lambda _: None,
        workers: int = 1,
    ) -> None:
        self.contenders, self.seeds, self.seed, self.folds = contenders, seeds, seed, folds
        self.workers = workers
        self._image_losses = image_losses
        self._contestants: dict[tuple[tuple[int, str | None], ...], Contestant] = {}

    def next_work(self, history: History) -> Proposal | None:
        """Return the next training that the ledger does not have; None when there is none, or none yet."""
        for contender in self.contenders:
            for proposal in self.retrainings(contender):
                if find(history, proposal) is None:
                    return proposal
        for contender in self.contenders:
            for proposal in self.final_trainings(history, contender):
                if find(history, proposal) is None:
                    return proposal
        return None

    def wanted(self, history: History) -> int:
        """Return how many trainings there will be when all is done: those of earlier analyses, and this one's."""
        these = [proposal for contender in self.contenders for proposal in self.retrainings(contender)]
        missing = (
            len(these)
            + self.seeds * len(self.contenders)
            - sum(find(history, proposal) is not None for proposal in these)
        )
        finals = [each for contender in self.contenders for each in self.final_trainings(history, contender)]
        return len(history.of_role(*ROLES)) + missing - sum(find(history, each) is not None for each in finals)

    def retrainings(self, contender: Contender) -> list[Proposal]:
        """Return the retraining of a contender: all its epochs, with seeds of which none is its search seed."""
        if self.folds:
            extra: list[dict[str, Any]] = [{"fold": [index, self.folds]} for index in range(self.folds)]
        else:
            extra = [{} for _ in range(self.seeds)]
        return [retraining(contender.record, index, self.seed, extra=each) for index, each in enumerate(extra)]

    def final_trainings(self, history: History, contender: Contender) -> list[Proposal]:
        """Return the final training on train and validation images together, once per sound retrained run.

        It runs for the number of epochs that the runs call for, replaying the learning rates each recorded. There
        are none while a run has not ended.
        """
        contestant = self.contestant(history, contender)
        if len(contestant.runs) < (self.folds or self.seeds) or any(run.live for run in contestant.runs):
            return []
        sound = contestant.sound_runs
        runs = [(run.work["seed_index"], run) for run in sound]
        if self.folds and sound:  # a final training is of no fold: there are as many as asked for
            runs = [(index, sound[index % len(sound)]) for index in range(self.seeds)]
        return [
            retraining(
                contender.record,
                index,
                self.seed,
                role="final",
                extra={
                    "epochs": contestant.epochs,
                    "keep_losses": False,
                    "train_on_val": True,
                    "keep_checkpoint": True,
                    "learning_rates": [row["learning_rate"] for row in run.epochs],
                    **({"workers": self.workers} if self.workers > 1 else {}),
                },
            )
            for index, run in runs
        ]

    def contestant(self, history: History, contender: Contender) -> Contestant:
        """Return a contender with the retrained runs that the history has of it.

        It is kept while nothing has ended since: how many epochs the runs call for takes a second to work out.
        """
        runs = found(history, self.retrainings(contender))
        key = ((contender.record.trial, None), *((run.trial, run.status) for run in runs))
        if key not in self._contestants:
            self._contestants[key] = Contestant(contender, runs, self._image_losses)
        return self._contestants[key]


def retraining(
    record: TrialRecord,
    index: int,
    seed: int,
    *,
    role: str = "retrain",
    config: dict[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Proposal:
    """Return the training number `index` of a trial of the search, to its full number of epochs.

    Its seed depends on the trial, the number and `seed` alone, so that another `config` trained in its place, or other
    work (`extra`), meets the same luck.
    """
    epochs = record.work["schedule_epochs"]
    work = {"epochs": epochs, "schedule_epochs": epochs, "of": record.trial, "seed_index": index, "keep_losses": True}
    return Proposal(
        role=role,
        architecture=record.architecture,
        config=config or record.config,
        seed=seed_from(seed, "analysis", record.trial, index),
        work=work | dict(extra or {}),
        method="analysis",
    )


def find(history: History, proposal: Proposal) -> TrialRecord | None:
    """Return the trial that already is what a proposal asks for: the same configuration, seed and work.

    One that was lost to the machines is none: it is trained again.
    """
    for record in history.of_role(proposal.role):
        if record.status in ("lost", "data_error"):
            continue
        if (record.config, record.seed, record.work) == (proposal.config, proposal.seed, proposal.work):
            return record
    return None


def found(history: History, proposals: Sequence[Proposal]) -> list[TrialRecord]:
    """Return the trials that already are what these proposals ask for."""
    trials = [find(history, proposal) for proposal in proposals]
    return [record for record in trials if record is not None]


def train(plan: Plan, ledger: Ledger, quiet: bool, tell: Tell = lambda _: None, address: str | None = None) -> None:
    """Train what the plan asks for and the ledger does not have, on the cluster of the search or at `address`.

    Raises `KeyboardInterrupt` when it was interrupted: what is done stays done.
    """
    for sentence in no_faster(plan.contenders, plan.workers):
        tell(sentence)
    wanted = plan.wanted(ledger.history)
    options: dict[str, Any] = {"wanted": wanted, "quiet": quiet, "workers": plan.workers, "address": address}
    options["tell"] = tell
    run_trials(ledger, ROLES, plan.next_work, what="analysis", **options)


def run_trials(
    ledger: Ledger,
    roles: Sequence[str],
    next_work: Callable[[History], Proposal | None],
    *,
    what: str,
    wanted: int,
    quiet: bool,
    workers: int = 1,
    address: str | None = None,
    tell: Tell = lambda _: None,
) -> None:
    """Train the unfinished trials of some roles and those that `next_work` proposes, none of them stopped early.

    `what` and `wanted`, the number of trials in all, are for the display. Those whose work asks for `workers` that
    train them together come after all others. They run on the cluster of the last command, or at `address`. Raises
    `KeyboardInterrupt` when it was interrupted, `RequestError` where the experiment has not been calibrated, or so many
    workers have no room.
    """
    history, folder = ledger.history, ledger.path.parent
    live = {record.workers for record in history.of_role(*roles) if record.live}
    if next_work(history) is None and not live:
        return  # Ray need not start
    experiment, calibrated = read_experiment(folder), history.calibrated
    if calibrated is None:
        raise RequestError(
            f"{folder} has not trained anything yet: `convscout resume {run_argument(folder)}` goes on with it"
        )
    asked = experiment["spec"] | ({"address": address} if address else {})
    place = open_session(asked, calibrated, folder, tell)
    keep_address(folder, asked["address"])
    needed = needs(Path(experiment["data"]["cache"]), experiment["spaces"], experiment["sources"], parcel)
    check_hosts(needed.probes())
    if workers > 1:
        place.check_team(workers)
    for number in sorted({1, workers, *live}):
        if number > max(1, workers, place.team_room):
            continue  # left from an analysis on more hosts: it waits for them

        def these(known: History, number: int = number) -> Proposal | None:
            proposal = next_work(known)
            return proposal if proposal and proposal.work.get("workers", 1) == number else None

        if number not in live and these(history) is None:
            continue
        slots = place.slots if number == 1 else 1
        watching = watchers(folder, experiment, roles, slots, what=what, wanted=wanted, quiet=quiet)
        dispatcher = Dispatcher(ledger, roles, these, lambda *_: None, watching, in_order=slots == 1, workers=number)
        if not _run(dispatcher, place, folder, experiment, calibrated, needed, number, tell):
            raise KeyboardInterrupt


def _run(
    dispatcher: Dispatcher,
    place: Place,
    folder: Path,
    experiment: dict[str, Any],
    calibrated: Row,
    needed: Needs,
    workers: int,
    tell: Tell,
) -> bool:
    """Run the dispatcher's trials, each by so many workers; return False when that was interrupted."""
    from trainables.team_worker import train_together  # imports ray: not before
    from trainables.trainable import ImageTrainable

    given = place.slot.cpus, experiment["spec"]["checkpoint_every"], needed, trial_store(folder)
    parameters = worker_parameters(folder, experiment, calibrated, *given)
    if workers == 1:
        return launch(ImageTrainable, dispatcher, place, parameters, tell)
    from cluster.launch_together import launch_together

    return launch_together(train_together, dispatcher, place, workers, parameters)

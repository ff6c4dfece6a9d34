"""Retraining: a list of configurations and seeds, never stopped early, through the launcher of the search."""

from collections.abc import Sequence
from typing import Any

from analysis.select import Contender
from cluster.connect import connect
from cluster.history import History, TrialRecord
from cluster.launch import Dispatcher, Proposal, launch
from cluster.ledger import Ledger
from cluster.resources import choose_slot
from cluster.storage import read_experiment
from cluster.watch import watchers
from foundation import RequestError, seed_from


def retrain_work(contenders: Sequence[Contender], seeds: int, seed: int) -> list[Proposal]:
    """Return the retraining of every contender with fresh seeds, none of them its search seed, to all its epochs."""
    return [
        _proposal("retrain", contender.record, index, seed, contender.record.work["schedule_epochs"], {})
        for contender in contenders
        for index in range(seeds)
    ]


def final_work(contender: Contender, runs: Sequence[TrialRecord], epochs: int, seed: int) -> list[Proposal]:
    """Return the final training of a contender on train and validation images together, once per retrained run.

    The learning rates each run recorded are replayed.
    """
    return [
        _proposal(
            "final",
            contender.record,
            run.work["seed_index"],
            seed,
            epochs,
            {
                "train_on_val": True,
                "keep_checkpoint": True,
                "learning_rates": [row["learning_rate"] for row in run.epochs],
            },
        )
        for run in runs
    ]


def find(history: History, proposal: Proposal) -> TrialRecord | None:
    """Return the trial that already is what a proposal asks for: the same configuration, seed and work."""
    for record in history.of_role(proposal.role):
        if (record.config, record.seed, record.work) == (proposal.config, proposal.seed, proposal.work):
            return record
    return None


def train_all(work: Sequence[Proposal], ledger: Ledger, quiet: bool) -> list[TrialRecord]:
    """Train what is asked, except what the ledger already has, and return the trials in the order asked.

    Raises `KeyboardInterrupt` when it was interrupted: what is done stays done.
    """
    if not all((record := find(ledger.history, each)) and not record.live for each in work):
        _launch(work, ledger, quiet)
    found = [find(ledger.history, each) for each in work]
    return [record for record in found if record is not None]


def _launch(work: Sequence[Proposal], ledger: Ledger, quiet: bool) -> None:
    role, folder = work[0].role, ledger.path.parent
    experiment, calibrated = read_experiment(folder), ledger.history.calibrated
    if calibrated is None:
        raise RequestError(
            f"{folder} has not begun to train anything: `convscout resume {folder.name}` goes on with it"
        )
    spec = experiment["spec"]
    resources = connect(spec["address"]).cluster_resources()
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    slot = choose_slot(cpus, gpus, spec["cpus_per_trial"], spec["gpus_per_trial"])
    from trainables.trainable import ImageTrainable, worker_parameters  # imports ray, so not before it is set up

    def next_work(history: History) -> Proposal | None:
        return next((each for each in work if find(history, each) is None), None)

    watching = watchers(folder, experiment, role, slot.how_many(cpus, gpus), wanted=len(work), quiet=quiet)
    dispatcher = Dispatcher(ledger, role, next_work, lambda *_: None, watching)
    parameters = worker_parameters(folder, experiment, calibrated)
    if not launch(ImageTrainable, dispatcher, slot, parameters, spec["max_concurrent"]):
        raise KeyboardInterrupt


def _proposal(role: str, record: TrialRecord, index: int, seed: int, epochs: int, extra: dict[str, Any]) -> Proposal:
    work = {
        "epochs": epochs,
        "schedule_epochs": record.work["schedule_epochs"],
        "of": record.trial,
        "seed_index": index,
        **extra,
    }
    return Proposal(
        role=role,
        architecture=record.architecture,
        config=record.config,
        seed=seed_from(seed, "analysis", record.trial, index),
        work=work,
        method="analysis",
    )

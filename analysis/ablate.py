"""What one knob at a time does to the winner: retrained with another value of it, everything else and the seeds equal.

That is the comparison of optimizers or activations that people make by hand on one run each; the trials of a search are
no such comparison, since a searcher spends them where it hopes for more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.compare import compare
from analysis.contest import Contestant
from analysis.experiment import Experiment
from analysis.retrain import find, found, retraining, run_trials
from analysis.select import Contender
from cluster.history import History
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.record import TrialRecord
from cluster.session import Tell
from foundation import Problems, unknown_word
from spaces import Space
from spaces.domains import active, grid, plain, same

ROLE = "ablation"


class Ablations:
    """The trainings in which one knob of a winner has another value: a pure function of the winner and the history.

    Asked for are the `knobs`, and whatever was asked for of this winner before. `left_out` has those of
    which the winner has no other value, each with the reason.
    """

    def __init__(self, space: Space, winner: Contestant, knobs: Sequence[str], history: History, seed: int) -> None:
        self.space, self.winner, self.seed = space, winner, seed
        record = winner.contender.record
        before = [each.work["knob"] for each in history.of_role(ROLE) if each.work["of"] == record.trial]
        reasons = {knob: _obstacle(space, record, knob) for knob in [*before, *knobs]}
        self.left_out = {knob: why for knob, why in reasons.items() if why}
        self.variants = {
            f"{knob} {plain(value)}": (knob, value, config)
            for knob in reasons
            if knob not in self.left_out
            for value, config in variants(space, record.config, knob)
        }

    def next_work(self, history: History) -> Proposal | None:
        """Return the next training that the ledger does not have; None when there is none."""
        wanted = (proposal for name in self.variants for proposal in self.proposals(name))
        return next((proposal for proposal in wanted if find(history, proposal) is None), None)

    def proposals(self, name: str) -> list[Proposal]:
        """Return the trainings of one variant: as the winner was retrained, with the same seeds."""
        knob, value, config = self.variants[name]
        record = self.winner.contender.record
        return [
            retraining(
                record,
                run.work["seed_index"],
                self.seed,
                role=ROLE,
                config=config,
                extra={"knob": knob, "value": value},
            )
            for run in self.winner.runs
        ]

    def train(self, ledger: Ledger, quiet: bool, tell: Tell, address: str | None) -> None:
        """Train what the ledger does not have; raises KeyboardInterrupt when it was interrupted."""
        wanted = sum(len(self.proposals(name)) for name in self.variants)
        options: dict[str, Any] = {"quiet": quiet, "tell": tell, "address": address}
        run_trials(ledger, (ROLE,), self.next_work, what="ablation", wanted=wanted, **options)

    def results(self, history: History, experiment: Experiment) -> dict[str, Any]:
        """Return the part of `analysis.json` that says what each variant reaches on the validation images.

        Each at its own number of epochs; compared with the winner as it was retrained, seed by seed and image by image,
        corrected for all variants together (`compare`). The winner has a small head start: it was chosen on them.
        """
        ran = {
            name: Contestant(
                Contender(self.winner.contender.record), found(history, self.proposals(name)), experiment.image_losses
            )
            for name in self.variants
        }
        own = self.winner.name
        correct = {own: _correct(self.winner, experiment)} | {n: _correct(each, experiment) for n, each in ran.items()}
        known = {name: array for name, array in correct.items() if array is not None}
        pairs = [(name, own) for name in ran if name in known and own in known]
        compared = {each.first: each for each in compare(pairs, known, split="validation")} if pairs else {}
        rows = []
        for name, (knob, value, _) in self.variants.items():
            row: dict[str, Any] = {"name": name, "knob": knob, "value": value, "n_failed": ran[name].n_failed}
            if choice := ran[name].choice:
                row |= {"epochs": choice.epochs, "val_accuracy": ran[name].at_chosen_epoch("val_accuracy")}
            if name in compared:
                each = compared[name]
                row["comparison"] = asdict(each) | {"sentence": each.sentence, "found": each.found}
            rows.append(row)
        config = self.winner.contender.record.config
        values = {row["knob"]: config[row["knob"]] for row in rows}
        return {"of": own, "config": values, "variants": rows, "left_out": self.left_out}


def variants(space: Space, config: Mapping[str, Any], knob: str) -> list[tuple[Any, dict[str, Any]]]:
    """Return each other value of a knob with the configuration that has it: every option, three points of a range.

    A knob that another value makes active gets its baseline value, or the middle of its range; one that is no longer
    active is left out.
    """
    found: list[tuple[Any, dict[str, Any]]] = []
    for value in grid(space.knobs[knob].domain):
        if same(value, config[knob]):
            continue
        changed: dict[str, Any] = {}
        for name, each in space.knobs.items():
            if active(each.domain, changed):
                middle = grid(each.domain)
                usual = space.baseline.get(name, middle[len(middle) // 2])
                changed[name] = value if name == knob else config.get(name, usual)
        found.append((value, changed))
    return found


def check_knobs(knobs: Sequence[str], contenders: Sequence[Contender], spaces: Mapping[str, Space]) -> None:
    """Raise `RequestError` for knobs that cannot be changed in any of the contenders, whichever of them will win.

    To be asked before anything is trained: a word that is wrong must not be found out after hours. `spaces` are by
    architecture.
    """
    known = {knob for each in contenders for knob in spaces[each.record.architecture].knobs}
    problems = Problems()
    for knob in knobs:
        why = {each.name: _obstacle(spaces[each.record.architecture], each.record, knob) for each in contenders}
        if knob not in known:
            problems.add(f"--ablate {knob}: {unknown_word('knob', knob, known)}")
        elif all(why.values()):
            each = "; ".join(f"{name}: {reason}" for name, reason in why.items())
            problems.add(f"--ablate {knob}: it cannot be changed in any contender ({each})")
    problems.raise_if_any()


def _obstacle(space: Space, record: TrialRecord, knob: str) -> str | None:
    """Return why a knob of a trial cannot be changed alone; None where it can."""
    if knob not in space.knobs:
        return f"{space.architecture} has no such knob"
    if knob not in record.config:
        return "it is not active there"
    if not variants(space, record.config, knob):
        return f"this search had no other value than {plain(record.config[knob])}"
    return None


def _correct(contestant: Contestant, experiment: Experiment) -> NDArray[np.bool_] | None:
    """Return which validation images each sound run got right at the chosen epoch; None where that is not known."""
    rows = [experiment.image_correct(run) for run in contestant.sound_runs]
    known = [row[contestant.epochs - 1] for row in rows if row is not None]
    return np.stack(known) if known and len(known) == len(rows) else None

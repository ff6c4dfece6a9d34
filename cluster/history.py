"""What the rows of a ledger add up to: every trial, its epochs, its decisions and how it ended.

`History.apply` folds one row in. It is used for the live run and for a replay alike, so the state after a crash
is the state before it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Any

from cluster.arrivals import Arrivals
from cluster.record import Row, TrialRecord

SHORT = 40  # characters of a text that may well come again, such as a status


def _shared(row: Mapping[str, Any]) -> Row:
    """Return a row whose names are the same objects as in all others, in a table that all rows of these names share.

    JSON makes new names for each line: a trial of ten epochs took 23 KB of memory, and took 10. The attributes of a
    class's objects share one table (PEP 412): an epoch's dictionary of 464 bytes has 208.
    """
    kept: Row = vars(_rows_of(tuple(row))())
    for name, value in row.items():  # one by one: `update` would make a table of its own
        kept[intern(name)] = intern(value) if type(value) is str and len(value) < SHORT else value
    return kept


@lru_cache(1024)
def _rows_of(names: tuple[str, ...]) -> type:
    return type("Row", (), {})


class History:
    """The state of an experiment, folded from ledger rows one at a time."""

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.last_seq = 0
        self.incarnation = 0
        self.experiment: Row | None = None
        self.calibrated: Row | None = None
        self.trials_wanted: int | None = None
        self.rejected: list[Row] = []
        self.chosen: Row | None = None
        self.tests_opened: list[Row] = []
        self.interruptions: list[Row] = []
        self.resumes: list[Row] = []
        self.growths: list[Row] = []
        # By role: time between rows of its trials, without start-up and sleep; as `rescue` while only such trials run.
        self.seconds: Counter[str] = Counter()
        self.alone: set[int] = set()  # trials that no other may run beside: their hosts were short of memory
        self.longest_first: dict[int, float] = {}  # by how often its trial had changed its layers: of a first epoch
        self._last: tuple[int, str | None, float] = (0, None, 0.0)
        self._searching: set[int] = set()  # trials of the search that run now, but for rescued ones
        # What proposals and decisions of the search ask for, by architecture: none of them goes through all trials.
        self._searched: defaultdict[str, list[TrialRecord]] = defaultdict(list)
        self._refused: defaultdict[str, list[Row]] = defaultdict(list)
        self._arrivals: defaultdict[tuple[str, int], Arrivals] = defaultdict(Arrivals)
        self._fold: dict[str, Callable[[Row], None]] = {
            "experiment": self._experiment,
            "calibrated": self._calibrated,
            "extended": self._extended,
            "proposed": self._proposed,
            "rejected": self._rejected,
            "started": self._started,
            "lost": self._lost,
            "slot_grown": self._slot_grown,
            "epoch": self._epoch,
            "checkpoint": self._checkpoint,
            "decision": self._decision,
            "ended": self._ended,
            "reopened": lambda row: self.trials[row["trial"]].reopen(),
            "interrupted": self.interruptions.append,
            "resumed": self.resumes.append,
            "chosen": self._chosen,
            "test_opened": self.tests_opened.append,
        }

    def add(self, record: TrialRecord) -> None:
        """Take a new trial up."""
        self.trials[record.trial] = record
        if record.role == "search":
            self._searched[record.architecture].append(record)

    def apply(self, row: Row) -> None:
        """Fold one row in."""
        row = _shared(row)
        self.last_seq = row["seq"]
        if row["incarnation"] > self.incarnation:
            self.incarnation = row["incarnation"]
            self._searching.clear()
        if fold := self._fold.get(row["event"]):
            fold(row)
        self._count_seconds(row)

    def _count_seconds(self, row: Row) -> None:
        """Count the time since the row before for the role of that one's trial, if this one's is of the same run."""
        incarnation, before, time = self._last
        event, record = row["event"], self.trials.get(row.get("trial", -1))
        role = None if record is None else record.role
        if record and record.reopened and not self._searching:
            role = "rescue"
        if event == "rejected":  # of a trial that is to come
            role = "search"
        if before and incarnation == row["incarnation"] and (role or event == "interrupted"):
            self.seconds[before] += max(0.0, row["time"] - time - row.get("clock_jumped", 0.0))
        if record and event == "ended":
            record.ended_after = self.seconds[record.role] + (self.seconds["rescue"] if record.reopened else 0.0)
        self._last = row["incarnation"], role, row["time"]

    @property
    def counting(self) -> str | None:
        """The key in `seconds` for which the time since the last row will count, None for the time of a start-up."""
        return self._last[1]

    def of_role(self, *roles: str) -> list[TrialRecord]:
        """Return the trials of some roles (`search`, `retrain`, `final`, `reproduce`), in order of their number."""
        return [record for record in self.trials.values() if record.role in roles]

    def searched(self, architecture: str) -> Sequence[TrialRecord]:
        """Return the trials of the search of one architecture, in order of their number."""
        return self._searched.get(architecture, ())

    def refused(self, architecture: str) -> Sequence[Row]:
        """Return the `rejected` rows of one architecture."""
        return self._refused.get(architecture, ())

    def arrivals(self, architecture: str, epoch: int) -> Arrivals:
        """Return what the trials of the search of one architecture had at an epoch, in the order of their rows."""
        return self._arrivals.get((architecture, epoch)) or Arrivals()

    def next_trial(self) -> int:
        """Return the number that the next proposed trial gets."""
        return next(reversed(self.trials), -1) + 1  # they come in order

    def accepts(self, trial: int, attempt: int, epoch: int) -> bool:
        """Whether an epoch result is news: of the newest attempt of a live trial, and the next one in order."""
        record = self.trials[trial]
        return record.live and attempt == record.attempts and epoch == len(record.epochs) + 1

    def _experiment(self, row: Row) -> None:
        self.experiment = row
        self.trials_wanted = row.get("trials")

    def _calibrated(self, row: Row) -> None:
        self.calibrated = row

    def _slot_grown(self, row: Row) -> None:
        self.growths.append(row)
        if self.calibrated:  # where trials go on, they go on with this one; a smaller machine had fewer cores for each
            before = self.calibrated["slot"]
            self.calibrated = self.calibrated | {"slot": row["slot"] | {"cpus": before["cpus"]}}

    def _extended(self, row: Row) -> None:
        self.trials_wanted = row["trials"]

    def _proposed(self, row: Row) -> None:
        self.add(
            TrialRecord(
                trial=row["trial"],
                role=row["role"],
                architecture=row["architecture"],
                config=_shared(row["config"]),
                seed=row["seed"],
                work=row["work"],
                method=row["method"],
                proposed_time=row["time"],
            )
        )

    def _rejected(self, row: Row) -> None:
        self.rejected.append(row)
        self._refused[row["architecture"]].append(row)

    def _started(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.attempts = row["attempt"]
        record.started.append(row)
        if record.role == "search" and not record.reopened:
            self._searching.add(record.trial)
        record.n_params = row.get("n_params", record.n_params)

    def _lost(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.attempts = max(record.attempts, row["attempt"])
        record.lost.append(row)
        self._searching.discard(record.trial)
        if row["alone"]:
            self.alone.add(record.trial)

    def _epoch(self, row: Row) -> None:
        if not self.accepts(row["trial"], row["attempt"], row["epoch"]):
            return
        record = self.trials[row["trial"]]
        if not record.epochs or record.epochs[-1].get("layers_change"):
            stage = sum(bool(before.get("layers_change")) for before in record.epochs)
            self.longest_first[stage] = max(row["seconds"], self.longest_first.get(stage, 0.0))
        record.epochs.append(row)
        if record.role == "search":
            self._arrivals[record.architecture, row["epoch"]].add(row)

    def _checkpoint(self, row: Row) -> None:
        self.trials[row["trial"]].checkpoint = row

    def _decision(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.decisions.append(row)
        record.forget_place()

    def _ended(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.status, record.stop_reason = row["status"], row.get("stop_reason")
        record.error, record.ended_time = row.get("error"), row["time"]
        self._searching.discard(record.trial)
        record.forget_place()

    def _chosen(self, row: Row) -> None:
        self.chosen = row

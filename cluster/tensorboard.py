"""TensorBoard events, written from ledger rows while the trials run.

Trial 7 is the run `0007`, with `0007/train` and `0007/val` below it: both use the tags `loss` and `accuracy`, so
that TensorBoard draws them on the same axes. The HParams tab has a session for every trial, whatever its end.

The events are derived from the ledger and hold nothing else. A file is opened, appended to and closed for each
row, so a killed driver loses at most the events of its last row. The first row that a new driver observes writes
every trial again whose files do not say that it ended, and so is a trial that goes on after its end: into new
files, whose START record makes TensorBoard forget the points it had.
"""

import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text.summary_v2 import text_pb

from cluster.event_files import EVENTS, append, begin, file_name, remove_events
from cluster.history import History
from cluster.mirror import kept_fetched
from cluster.observer import Guarded
from cluster.record import Row, TrialRecord
from cluster.remote import store_of
from cluster.storage import TRIALS, trial_folder

RUNS = ("", "train", "val")
ROLES = ("search", "retrain", "final", "ablation", "reproduce")
ERROR_CHARACTERS = 4000  # the end of a long error says what went wrong; the ledger keeps all of it

Value = bool | int | float | str


def tensorboard_command(folder: Path) -> list[str]:
    """Return the command line that opens TensorBoard on an experiment folder, to be run as it is."""
    arguments = ["--logdir", str(folder / TRIALS), "--window_title", folder.name]
    if store_of(folder):  # what grew in the store is fetched whole and put in the place of what was there
        arguments += ["--detect_file_replacement", "true"]
    return [sys.executable, "-m", "tensorboard.main", *arguments]


def show_tensorboard(folder: Path, port: int) -> int:
    """Run TensorBoard on an experiment folder until it ends, and return its exit code; a mirror is kept up to date."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # else TensorBoard would live on
    with kept_fetched(folder, TRIALS):
        return subprocess.run([*tensorboard_command(folder), "--port", str(port)], check=False).returncode


class TensorBoardWriter(Guarded):
    """Writes each trial's curves, hyperparameters and best metrics under `folder/trials`.

    `hyperparameters` maps each knob that any architecture has to the values it may take; of a range, to its two
    ends. They become the columns and filters of the HParams tab. A knob or value that a trial has beyond them is
    added when it comes, which a TensorBoard that is already open shows only when it is started again.

    `metric` says which epoch of a trial is its best one; `best/...` are the values at that epoch.
    """

    name = "TensorBoard events"

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Sequence[Value]], metric: str) -> None:
        super().__init__()
        self.folder, self.metric = folder, metric
        self._columns = _Columns({"role": ROLES, **hyperparameters})
        self._files: dict[int, dict[str, Path]] = {}  # of each trial being written: its runs and their files
        self._caught_up = False

    def _observe(self, row: Row, history: History) -> None:
        if not self._caught_up:
            self._caught_up = True
            self._write_again(row, history)
        elif row["event"] in ("proposed", "epoch", "ended"):
            record = history.trials[row["trial"]]
            if record.trial not in self._files:
                self._write_trial(record, row)
            elif row["event"] == "ended":
                self._write_end(record)
            elif record.epochs and record.epochs[-1]["seq"] == row["seq"]:  # else the history refused the epoch
                self._write_epoch(record)

    def _write_again(self, row: Row, history: History) -> None:
        for record in history.trials.values():
            self._columns.learn(record)
        self._write_experiment(row)
        for record in history.trials.values():
            if record.live or not self._says_ended(record.trial):
                self._write_trial(record, row)

    def _says_ended(self, trial: int) -> bool:
        files = trial_folder(self.folder, trial).glob(f"{EVENTS}*")
        return any(metadata.SESSION_END_INFO_TAG.encode() in file.read_bytes() for file in files)

    def _write_trial(self, record: TrialRecord, row: Row) -> None:
        """Write what the history holds of a trial, up to and including `row`, in place of what its files say."""
        if self._columns.learn(record):
            self._write_experiment(row)
        folder = trial_folder(self.folder, record.trial)
        if self._says_ended(record.trial):
            remove_events(folder)
        self._files[record.trial] = {run: folder / run / file_name(row["seq"]) for run in RUNS}
        for file in self._files[record.trial].values():
            begin(file, record.proposed_time)
        start = SessionStartInfo(start_time_secs=record.proposed_time)
        for name, value in self._columns.cells(record).items():
            field = {bool: "bool_value", float: "number_value", str: "string_value"}[type(value)]
            setattr(start.hparams[name], field, value)
        plugin_data = HParamsPluginData(session_start_info=start)
        self._append(record, "", 0, record.proposed_time, [_hparams(metadata.SESSION_START_INFO_TAG, plugin_data)])
        for count in range(1, len(record.epochs) + 1):
            self._write_epoch(replace(record, epochs=record.epochs[:count]))
        if not record.live:
            self._write_end(record)

    def _write_epoch(self, record: TrialRecord) -> None:
        row = record.epochs[-1]
        scalars: dict[str, dict[str, float | None]] = {
            "": {name: row[name] for name in ("learning_rate", "images_per_second")} | {"epochs_run": row["epoch"]},
            "train": {"loss": row["train_loss"], "accuracy": row["train_accuracy"]},
            "val": {metric.removeprefix("val_"): row[metric] for metric in self._metrics()},
        }
        if best := record.best_epoch(self.metric):
            scalars[""] |= {f"best/{metric}": best[metric] for metric in self._metrics()}
        for run, values in scalars.items():
            summary = [Summary.Value(tag=tag, simple_value=v) for tag, v in values.items() if v is not None]
            if summary:
                self._append(record, run, row["epoch"], row["time"], summary)

    def _write_end(self, record: TrialRecord) -> None:
        status = api_pb2.STATUS_SUCCESS if record.status in ("completed", "stopped") else api_pb2.STATUS_FAILURE
        end = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=record.ended_time))
        summary = [_outcome(record), _hparams(metadata.SESSION_END_INFO_TAG, end)]
        self._append(record, "", len(record.epochs), record.ended_time or 0.0, summary)
        del self._files[record.trial]

    def _append(self, record: TrialRecord, run: str, step: int, time: float, values: Iterable[Any]) -> None:
        event = Event(wall_time=time, step=step, summary=Summary(value=values))
        append(self._files[record.trial][run], [event])

    def _metrics(self) -> list[str]:
        return list(dict.fromkeys(("val_loss", "val_accuracy", self.metric)))

    def _write_experiment(self, row: Row) -> None:
        tags = [f"best/{metric}" for metric in self._metrics()] + ["epochs_run"]
        metric_infos = [
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag.replace("/", " ")) for tag in tags
        ]
        experiment = api_pb2.Experiment(hparam_infos=self._columns.infos(), metric_infos=metric_infos)
        file = self.folder / TRIALS / file_name(row["seq"])
        remove_events(file.parent)
        begin(file, row["time"])
        value = _hparams(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))
        append(file, [Event(wall_time=row["time"], summary=Summary(value=[value]))])


class _Columns:
    """The columns of the HParams tab: of each its values so far, which settle its type and, if declared, its range.

    A range that left a trial out would hide that trial, so a value outside widens it. Of numbers only the lowest
    and the highest are kept.
    """

    def __init__(self, declared: Mapping[str, Sequence[Value]]) -> None:
        self._known: dict[str, list[Value]] = {name: list(values) for name, values in declared.items()}
        self._declared = frozenset(declared)

    def learn(self, record: TrialRecord) -> bool:
        """Take in a trial's values; return whether a column changes by them."""
        news = False
        for name, value in _values_of(record).items():
            known = self._known.setdefault(name, [])
            if any(type(value) is type(other) and value == other for other in known):
                continue
            before = self._info(name) if known else None
            known.append(value)
            if _type_of(known) == api_pb2.DATA_TYPE_FLOAT64:
                known[:] = [min(known), max(known)]
            news |= self._info(name) != before
        return news

    def cells(self, record: TrialRecord) -> dict[str, bool | float | str]:
        """Return a trial's values, each in the type of its column."""
        to_type = {api_pb2.DATA_TYPE_BOOL: bool, api_pb2.DATA_TYPE_FLOAT64: float, api_pb2.DATA_TYPE_STRING: str}
        return {name: to_type[_type_of(self._known[name])](value) for name, value in _values_of(record).items()}

    def infos(self) -> list[Any]:
        """Return the columns as TensorBoard wants them."""
        return [self._info(name) for name in self._known]

    def _info(self, name: str) -> Any:
        known = self._known[name]
        info = api_pb2.HParamInfo(name=name, type=_type_of(known), differs=len(known) > 1)
        if name in self._declared and info.type == api_pb2.DATA_TYPE_FLOAT64:
            info.domain_interval.min_value, info.domain_interval.max_value = min(known), max(known)
        elif name in self._declared and info.type == api_pb2.DATA_TYPE_STRING:
            info.domain_discrete.extend([str(value) for value in known])
        return info


def _type_of(values: Sequence[Value]) -> Any:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if kinds <= {int, float} else api_pb2.DATA_TYPE_STRING


def _values_of(record: TrialRecord) -> dict[str, Value]:
    """Return what TensorBoard is to take for the trial's hyperparameters; knobs without a value are absent."""
    config = {name: value for name, value in record.config.items() if value is not None}
    return {"architecture": record.architecture, "role": record.role} | {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in config.items()
    }


def _hparams(tag: str, plugin_data: Any) -> Any:
    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(plugin_data), tensor=metadata.NULL_TENSOR)


def _outcome(record: TrialRecord) -> Any:
    """Return the trial's end as a text summary; the error as a block of code, since it is not Markdown."""
    lines = [f"**{record.status}**: trial {record.trial}, {record.architecture}, {record.role}, seed {record.seed}"]
    if record.stop_reason:
        lines += ["", record.stop_reason]
    if record.error:
        lines += [""] + [f"    {line}" for line in record.error[-ERROR_CHARACTERS:].splitlines()]
    return text_pb("outcome", "\n".join(lines)).value[0]

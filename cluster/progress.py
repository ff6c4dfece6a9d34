"""What a terminal shows while trials run: a live table, or plain lines where there is no terminal.

Both go to stderr, since stdout is for results, and both are made from ledger rows alone.
"""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.forecast import Forecast, Span, Stopping
from cluster.history import History
from cluster.observer import Guarded
from cluster.record import Row, TrialRecord
from cluster.standing import Standing
from foundation import count, duration

WORKERS_SHOWN = 16
KNOBS_SHOWN = ("learning_rate", "optimizer", "batch_size")
ERROR_CHARACTERS = 160
REMEDY_CHARACTERS = 500
NOT_KEPT = (
    "What frozen layers give cannot be kept: no room in a quarter of the free disk, or the image cache cannot be "
    "written. Epochs take longer, and augmented views are new each time."
)
ESTIMATE_SECONDS = 2.0  # how often the time left is worked out again while no trial ends; it counts down meanwhile
ESTIMATE_SHARE = 0.02  # of the time is spent on that at most: with 10,000 trials it takes longer


class Progress(Guarded):
    """Shows how the trials of some roles come along: done, failed, the best, what runs now, and the time left.

    `wanted` is the number of trials of these roles; for `search` it is the experiment's own, from the history.
    `slots` is how many run side by side; `budget_seconds` bounds the time left, and `stopping` is how the search stops
    trials. `console` is stderr by default:
    a live table if it is a terminal, else a line whenever a trial starts or ends.
    """

    name = "the progress display"

    def __init__(
        self,
        roles: Sequence[str],
        title: str,
        metric: str,
        slots: int,
        wanted: int | None = None,
        budget_seconds: float | None = None,
        stopping: Stopping | None = None,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self.roles, self.title, self.metric = roles, clean(title), metric
        self._forecast = Forecast(roles, slots, metric, stopping)
        self.wanted, self.budget_seconds = wanted, budget_seconds
        self.console = console or Console(stderr=True)
        self._began = time.monotonic()
        self._standing: Standing | None = None
        self._estimate: tuple[float, Span | None] | None = None  # when it was made, and the seconds left then
        self._rest_until = 0.0
        self._not_kept_said = False
        self._live: Live | None = None

    def _observe(self, row: Row, history: History) -> None:
        record = history.trials.get(row["trial"]) if "trial" in row else None
        mine = record if record and record.role in self.roles else None
        if "search" in self.roles:
            self.wanted = history.trials_wanted
        if row["event"] == "slot_grown":
            self._forecast.slots = row["slots"]
            self._print(f"{_clock(row)}  {clean(row['why'], ERROR_CHARACTERS)}")
            return
        if row.get("features_not_kept") and not self._not_kept_said:
            self._not_kept_said = True
            self._print(f"{_clock(row)}  {NOT_KEPT}")
        if self._standing is None:
            self._standing = Standing(history, self.roles, self.metric)
        elif mine:
            self._standing.take(row, mine)
        if mine:
            self._standing.work_on(row, mine)
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._estimate_time_left(row, history)
            self._start_live()
            if mine and (notes := _notes(row)):
                self._print(f"trial {mine.trial} {clean(mine.architecture)}: {notes}")
        elif mine and row["event"] == "lost":
            self._print(f"{_clock(row)}  trial {mine.trial} {clean(mine.architecture)}: {_notes(row)}")
        elif mine and row["event"] in ("started", "ended"):
            self._estimate_time_left(row, history)
            line = _started(row, mine) if row["event"] == "started" else self._ended(self._standing, mine)
            self._print(f"{_clock(row)}  {line}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _finish(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start_live(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self.console, get_renderable=self._view, refresh_per_second=4, redirect_stdout=False
            )
            self._live.start()

    def _estimate_time_left(self, row: Row, history: History) -> None:
        now = time.monotonic()
        due = self._estimate is None or now - self._estimate[0] >= ESTIMATE_SECONDS or row["event"] == "ended"
        over = self._standing is not None and self._standing.ended == self.wanted
        if due and (over or now >= self._rest_until):
            self._estimate = now, self._forecast.time_left(history, self.wanted, row["time"])
            took = time.monotonic() - now
            self._rest_until = now + took / ESTIMATE_SHARE

    def _time_left(self) -> str:
        """Return the time left as text, with the interval that it is in 9 times of 10 where that says more."""
        now = time.monotonic()
        made, span = self._estimate or (now, None)
        budget = None if self.budget_seconds is None else max(0.0, self.budget_seconds - (now - self._began))
        if span is None:
            return "estimating the time left" if budget is None else f"at most {duration(budget)} left"
        left = span.less(now - made)
        ends = [duration(each if budget is None else min(each, budget)) for each in (left.middle, left.low, left.high)]
        between = f" [{ends[1]} to {ends[2]}]" if ends[1] != ends[2] else ""
        return f"about {ends[0]} left{between}"

    def _done(self, standing: Standing) -> str:
        return f"{standing.ended} trials" if self.wanted is None else f"{standing.ended} of {self.wanted} trials"

    def _ended(self, standing: Standing, record: TrialRecord) -> str:
        parts = [self._done(standing)]
        if standing.failures:
            parts.append(f"{len(standing.failures)} FAILED")
        parts.append(self._time_left())
        summary = ", ".join(parts)
        if standing.best and (record.failed or record.best_epoch(self.metric)):  # a final training compares with none
            best = standing.best[0]
            value = metric_text(self.metric, (best.best_epoch(self.metric) or {}).get(self.metric))
            summary = f"best so far {value}, trial {best.trial}; {summary}"
        return f"{_outcome(record, self.metric)} ({summary})"

    def _view(self) -> RenderableType:
        """Return what the live table shows now; Live calls it four times a second, in a thread of its own.

        It reads the standing and never the history, whose trials may become more under the thread's hands.
        """
        try:
            standing = self._standing
            return Group(self._heading(standing), self._best(standing), _workers(standing)) if standing else ""
        except Exception as error:
            return Text(f"the live table cannot be drawn ({type(error).__name__}: {error})", style="red")

    def _heading(self, standing: Standing) -> Text:
        elapsed = f"{duration(time.monotonic() - self._began)} elapsed"
        parts = [self._done(standing), f"{standing.epochs} epochs", elapsed, self._time_left()]
        text = Text(f"{self.title}: {', '.join(parts)}", style="bold")
        if standing.failures:
            last = _outcome(standing.failures[-1], self.metric)
            text.append(f"\n{len(standing.failures)} FAILED; the last one: {last}", style="bold red")
        return text

    def _best(self, standing: Standing) -> Table:
        metrics = list(dict.fromkeys(("val_loss", "val_accuracy", self.metric)))
        table = _table(
            "best so far, those trained furthest first", "trial", "architecture", "epochs", *metrics, *KNOBS_SHOWN
        )
        for record in standing.best:
            best = record.best_epoch(self.metric) or {}
            table.add_row(
                str(record.trial),
                Text(clean(record.architecture)),
                f"{len(record.epochs)}/{record.work['epochs']}",
                *(metric_text(metric, best.get(metric)) for metric in metrics),
                *(Text(_knob_text(record.config.get(knob))) for knob in KNOBS_SHOWN),
            )
        return table


def _workers(standing: Standing) -> Table:
    table = _table("running", "trial", "architecture", "epoch", "images/s", "val_accuracy")
    at_work = list(standing.at_work.values())
    for record in at_work[:WORKERS_SHOWN]:
        last = record.epochs[-1] if record.epochs else {}
        speed = last.get("images_per_second")
        table.add_row(
            str(record.trial),
            Text(clean(record.architecture)),
            f"{min(len(record.epochs) + 1, record.work['epochs'])}/{record.work['epochs']}",
            "–" if speed is None else f"{speed:,.0f}",
            metric_text("val_accuracy", last.get("val_accuracy")),
        )
    if len(at_work) > WORKERS_SHOWN:
        table.caption = f"and {len(at_work) - WORKERS_SHOWN} more"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in ("architecture", "optimizer") else "right")
    return table


def _started(row: Row, record: TrialRecord) -> str:
    again = f" again, attempt {row['attempt']}" if row["attempt"] > 1 else ""
    knobs = [f"{knob} {_knob_text(record.config[knob])}" for knob in KNOBS_SHOWN if knob in record.config]
    details = ", ".join([f"at most {count(record.work['epochs'], 'epoch')}", *knobs])
    line = f"trial {record.trial} {clean(record.architecture)}: started{again} ({details})"
    return f"{line}; {notes}" if (notes := _notes(row)) else line


def _clock(row: Row) -> str:
    return time.strftime("%H:%M:%S", time.localtime(row["time"]))


def _notes(row: Row) -> str:
    """Return what else a worker said when it started (which layers train, which checkpoints were damaged), or why it
    was lost."""
    if row["event"] == "lost":
        if row["cause"] == "unfit":  # with the remedy, at its end
            return clean(f"goes to another host, as all others do: {row['error']}", REMEDY_CHARACTERS)
        return clean(f"lost its worker, attempt {row['attempt']} ({row['cause']}): {row['error']}", ERROR_CHARACTERS)
    notes = [row["trains"]] if row.get("trains") else []
    notes += [f"checkpoint passed over, {damaged}" for damaged in row.get("damaged", ())]
    return clean("; ".join(notes), ERROR_CHARACTERS)


def _outcome(record: TrialRecord, metric: str) -> str:
    """Return how a trial ended, in one line: `trial 7 cnn: stopped at epoch 2, val_accuracy 41.2 %`."""
    line = f"trial {record.trial} {clean(record.architecture)}: "
    if record.failed:
        line += f"FAILED, {record.status} after {len(record.epochs)} epochs"
        return f"{line}: {clean(record.error or record.stop_reason or 'no reason is known', ERROR_CHARACTERS)}"
    line += f"{record.status} at epoch {len(record.epochs)}"
    if best := record.best_epoch(metric):
        line += f", {metric} {metric_text(metric, best[metric])}"
    elif record.epochs:  # a final training, on train and val together, has nothing else
        last = metric_text("train_accuracy", record.epochs[-1]["train_accuracy"])
        line += f", trained on train and val, train_accuracy {last}"
    return line


def _knob_text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else clean(str(value))


def metric_text(metric: str, value: float | None) -> str:
    """Return a value of a metric as text: a loss to three decimals, anything else as `61.0 %`; `–` for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if metric.endswith("loss") else f"{100 * value:.1f} %"


def clean(text: str, characters: int = 80) -> str:
    """Return text as one line without control characters, which could rewrite the terminal; a long one is cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"

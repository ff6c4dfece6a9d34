"""What the front door prints: tables on standard output, everything else on standard error; and its exit codes."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from foundation import HaltError, RequestError, printable

if TYPE_CHECKING:
    from analysis.deploy import Prediction
    from analysis.export import Exported
    from analysis.reproduce import Reproduction
    from cluster.lock import Lock
    from trainables.overview import Overview

CLASSES_SHOWN = 40
LEAKS_SHOWN = 10
REFUSED_SHOWN = 10
PREDICTIONS_SHOWN = 40
SHORT = 24  # characters of a text that is never broken
output = Console()
errors = Console(stderr=True)


def say(text: str, console: Console = output) -> None:
    """Print a line as it is: what comes from outside can neither format nor control the terminal."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def tell(text: str) -> None:
    """Print a line for the user beside the results, on standard error."""
    say(text, errors)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers stand at the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        values = [row[number] for row in rows if row[number] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        short = all(len(str(value)) <= SHORT for value in values)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=short, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(printable(_text(value))) for value in row))
    output.print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], as_json: bool = False) -> None:
    """Print dictionaries with equal keys as a table, or as JSON."""
    if as_json:
        print(json.dumps(list(rows), indent=1))
    elif rows:
        show_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        say("There are none.")


def show_leaderboard(folder: Path, metric: str, *, limit: int | None = None, reasons: bool = True) -> None:
    """Print the trials of a search, best first; with `reasons`, why each of them ended."""
    rows = leaderboard(folder, metric)
    columns = ["trial", "architecture", "status", "epochs", "best epoch", "val_loss", "val_accuracy"]
    columns += [metric] * (metric not in columns)
    shown = [
        row | {"epochs": f"{row['epochs_run']} of {row['epochs']}", "best epoch": row["best_epoch"]}
        for row in rows[:limit]
    ]
    show_table(columns, [[row[name] for name in columns] for row in shown])
    if limit is not None and len(rows) > limit:
        say(f"... and {len(rows) - limit} more")
    if reasons:
        for row in sorted(shown, key=lambda row: int(row["trial"])):
            say(f"trial {row['trial']}: {row['error'] or row['stop_reason'] or row['status']}")


def leaderboard(folder: Path, metric: str) -> list[dict[str, Any]]:
    """Return the trials of a search as rows, best first."""
    from cluster.ledger import read_history
    from cluster.record import ranked
    from cluster.table import trial_row

    records = ranked(read_history(folder).of_role("search"), metric)
    return [trial_row(record, metric) | {"config": record.config} for record in records]


def show_overview(found: "Overview", page: Path | None = None) -> None:
    """Print what is in a data set: counts per class and split, sizes, split, balance, copies, refused files.

    Of more than `CLASSES_SHOWN` classes only those with the most and the fewest training images; `page` is where the
    HTML page was written.
    """
    from analysis import data_words

    where = "`convscout data DATA --html FILE` or `--json` lists all"
    classes = data_words.largest_first(found) if len(found.rows) > CLASSES_SHOWN else found.rows
    rows: list[tuple[Any, ...]] = [(row.name, row.train, row.val, row.test, row.total) for row in classes]
    total = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    if (left := len(rows) - CLASSES_SHOWN) > 0:
        rows[CLASSES_SHOWN // 2 : -CLASSES_SHOWN // 2] = [(f"... {left:,} more ...", *(None,) * 4)]
    show_table(("class", "train", "val", "test", "all"), [*rows, total])
    if left > 0:
        say(f"Shown are the classes with the most and the fewest training images; {where}.")
    for sentence in data_words.summary(found):
        say(sentence)
    for leak in found.leaks[:LEAKS_SHOWN]:
        say(f"  {leak['split']}: {leak['path']} is also in {leak['other_split']}: {leak['other_path']}")
    if len(found.leaks) > LEAKS_SHOWN:
        say(f"  ... and {len(found.leaks) - LEAKS_SHOWN:,} more; {where}")
    if found.refused:
        show_refused(found.refused, output)
    else:
        say(data_words.refused(found))
    if page:
        say(f"Page: {page}")


def show_predictions(predictions: Sequence["Prediction"], as_json: bool) -> None:
    """Print the likeliest class of each image, of a long list the first; on standard error, why files were not read."""
    unread = [{"path": each.path, "reason": each.error} for each in predictions if each.error is not None]
    show_refused(unread, errors, "not read", "--csv FILE or --json lists")
    if as_json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=1))
        return
    read = [each for each in predictions if each.label is not None]
    within = os.path.commonpath([Path(each.path).absolute().parent for each in read]) if read else ""
    rows = [(os.path.relpath(each.path, within), each.label, f"{each.probability:.3f}") for each in read]
    if rows:
        say(f"In {within}:")
        show_table(("image", "class", "probability"), rows[:PREDICTIONS_SHOWN])
    if len(rows) > PREDICTIONS_SHOWN:
        say(f"... and {len(rows) - PREDICTIONS_SHOWN:,} more; --csv FILE, --html FILE or --json lists all")


def show_exported(found: "Exported", as_json: bool) -> None:
    """Print what was exported, how it was proven, and how fast it is."""
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    proof = found.proof
    say(f"{found.file} ({found.n_bytes / 1e6:,.2f} MB)")
    for name in ("input", "preprocessing", "output"):
        say(f"{name.capitalize()}: {found.about[name]}")
    say(
        f"Proven on {proof.n_images} images: the logits differ by at most {proof.largest_difference:.2g} (allowed are "
        f"{proof.allowed_difference:.2g}), and the likeliest class is the same on all; {proof.classes_seen} of "
        f"{len(json.loads(found.about['classes']))} classes came first."
    )
    rows = [("original", found.original_images_per_second), (found.format, found.exported_images_per_second)]
    show_table(("on one core", "images a second"), [(name, round(speed)) for name, speed in rows])


def show_reproduction(found: "Reproduction") -> None:
    """Print whether a trial was reproduced; where it was not, what may explain it and the metric that differs first."""
    say(found.sentence())
    for cause in found.causes:
        say(f"Likely cause: {cause}")
    if found.differences:
        metric = found.differences[0].metric
        epochs = zip(found.before, found.now, strict=False)
        rows = [(before["epoch"], before[metric], now[metric]) for before, now in epochs]
        show_table(("epoch", f"{metric} before", f"{metric} now"), rows)


def show_refused(
    refused: Sequence[Mapping[str, Any]],
    console: Console,
    what: str = "refused",
    where: str = "`convscout data DATA --json` lists",
) -> None:
    """Say how many files are not used, and why the first of them are not."""
    if not refused:
        return
    say(f"{len(refused)} file{' was' if len(refused) == 1 else 's were'} {what}:", console)
    for row in refused[:REFUSED_SHOWN]:
        say(f"  {row['path']}: {row['reason']}".replace("\n", "\ufffd"), console)
    if len(refused) > REFUSED_SHOWN:
        say(f"  ... and {len(refused) - REFUSED_SHOWN} more; {where} all", console)


def check_parent(option: str, path: Path) -> None:
    """Raise `RequestError`, before any work is done, unless a file can be made at `path`."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise RequestError(f"{option} {path}: it {what}; give the path of a file")


def finish(outcome: Any) -> None:
    """Show how a search ended and the command that comes next; KeyboardInterrupt for one that did not end."""
    from cluster.ledger import read_history
    from cluster.naming import run_argument
    from cluster.storage import read_experiment

    folder = outcome.folder
    run, spec = run_argument(folder), read_experiment(folder)["spec"]
    if outcome.interrupted:
        raise KeyboardInterrupt
    show_leaderboard(folder, spec["metric"], limit=10, reasons=False)
    history = read_history(folder)
    if (missing := (history.trials_wanted or 0) - len(history.of_role("search"))) > 0:
        budget = f"the time budget is used up; give a larger one by convscout resume {run} --time-budget ..."
        other = f"convscout resume {run} goes on with them" if outcome.rescued else "the grid has no more points"
        say(f"{missing} trials were not run: {budget if outcome.out_of_time else other}", errors)
    say(f"All trials: {folder / 'trials.csv'}\nNext: convscout analyze {run}")


def driven(folder: Path, work: Callable[["Lock"], None], go_on: str | None = None) -> NoReturn:
    """Do the work in a supervised process that holds the experiment's lock, and exit as it did."""
    from cluster.ledger import LEDGER
    from cluster.naming import command_line, run_argument
    from cluster.supervise import CRASHED, INTERRUPTED, supervise

    def again() -> str:
        begun = (folder / LEDGER).exists()
        return go_on or (f"convscout resume {run_argument(folder)}" if begun else command_line())

    drive = lambda lock: exit_code(lambda: work(lock), CRASHED, again)  # noqa: E731
    code = exit_code(lambda: supervise(folder, drive, tell), again=again)
    if code == INTERRUPTED:
        tell(f"Interrupted; nothing is lost. Go on with: {again()}")
    sys.exit(code)


def drive_search(folder: Path, run: Callable[..., Any], *given: Any, go_on: str = "", **options: Any) -> NoReturn:
    """Search in a supervised process: `run` with these arguments, the lock, and what it tells on the way."""

    def work(lock: "Lock") -> None:
        with decoding() as on_decoded:
            outcome = run(*given, lock=lock, on_decoded=on_decoded, tell=tell, **options)
        finish(outcome)

    driven(folder, work, go_on)


def exit_code(work: Callable[[], int | None], crashed: int = 1, again: Callable[[], str] | None = None) -> int:
    """Do some work and return 0 done, 1 failed, 2 the request was wrong, 130 interrupted; say what went wrong.

    Work may return a code of its own. `crashed` is that of a mistake of ours, which is shown with its traceback;
    `again` returns the command that goes on with work that the machine stopped.
    """
    try:
        return work() or 0
    except RequestError as error:
        for problem in error.problems:
            say(f"error: {problem}", errors)
        return 2
    except (HaltError, OSError) as error:
        what = str(error)
        if isinstance(error, OSError):
            what = f"{error.filename or 'the system'}: {error.strerror or error}"
        then = ". Stopped; everything up to here is kept; once that is mended, go on with: "
        say(f"error: {what}{then + again() if again else ''}", errors)
        return 1
    except KeyboardInterrupt:
        if again is None:  # else the parent says so, with the command that goes on
            tell("Interrupted.")
        return 130
    except typer.Exit as ended:
        return ended.exit_code
    except Exception:
        traceback.print_exc()
        return crashed


@contextmanager
def decoding() -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that shows a progress bar while images are decoded."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Decoding images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=errors, transient=True)
    task = bar.add_task("decode", total=None)

    def on_decoded(done: int, total: int) -> None:
        if errors.is_terminal and not bar.live.is_started and done < total:
            bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total and bar.live.is_started:
            bar.stop()

    try:
        yield on_decoded
    finally:
        if bar.live.is_started:
            bar.stop()


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

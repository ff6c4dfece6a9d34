"""The front door: one thin command per verb. Everything heavy is imported inside the command that needs it."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

import checkup
import delivery
import looking
import options
import planning
import submitting
import terminal
from terminal import errors, say

if TYPE_CHECKING:
    from cluster.lock import Lock

app = typer.Typer(
    name="convscout",
    help="Find good hyperparameters for image classifiers, and say honestly what was found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def data(
    data: options.Data,
    image_size: options.ImageSize = None,
    resize: options.Resize = None,
    val_fraction: options.ValFraction = None,
    test_fraction: options.TestFraction = None,
    duplicates: options.Duplicates = None,
    html: options.DataPage = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is in DATA: classes, counts, sizes, split, balance, copies, refused files."""
    given = {key: value for key, value in locals().items() if value is not None and key not in ("html", "as_json")}
    from dataclasses import asdict

    from trainables.cache import prepare
    from trainables.overview import overview

    if html:
        terminal.check_parent("--html", html)
    with terminal.decoding() as on_progress:
        cache = prepare(**given, on_progress=on_progress)
    found = overview(cache)
    if html:
        from analysis.data_page import write_data_page

        write_data_page(data, cache, html)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    terminal.show_overview(found, html)


@app.command()
def spaces(arch: options.Architecture = None, as_json: options.AsJson = False) -> None:
    """Show the architectures, or one's hyperparameters with their ranges, units and baseline."""
    import spaces as rooms

    if arch is None:
        rows = [{"architecture": name, "hyperparameters": str(len(rooms.load(name).knobs))} for name in rooms.names()]
    else:
        rows = rooms.describe(rooms.load(arch))
    terminal.show_rows(rows, as_json)


@app.command()
def search(
    data: options.DataOrConfig = None,
    arch: options.Arch = None,
    method: options.Method = None,
    trials: options.Trials = None,
    epochs: options.Epochs = None,
    grace_images: options.GraceImages = None,
    patience: options.Patience = None,
    time_budget: options.TimeBudget = None,
    metric: options.Metric = None,
    seed: options.Seed = None,
    name: options.Name = None,
    storage: options.StorageOrConfig = None,
    space: options.SpaceFile = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    resize: options.Resize = None,
    val_fraction: options.ValFraction = None,
    test_fraction: options.TestFraction = None,
    duplicates: options.Duplicates = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    max_concurrent: options.MaxConcurrent = None,
    address: options.Address = None,
    precision: options.Precision = None,
    checkpoint_every: options.CheckpointEvery = None,
    epoch_timeout: options.EpochTimeout = None,
    config: options.ConfigFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Search, or go on with the search of that name."""
    asked = {key: value for key, value in locals().items() if key not in ("config", "quiet")}
    asked["arch"] = tuple(arch or ())
    from cluster.naming import command_line
    from search.run import folder_of
    from search.run import search as run_search
    from search.spec import make_spec

    spec = make_spec(asked, config)
    terminal.drive_search(
        folder_of(spec),
        run_search,
        spec,
        command_line=command_line(),
        quiet=quiet,
        on_request=lambda request: terminal.show_refused(request.cache.refused, errors),
    )


app.command()(planning.asked_as(search)(planning.plan))


@app.command()
def resume(
    run: options.Run,
    trials: options.MoreTrials = None,
    time_budget: options.TimeBudget = None,
    max_concurrent: options.MaxConcurrent = None,
    address: options.Address = None,
    checkpoint_every: options.CheckpointEvery = None,
    epoch_timeout: options.EpochTimeout = None,
    storage: options.Storage = "runs",
    quiet: options.Quiet = False,
) -> None:
    """Go on after any interruption, or extend a finished search."""
    others = ("run", "trials", "storage", "quiet", "others")
    given = {key: value for key, value in locals().items() if value is not None and key not in others}
    from cluster.naming import run_argument
    from cluster.storage import find_run
    from search.extended import trials_wanted
    from search.run import resume as run_resume

    folder = find_run(run, storage)
    trials = trials_wanted(folder, trials)  # now: a driver that starts again must not add them again
    asked = {"trials": trials, **given}  # it may be interrupted before that is kept
    go_on = f"convscout resume {run_argument(folder)}{''.join(_option(*each) for each in asked.items())}"
    terminal.drive_search(folder, run_resume, folder, go_on=go_on, trials=trials, overrides=given, quiet=quiet)


@app.command()
def rescue(
    run: options.Run,
    trial: options.Trial,
    address: options.Address = None,
    storage: options.Storage = "runs",
    quiet: options.Quiet = False,
) -> None:
    """Train a trial that was stopped early to the end, and enter it in the leaderboard."""
    from cluster.naming import run_argument
    from cluster.storage import find_run
    from search.rescue import rescue as run_rescue

    folder = find_run(run, storage)
    go_on = f"convscout rescue {run_argument(folder)} {trial}{_at(address)}"
    terminal.drive_search(folder, run_rescue, folder, trial, go_on=go_on, address=address, quiet=quiet)


def _option(name: str, value: object) -> str:
    """Return an option as it is typed, nothing without a value."""
    return "" if value is None else f" --{name.replace('_', '-')} {shlex.quote(str(value))}"


def _at(address: str | None) -> str:
    """Return the option of a command that goes on at an address: it is kept only once a cluster has answered there."""
    return _option("address", address)


@app.command()
def stop(run: options.Run, storage: options.Storage = "runs") -> None:
    """Stop a running experiment gently, as Ctrl-C would."""
    from cluster.ledger import LEDGER
    from cluster.lock import holder
    from cluster.naming import run_argument
    from cluster.storage import find_run

    folder = find_run(run, storage, not_begun=True)
    pid = holder(folder)
    if pid is None:
        say(f"{folder.name} is not running.")
        return
    os.kill(pid, signal.SIGINT)
    go_on = f"`convscout resume {run_argument(folder)}` goes on"
    say(f"Asked process {pid} to stop; {go_on if (folder / LEDGER).exists() else 'nothing has been trained yet'}.")


@app.command()
def analyze(
    run: options.Run,
    finalists: options.Finalists = 3,
    seeds: options.Seeds = 3,
    folds: options.Folds = 0,
    ablate: options.Ablate = None,
    retrain_workers: options.RetrainWorkers = 1,
    reopen_test: options.ReopenTest = False,
    address: options.Address = None,
    storage: options.Storage = "runs",
    quiet: options.Quiet = False,
) -> None:
    """Retrain the best and the baselines, choose the epochs, test once, write the report and the model."""
    from cluster.naming import command_line
    from cluster.storage import find_run

    folder = find_run(run, storage)

    def work(lock: "Lock") -> None:
        from analysis.protocol import REPORT
        from analysis.protocol import analyze as run_analysis
        from analysis.summary import sentences
        from cluster.mirror import MODEL

        found = run_analysis(
            folder,
            lock=lock,
            finalists=finalists,
            seeds=seeds,
            folds=folds,
            ablate=ablate or (),
            retrain_workers=retrain_workers,
            reopen_test=reopen_test,
            address=address,
            quiet=quiet,
            tell=terminal.tell,
        )
        for sentence in sentences(found):
            say(sentence)
        say(f"Report: {folder / REPORT}\nModel:  {folder / MODEL}")

    terminal.driven(folder, work, go_on=command_line())


@app.command()
def reproduce(
    run: options.Run,
    trial: options.Trial,
    address: options.Address = None,
    storage: options.Storage = "runs",
    quiet: options.Quiet = False,
) -> None:
    """Train a trial again and compare it epoch by epoch; exit with 1 if any bit differs."""
    from cluster.naming import command_line
    from cluster.storage import find_run

    folder = find_run(run, storage)

    def work(lock: "Lock") -> None:
        from analysis.reproduce import reproduce as run_again

        found = run_again(folder, trial, lock=lock, address=address, quiet=quiet, tell=terminal.tell)
        terminal.show_reproduction(found)
        if not found.equal:
            raise typer.Exit(1)

    terminal.driven(folder, work, go_on=command_line())


for command in (looking.runs, looking.show, looking.report, looking.tensorboard):
    app.command()(command)
app.command()(delivery.predict)
app.command()(delivery.export)
app.command()(submitting.submit)
app.command()(checkup.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and exit with its code."""
    sys.exit(terminal.exit_code(lambda: app(arguments)))


if __name__ == "__main__":
    main()

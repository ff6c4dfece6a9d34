"""The front door: one thin command per verb. Everything heavy is imported inside the command that needs it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import terminal
from foundation import RequestError
from terminal import errors, say

app = typer.Typer(
    name="convscout",
    help="Find good hyperparameters for image classifiers, and say honestly what was found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Data = Annotated[str, typer.Argument(help="A folder, zip, tar or CSV of images, or digits, cifar10, mnist, ...")]
Run = Annotated[str, typer.Argument(help="An experiment: its name in --storage, or its folder")]
Storage = Annotated[str, typer.Option(help="The folder that holds the experiments")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No live table")]


@app.command()
def data(
    data: Data,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels, 28 to 224")] = None,
    resize: Annotated[str, typer.Option(help="squash, or crop to the centre square")] = "squash",
    val_fraction: Annotated[float, typer.Option(help="Held out of training, unless DATA has val/")] = 0.15,
    test_fraction: Annotated[float, typer.Option(help="Held out for the test, unless DATA has test/")] = 0.2,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of every class as a PNG")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in DATA: classes, counts, sizes, refused files, duplicates across splits."""
    from dataclasses import asdict

    from trainables.cache import prepare
    from trainables.overview import contact_sheet, overview

    if sheet:
        terminal.check_parent("--sheet", sheet)
    with terminal.decoding() as on_progress:
        cache = prepare(
            data,
            image_size=image_size,
            resize=resize,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            on_progress=on_progress,
        )
    found = overview(cache)
    if sheet:
        contact_sheet(cache, sheet)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    terminal.show_overview(found)
    if sheet:
        say(f"Contact sheet: {sheet}")


@app.command()
def spaces(
    arch: Annotated[str | None, typer.Argument(help="An architecture, or the path of one of your own")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the architectures, or one's hyperparameters with their ranges, units and baseline."""
    import spaces as rooms

    if arch is None:
        rows = [{"architecture": name, "hyperparameters": str(len(rooms.load(name).knobs))} for name in rooms.names()]
    else:
        rows = rooms.describe(rooms.load(arch))
    terminal.show_rows(rows, as_json)


@app.command()
def search(
    data: Annotated[str | None, typer.Argument(help="As for `convscout data`; may stand in --config instead")] = None,
    arch: Annotated[list[str] | None, typer.Option(help="Architecture, or a .py file of your own (repeatable)")] = None,
    method: Annotated[str | None, typer.Option(help="random, grid, asha, tpe or tpe_asha (default)")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all, dealt out evenly (default 20)")] = None,
    epochs: Annotated[int | None, typer.Option(help="The most epochs of a trial (default 20)")] = None,
    patience: Annotated[
        int | None, typer.Option(help="End a trial after so many epochs without lower val_loss")
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Such as 90s, 10m, 1h30m; over all resumes")] = None,
    metric: Annotated[str | None, typer.Option(help="val_accuracy (default), val_loss, ...")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the proposals and the trainings (default 0)")] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment (default: from DATA)")] = None,
    storage: Annotated[str | None, typer.Option(help="The folder that holds the experiments (default runs)")] = None,
    space: Annotated[str | None, typer.Option(help="YAML file that narrows, widens or fixes hyperparameters")] = None,
    weights: Annotated[str | None, typer.Option(help="Pretrained weights of transfer models: a file, or none")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels, 28 to 224")] = None,
    resize: Annotated[str | None, typer.Option(help="squash (default), or crop to the centre square")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Held out of training (default 0.15)")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="Held out for the test (default 0.2)")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPU cores of a trial")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a trial, or a share of one")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="The most trials side by side")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster (default: this machine)")] = None,
    precision: Annotated[str | None, typer.Option(help="auto (default: measured), fp32 or bf16")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file with these options as keys")] = None,
    quiet: Quiet = False,
) -> None:
    """Search, or go on with the search of that name."""
    options = {key: value for key, value in locals().items() if key not in ("config", "quiet")}
    options["arch"] = tuple(arch or ())
    from search.request import default_architectures
    from search.run import search as run_search
    from search.spec import make_spec

    spec = make_spec(options, config)
    if not spec.arch and (left_out := default_architectures()[1]):
        say(f"Left out, their pretrained weights are not at hand (see --weights): {', '.join(left_out)}", errors)
    with terminal.decoding() as on_decoded:
        outcome = run_search(
            spec,
            command_line=shlex.join(sys.argv),
            quiet=quiet,
            on_decoded=on_decoded,
            on_request=lambda request: terminal.show_refused(request.cache.refused, errors),
        )
    terminal.finish(outcome.folder, outcome.interrupted)


@app.command()
def resume(
    run: Run,
    trials: Annotated[str | None, typer.Option(help="+20 for twenty more, 60 for sixty in all")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Such as 1h, over all resumes together")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="The most trials side by side")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster (default: as before)")] = None,
    storage: Storage = "runs",
    quiet: Quiet = False,
) -> None:
    """Go on after any interruption, or extend a finished search."""
    from cluster.storage import find_run
    from search.run import resume as run_resume

    overrides = {"time_budget": time_budget, "max_concurrent": max_concurrent, "address": address}
    given = {key: value for key, value in overrides.items() if value is not None}
    folder = find_run(run, storage)
    with terminal.decoding() as on_decoded:
        outcome = run_resume(folder, trials=trials, overrides=given, quiet=quiet, on_decoded=on_decoded)
    terminal.finish(folder, outcome.interrupted)


@app.command()
def runs(storage: Storage = "runs", as_json: AsJson = False) -> None:
    """List the experiments there are."""
    from cluster.ledger import read_history
    from cluster.storage import list_runs
    from cluster.table import run_row

    terminal.show_rows([run_row(folder.name, read_history(folder)) for folder in list_runs(storage)], as_json)


@app.command()
def show(run: Run, storage: Storage = "runs", as_json: AsJson = False) -> None:
    """Show the leaderboard of an experiment and what happened to each trial."""
    from cluster.storage import find_run, read_experiment

    folder = find_run(run, storage)
    metric = read_experiment(folder)["spec"]["metric"]
    if as_json:
        print(json.dumps(terminal.leaderboard(folder, metric), indent=1))
    else:
        terminal.show_leaderboard(folder, metric)


@app.command()
def stop(run: Run, storage: Storage = "runs") -> None:
    """Stop a running experiment gently, as Ctrl-C would."""
    from cluster.ledger import holder
    from cluster.storage import find_run, run_argument

    folder = find_run(run, storage)
    pid = holder(folder)
    if pid is None:
        say(f"{folder.name} is not running.")
        return
    os.kill(pid, signal.SIGINT)
    say(f"Asked process {pid} to stop; `convscout resume {run_argument(folder)}` goes on.")


@app.command()
def analyze(
    run: Run,
    seeds: Annotated[int, typer.Option(help="Runs of each contender, each with a fresh seed")] = 3,
    reopen_test: Annotated[bool, typer.Option(help="Open the test images again for other models")] = False,
    storage: Storage = "runs",
    quiet: Quiet = False,
) -> None:
    """Retrain the best configuration and its baseline, choose the epochs, test once, write the report and the model."""
    from analysis.experiment import MODEL
    from analysis.protocol import REPORT
    from analysis.protocol import analyze as run_analysis
    from analysis.summary import sentences
    from cluster.storage import find_run

    folder = find_run(run, storage)
    try:
        found = run_analysis(folder, seeds=seeds, reopen_test=reopen_test, quiet=quiet)
    except KeyboardInterrupt:
        say(f"Interrupted. Go on with: {shlex.join(sys.argv)}", errors)
        raise
    for sentence in sentences(found):
        say(sentence)
    say(f"Report: {folder / REPORT}\nModel:  {folder / MODEL}")


@app.command()
def report(run: Run, storage: Storage = "runs") -> None:
    """Draw the report again from analysis.json."""
    from analysis.protocol import REPORT, read_analysis
    from analysis.report import write_report
    from cluster.storage import find_run

    folder = find_run(run, storage)
    write_report(read_analysis(folder), folder / REPORT)
    say(str(folder / REPORT))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder, or an analysed experiment")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them")],
    csv: Annotated[Path | None, typer.Option(help="Write the table with every class's probability to a file")] = None,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Classify images: class and probability of each."""
    from dataclasses import asdict

    from analysis.deploy import load_model, write_predictions_csv
    from analysis.experiment import model_folder

    if csv:
        terminal.check_parent("--csv", csv)
    predictions = load_model(model_folder(model, storage)).predict(images)
    if csv:
        write_predictions_csv(predictions, csv)
    if as_json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=1))
    else:
        terminal.show_predictions(predictions)
    if unread := sum(each.error is not None for each in predictions):
        say(f"{unread} of {len(predictions)} files could not be read.", errors)
        if unread == len(predictions):
            raise typer.Exit(1)


@app.command()
def tensorboard(
    run: Run,
    storage: Storage = "runs",
    port: Annotated[int, typer.Option(help="Port on this machine")] = 6006,
) -> None:
    """Open TensorBoard on an experiment, while it runs or later."""
    from cluster.storage import find_run
    from cluster.tensorboard import tensorboard_command

    command = [*tensorboard_command(find_run(run, storage)), "--port", str(port)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line; exit with 0 done, 1 failed, 2 the request was wrong, 130 interrupted."""
    try:
        app(arguments)
    except RequestError as error:
        for problem in error.problems:
            say(f"error: {problem}", errors)
        sys.exit(2)
    except OSError as error:
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}", errors)
        sys.exit(1)


if __name__ == "__main__":
    main()

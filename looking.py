"""The commands that look at experiments and change nothing in them; the front door lists them."""

import json

import typer

import options
import terminal


def runs(storage: options.Storage = "runs", as_json: options.AsJson = False) -> None:
    """List the experiments there are."""
    from cluster.ledger import read_history
    from cluster.storage import list_runs
    from cluster.table import run_row

    terminal.show_rows([run_row(folder.name, read_history(folder)) for folder in list_runs(storage)], as_json)


def show(run: options.Run, storage: options.Storage = "runs", as_json: options.AsJson = False) -> None:
    """Show the leaderboard of an experiment and what happened to each trial."""
    from cluster.storage import find_run, read_experiment

    folder = find_run(run, storage)
    metric = read_experiment(folder)["spec"]["metric"]
    if as_json:
        print(json.dumps(terminal.leaderboard(folder, metric), indent=1))
    else:
        terminal.show_leaderboard(folder, metric)


def report(run: options.Run, storage: options.Storage = "runs") -> None:
    """Draw the report again from analysis.json."""
    from analysis.protocol import REPORT, read_analysis
    from analysis.report import write_report
    from cluster.mirror import store_file
    from cluster.storage import find_run

    folder = find_run(run, storage)
    write_report(read_analysis(folder), folder / REPORT)
    store_file(folder / REPORT, folder)
    terminal.say(str(folder / REPORT))


def tensorboard(run: options.Run, storage: options.Storage = "runs", port: options.Port = 6006) -> None:
    """Open TensorBoard on an experiment, while it runs or later."""
    from cluster.storage import find_run
    from cluster.tensorboard import show_tensorboard

    raise typer.Exit(show_tensorboard(find_run(run, storage), port))

"""trials.csv: a row per trial that a spreadsheet can open without running anything."""

import csv
from pathlib import Path

from observed_run import ObservedRun

from cluster.table import write_trials_csv


def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    run = ObservedRun()
    trial = run.begin("=HYPERLINK(1)", activation="@SUM(1)", shift=-0.5)
    run.epoch(trial, 0.5)
    run.end(trial, "infeasible", error="+cmd|' /C calc'!A0")
    write_trials_csv(tmp_path / "trials.csv", run.history.trials.values(), "val_accuracy")
    with open(tmp_path / "trials.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["architecture"] == "'=HYPERLINK(1)"
    assert row["config/activation"] == "'@SUM(1)"
    assert row["error"] == "'+cmd|' /C calc'!A0"
    assert (row["config/shift"], row["val_accuracy"]) == ("-0.5", "0.5")

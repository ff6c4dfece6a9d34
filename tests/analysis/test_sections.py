import copy
from typing import Any

import pytest
from example_analysis import BASELINE, CLASSES, EPOCHS, TUNED, example_analysis

from analysis.page import Failed, HeatMap, NotYet, Plot, Section, Table
from analysis.sections import LEADERBOARD_ROWS, SECTIONS, build_sections


@pytest.fixture
def one_seed() -> dict[str, Any]:
    return example_analysis(n_seeds=1)


def ready(analysis: dict[str, Any], title: str) -> Section:
    content = SECTIONS[title](analysis)
    assert isinstance(content, Section), content
    return content


def test_every_section_of_a_whole_analysis_is_ready(analysis: dict[str, Any]) -> None:
    assert {content.kind for content in build_sections(analysis).values()} == {"ready"}


def test_every_figure_says_what_it_shows(analysis: dict[str, Any]) -> None:
    for content in build_sections(analysis).values():
        assert isinstance(content, Section)
        assert all(figure.sentence.endswith(".") for figure in content.figures)


@pytest.mark.parametrize(
    "missing", ["contenders", "chosen", "search", "tests_opened", "comparisons", "worst", "learned"]
)
def test_a_missing_part_breaks_no_section(analysis: dict[str, Any], missing: str) -> None:
    del analysis[missing]
    assert "failed" not in {content.kind for content in build_sections(analysis).values()}


def test_every_trial_failed(analysis: dict[str, Any]) -> None:
    for trial in analysis["search"]["trials"]:
        trial.update(status="diverged", val_loss=None, val_accuracy=None, epochs_run=0, n_params=None, seconds=0.0)
        trial.update(ended_by="diverged", rung=0, stop_reason=None)
    analysis["search"].update(by_status={"diverged": 40}, rungs=[])
    for part in ("contenders", "chosen", "tests_opened", "comparisons", "worst"):
        del analysis[part]
    assert "failed" not in {content.kind for content in build_sections(analysis).values()}
    sentences = ready(analysis, "Summary").sentences
    assert "No trial of the search finished an epoch." in sentences
    assert "There are no test figures: the analysis has not been run to its end." in sentences
    assert "No model ships yet: the choice has not been written down." in sentences


def test_interrupted_before_the_test(analysis: dict[str, Any]) -> None:
    for contender in analysis["contenders"]:
        del contender["test"], contender["first_test"], contender["finals"]
    del analysis["comparisons"], analysis["worst"]
    sections = build_sections(analysis)
    for title in ("Test figures", "Confusion matrix", "ROC curves"):
        content = sections[title]
        assert isinstance(content, NotYet)
        assert "the test split has not been opened" in content.reason
    assert sections["Learning curves"].kind == sections["Configuration"].kind == "ready"


def test_reasons_name_the_command_that_helps(analysis: dict[str, Any]) -> None:
    del analysis["chosen"]
    content = SECTIONS["Confusion matrix"](analysis)
    assert isinstance(content, NotYet)
    assert content.reason.startswith("no model has been chosen to ship; `convscout analyze`")
    del analysis["contenders"]
    content = SECTIONS["Configuration"](analysis)
    assert isinstance(content, NotYet)
    assert "`convscout analyze`" in content.reason
    assert SECTIONS["Leaderboard"]({"search": {}}) == NotYet("no trial of the search has ended yet")


def test_a_section_that_raises_is_shown_and_the_others_come(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["counts"] = {"train": "many"}
    sections = build_sections(analysis)
    assert isinstance(sections["Data and provenance"], Failed)
    assert "AttributeError" in sections["Data and provenance"].reason
    assert sections["Leaderboard"].kind == "ready"


def test_summary_says_result_comparison_epochs_and_model(analysis: dict[str, Any]) -> None:
    tuned = analysis["contenders"][0]["test"]["accuracy"]
    tuned.update(mean=0.712, low=0.700, high=0.724)
    sentences = ready(analysis, "Summary").sentences
    assert sentences[0] == (
        "Test accuracy 71.2 % (3 runs, 95 % interval 70.0 to 72.4 %) on 1,000 test images, with cnn trial 3."
    )
    assert sentences[1].startswith("Did tuning help? cnn trial 3 is better than cnn baseline by ")
    assert (
        "How the trials ended: 12 completed, 26 stopped, 1 diverged and 1 out of memory; 3 impossible configurations "
        "and 1 configuration too slow for what was left of the time budget drawn again." in sentences
    )
    epochs = [sentence for sentence in sentences if sentence.startswith("Epochs, ")]
    assert len(epochs) == 1
    assert epochs[0].startswith("Epochs, cnn trial 3: ")
    assert sentences[-1].startswith("The model that ships: trial 46 (cnn trial 3, seed 101): its mean validation")
    assert sentences[-1].endswith("the test split was opened once, after that choice.")
    assert len(sentences) <= 10


def test_the_summary_answers_whether_tuning_helped_where_the_baseline_was_chosen(analysis: dict[str, Any]) -> None:
    other = copy.deepcopy(analysis["contenders"][1]) | {"name": "vgg11 baseline", "architecture": "vgg11"}
    analysis["contenders"].append(other)
    row = analysis["comparisons"]["configurations"][0] | {"first": "cnn baseline"}
    of_tuning, of_another = row | {"second": "cnn trial 3"}, row | {"second": "vgg11 baseline"}
    analysis["comparisons"]["configurations"] = [of_another, of_tuning]
    analysis["chosen"]["contender"] = "cnn baseline"
    sentences = ready(analysis, "Summary").sentences
    assert sentences[1].startswith("Did tuning help? ")
    assert not sentences[2].startswith("Did tuning help? ")


def test_the_summary_compares_with_the_own_baseline_first_and_asks_of_tuning_only_then(
    analysis: dict[str, Any],
) -> None:
    other = copy.deepcopy(analysis["contenders"][1]) | {"name": "vgg11 baseline", "architecture": "vgg11"}
    analysis["contenders"].append(other)
    row = analysis["comparisons"]["configurations"][0]
    other_row = row | {"second": "vgg11 baseline", "sentence": "no evidence that they differ"}
    analysis["comparisons"]["configurations"] = [other_row, row]
    sentences = ready(analysis, "Summary").sentences
    assert sentences[1].startswith("Did tuning help? ")
    assert sentences[2] == "No evidence that they differ."


def test_the_comparison_lists_every_pair_with_what_could_have_been_found(analysis: dict[str, Any]) -> None:
    section = ready(analysis, "Comparison")
    row = analysis["comparisons"]["configurations"][0]
    (shown,) = section.tables[0].rows
    assert shown[:3] == ("cnn trial 3", "cnn baseline", f"{100 * row['difference']:+.1f} points")
    assert shown[5] == f"{100 * row['detectable']:.1f} points"
    assert section.tables[0].marked == ({0} if row["found"] else set())
    row["detectable"] = 1.0
    assert ready(analysis, "Comparison").tables[0].rows[0][5] == "none"
    assert section.sentences[0].endswith("of 1.0 points; for it cnn trial 3 and cnn baseline cannot be told apart.")
    analysis["alike"]["group"] = [TUNED]
    said = ready(analysis, "Comparison").sentences[0]
    assert said.endswith("; cnn trial 3 stands out from all others by more than that explains.")
    analysis["comparisons"] = {"configurations": [], "models": []}
    assert SECTIONS["Comparison"](analysis) == NotYet("there was no other contender to compare with")
    del analysis["comparisons"]
    assert isinstance(SECTIONS["Comparison"](analysis), NotYet)


def test_one_seed_each_is_compared_without_a_claim(one_seed: dict[str, Any]) -> None:
    shown = ready(one_seed, "Comparison").tables[0].rows[0]
    assert shown[3:6] == ("–", "–", "–")
    assert "raise --seeds" in ready(one_seed, "Summary").sentences[1]


def test_calibration_says_whether_the_model_is_too_sure(analysis: dict[str, Any]) -> None:
    figures = analysis["contenders"][0]["first_test"]
    figures["reliability"] = [
        {"confidence": 0.9, "accuracy": 0.5, "n": 600},
        {"confidence": 0.4, "accuracy": 0.4, "n": 400},
    ]
    figures.update(accuracy=0.46, calibration_error=0.24)
    section = ready(analysis, "Calibration")
    assert (
        "70.0 % sure of its answers, and right in 46.0 %: 24.0 points surer than it is right." in section.sentences[0]
    )
    assert section.tables[0].rows == (("90.0 %", "50.0 %", "600"), ("40.0 %", "40.0 %", "400"))


def test_the_worst_mistakes_are_shown_as_images(analysis: dict[str, Any]) -> None:
    pictures = ready(analysis, "Worst mistakes").pictures
    assert len(pictures) == 5
    assert all(picture.uri.startswith("data:image/png;base64,") for picture in pictures)
    first = analysis["worst"][0]
    assert (
        pictures[0].caption
        == f"{first['true']}, taken for {first['predicted']} ({100 * first['probability']:.1f}\u00a0%)"
    )
    analysis["worst"] = []
    assert SECTIONS["Worst mistakes"](analysis) == NotYet("the shipped model made no mistake on the test images")


def test_a_test_split_opened_twice_is_said(analysis: dict[str, Any]) -> None:
    analysis["tests_opened"] = 2
    sentences = ready(analysis, "Summary").sentences
    assert any("was opened 2 times" in sentence for sentence in sentences)
    assert not any("opened once" in sentence for sentence in sentences)


def test_curves_have_every_seed_the_mean_and_the_chosen_epoch(analysis: dict[str, Any]) -> None:
    section = ready(analysis, "Learning curves")
    assert len(section.figures) == 4
    plot = section.figures[0]
    assert isinstance(plot, Plot)
    assert plot.title == "cnn trial 3: loss"
    assert plot.mark == analysis["contenders"][0]["epochs"]["epochs"]
    assert [line.faint for line in plot.lines] == [True, True, True, False] * 2
    losses = [run["val_loss"] for run in analysis["contenders"][0]["curves"]]
    assert plot.lines[-1].y == pytest.approx([sum(epoch) / 3 for epoch in zip(*losses, strict=True)])
    assert plot.lines[-1].x == tuple(range(1, EPOCHS + 1))
    below = section.figures[2]
    assert isinstance(below, Plot)
    assert below.title.endswith(": loss"), "a contender's loss and accuracy stand side by side, the next one's below"
    assert plot.y_range == below.y_range


def test_a_diverged_seed_is_drawn_but_not_averaged(analysis: dict[str, Any]) -> None:
    run = analysis["contenders"][0]["curves"][1]
    run.update(status="diverged", val_loss=[2.0, None], train_loss=[2.1, None])
    section = ready(analysis, "Learning curves")
    assert "Left out of the mean: seed 12 diverged." in section.sentences[0]
    plot = section.figures[0]
    assert isinstance(plot, Plot)
    assert "validation, mean of 2 runs" in [line.name for line in plot.lines]
    assert (2.0, None) in [line.y for line in plot.lines]


def test_all_seeds_diverged(analysis: dict[str, Any]) -> None:
    contender = analysis["contenders"][1]
    contender.update(epochs=None, validation=None)
    for run in contender["curves"]:
        run.update(status="diverged", val_loss=[None], train_loss=[None])
    section = ready(analysis, "Learning curves")
    assert section.sentences[1].startswith("cnn baseline: no number of epochs could be chosen.")


def test_leaderboard(analysis: dict[str, Any]) -> None:
    table = ready(analysis, "Leaderboard").tables[0]
    first, last = (dict(zip(table.header, table.rows[row], strict=True)) for row in (0, -1))
    assert (first["rank"], first["trial"], first["epochs"], first["val_accuracy"]) == ("1", "3", "30 of 30", "83.5 %")
    assert first["parameters"] == "1,234,567"
    assert (last["status"], last["val_loss"]) == ("out_of_memory", "–")
    assert last["why it ended"] == "CUDA out of memory: 2 attempts failed"
    rungs = [int(row[table.header.index("rung")]) for row in table.rows]
    assert rungs[:38] == sorted(rungs[:38], reverse=True)
    assert rungs[0] == EPOCHS
    assert len(table.rows) == 40


def test_a_long_leaderboard_and_a_long_error_are_cut(analysis: dict[str, Any]) -> None:
    trials = analysis["search"]["trials"]
    trials[0].update(stop_reason=None, error="x" * 500 + "\nTraceback")
    analysis["search"]["trials"] = trials * 5
    section = ready(analysis, "Leaderboard")
    assert len(section.tables[0].rows) == LEADERBOARD_ROWS
    assert section.tables[0].rows[0][-1] == "x" * 119 + "…"
    assert "The best 100 of 200 trials; all of them are in trials.csv." in section.sentences


def test_test_figures_have_interval_and_n(analysis: dict[str, Any]) -> None:
    analysis["contenders"][0]["test"]["accuracy"] = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    analysis["contenders"][1]["test"]["auc"] = None
    figures, per_class = ready(analysis, "Test figures").tables
    assert figures.rows[0] == ("accuracy", TUNED, "50.0 %", "40.0 to 60.0 %", "3")
    assert [row[:2] for row in figures.rows[2:4]] == [("top-5 accuracy", TUNED), ("top-5 accuracy", BASELINE)]
    assert [row[1] for row in figures.rows if row[0] == "AUC"] == [TUNED]
    assert [row[0] for row in per_class.rows] == list(CLASSES)
    assert {row[-1] for row in per_class.rows} == {"100"}


def test_confusion_matrix_and_its_largest_mistakes(analysis: dict[str, Any]) -> None:
    counts = [[0] * len(CLASSES) for _ in CLASSES]
    counts[0][0], counts[0][1], counts[2][3], counts[3][3] = 6, 2, 5, 7
    analysis["contenders"][0]["first_test"]["confusion"] = counts
    section = ready(analysis, "Confusion matrix")
    heat_map = section.figures[0]
    assert isinstance(heat_map, HeatMap)
    assert heat_map.shares[0][:2] == (0.75, 0.25)
    assert heat_map.shares[9] == (0.0,) * 10
    assert section.tables[0].rows == (
        ("cat & dog", "deer", "5", "100.0 %"),
        ("aeroplane", "<b>bird</b>", "2", "25.0 %"),
    )
    assert section.sentences[0] == "The shipped model (1 run) is wrong on 7 of 20 test images."


def test_roc_shows_the_mean_and_the_worst_classes(analysis: dict[str, Any]) -> None:
    section = ready(analysis, "ROC curves")
    plot = section.figures[0]
    assert isinstance(plot, Plot)
    assert len(plot.lines) == 1 + 8 + 1
    curves = analysis["contenders"][0]["first_test"]["roc"]
    worst = min(curves, key=lambda curve: curve["auc"])
    assert plot.lines[1].name == f"{worst['class']}, AUC {worst['auc']:.3f}"
    assert (plot.lines[0].y[0], plot.lines[0].y[-1]) == (0.0, pytest.approx(1.0))
    assert "the mean over all 10 classes and the 8 classes with the lowest AUC" in section.sentences[0]


def test_configuration_marks_what_differs(analysis: dict[str, Any]) -> None:
    analysis["contenders"][0]["config"] = {"learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.9}
    analysis["contenders"][1]["config"] = {"learning_rate": 0.01, "optimizer": "adam"}
    table = ready(analysis, "Configuration").tables[0]
    assert [row[0] for row in table.rows] == ["architecture", "learning_rate", "optimizer", "momentum"]
    assert table.marked == {2, 3}
    assert table.rows[3] == ("momentum", "0.9", "–")


def test_provenance_counts_and_refusals(analysis: dict[str, Any]) -> None:
    analysis["experiment"]["n_refused"] = 25
    section = ready(analysis, "Data and provenance")
    images, refused, run = section.tables
    assert images.rows[0] == ("all", "1,700", "300", "1,000", "3,000")
    assert refused.rows[0] == ("cat/broken.jpg", "truncated JPEG: no end marker")
    assert ("image size", "64 x 64 pixels, 3 channel(s)") in run.rows
    assert section.sentences == ("3,000 images in 10 classes; 25 files refused, the first 2 are listed.",)


def test_columns_of_numbers_are_aligned_right() -> None:
    table = Table("", ("a", "b", "c", "d"), (("1,200", "-0.5", "cat", "3e-05"), ("91.2 %", "–", "7", "12 min")))
    assert table.numeric == (True, True, False, True)
    assert Table("", ("a",), ()).numeric == (False,)


def test_what_went_wrong_is_counted_and_listed(analysis: dict[str, Any]) -> None:
    section = ready(analysis, "What went wrong")
    assert section.sentences == (
        "Of 1 trial that failed, 1 diverged.",
        "Of 1 worker process that failed, 1 died; their trials went on from their last checkpoints.",
        "Rescued, so trained to the end although a rung had stopped them: trials 4.",
        "It was interrupted 1 time and went on from its ledger.",
        "Versions changed while it ran: torch was 2.9.0 and is 2.9.1.",
    )
    assert section.tables[0].rows[0] == ("7", "diverged", "epoch 2: train_loss nan")


def test_when_nothing_went_wrong_that_is_one_sentence(analysis: dict[str, Any]) -> None:
    from analysis.troubles import recorded_troubles
    from cluster.history import History

    analysis["troubles"] = recorded_troubles(History())
    section = ready(analysis, "What went wrong")
    assert (len(section.sentences), section.tables) == (1, ())
    del analysis["troubles"]
    assert isinstance(SECTIONS["What went wrong"](analysis), NotYet)


def test_copies_of_images_are_counted_and_those_across_splits_listed(analysis: dict[str, Any]) -> None:
    pair = {"path": "test/a.png", "split": "test", "other_path": "train/b.png", "other_split": "train", "exact": True}
    copies = {"within": {"train": 2, "val": 0, "test": 0}, "across_splits": 1, "left_out": 1, "pairs": [pair]}
    analysis["experiment"]["copies"] = copies
    section = ready(analysis, "Data and provenance")
    said = "Copies of other images, exact or near: 2 within train, 1 across splits (1 left out of val and test)."
    assert section.sentences[1] == said
    (table,) = [table for table in section.tables if table.title == "Copies across splits"]
    assert table.rows == (("test/a.png", "test", "train/b.png", "train"),)

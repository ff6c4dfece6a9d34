"""The whole way once, with Ray: images in, a tuned and tested classifier out; then what each step must have left."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import convscout
from analysis.deploy import load_model
from analysis.protocol import analyze, read_analysis
from cluster.connect import disconnect
from cluster.ledger import read_history, read_rows
from cluster.storage import read_experiment, trial_folder
from foundation import RequestError
from search import pacing
from search.halving import Halving
from search.run import resume, search
from search.spec import SearchSpec, make_spec
from trainables.cache import open_cache
from trainables.validated import read_correct, read_losses

SPACE = """
learning_rate: {low: 1e-3, high: 1e-2, log: true}
optimizer: [adam, adamw]
batch_size: 16
accumulation_steps: 1
schedule: [constant, cosine, plateau]
warmup_epochs: 0
cnn: {depth: [1, 2], filters: 8, dense_layers: 1, dense_units: 16, dropout: 0.2, batch_norm: true}
alexnet: {conv1_filters: 8, conv2_filters: 8, conv3_filters: 8, conv4_filters: 8, conv5_filters: 8, dense_units: 16}
"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def images(make_images: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 3 classes of stripes, with one empty and one truncated file among them."""
    folder: Path = make_images(tmp_path_factory.mktemp("whole") / "stripes", per_class=30)
    (folder / "class0" / "empty.png").touch()
    whole = (folder / "class1" / "000.png").read_bytes()
    (folder / "class1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def spec(images: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchSpec:
    folder = tmp_path_factory.mktemp("storage")
    (folder / "space.yaml").write_text(SPACE)
    return make_spec(
        {
            "data": str(images),
            "arch": ("cnn", "alexnet"),
            "method": "asha",
            "trials": 6,
            "epochs": 4,
            "grace_images": 0.5,
            "storage": str(folder),
            "space": str(folder / "space.yaml"),
            "precision": "fp32",
        }
    )


@pytest.fixture(scope="module")
def searched(spec: SearchSpec) -> Iterator[Path]:
    """Return the folder of an experiment that was searched, and afterwards extended by two trials."""
    outcome = search(spec, command_line="a test", quiet=True)
    assert not outcome.interrupted
    assert len(read_history(outcome.folder).trials) == 6
    resume(outcome.folder, trials="+2", quiet=True)
    yield outcome.folder
    disconnect()


@pytest.fixture(scope="module")
def analysed(searched: Path) -> Path:
    analyze(searched, seeds=2, quiet=True)
    return searched


def rows_of(folder: Path, event: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(folder / "ledger.jsonl") if row["event"] == event]


@pytest.mark.usefixtures("searched")  # its images are decoded, and Ray runs
def test_a_plan_of_the_same_request_says_what_comes_and_leaves_nothing(
    spec: SearchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pacing, "SECONDS", 1.0)
    given = {"method": spec.method, "trials": spec.trials, "epochs": spec.epochs, "space": spec.space}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = ["plan", spec.data, "--arch", "cnn", "--arch", "alexnet", "--precision", "fp32", *options]
    with pytest.raises(SystemExit) as ended:
        convscout.main([*command, "--storage", str(tmp_path / "runs"), "--json"])
    assert ended.value.code == 0
    written = capsys.readouterr()
    assert "a few configurations are trained for half a minute" in written.err
    plan = json.loads(written.out, parse_constant=pytest.fail)  # JSON has no infinity
    assert plan["trials"] == {"cnn": 3, "alexnet": 3}
    assert plan["reached"]["cnn"] == {"1": 3.0, "3": pytest.approx(2, abs=0.5)}
    assert 6 < plan["epochs"]["low"] <= plan["epochs"]["middle"] <= plan["epochs"]["high"] <= 24
    assert 0 < plan["seconds"]["low"] <= plan["seconds"]["high"]
    assert plan["analysis"]["contenders"] == 5  # three finalists, and two baselines if none of them is one
    assert not (tmp_path / "runs").exists()


def test_every_trial_ended_once_and_both_architectures_got_an_equal_number(searched: Path) -> None:
    records = read_history(searched).of_role("search")
    assert len(records) == 8
    assert Counter(record.architecture for record in records) == {"cnn": 4, "alexnet": 4}
    assert Counter(row["trial"] for row in rows_of(searched, "ended") if row["trial"] < 8) == dict.fromkeys(range(8), 1)
    assert all(record.status in ("completed", "stopped") for record in records)
    assert all(1 <= len(record.epochs) <= 4 for record in records)


def test_trials_begin_with_half_the_images_and_what_is_retrained_does_not(analysed: Path) -> None:
    history = read_history(analysed)
    assert {str(record.work.get("grace")) for record in history.of_role("search")} == {"[1, 0.5]"}
    assert {str(record.work.get("grace")) for record in history.of_role("retrain", "final")} == {"None"}
    report = (analysed / "report.html").read_text("utf-8")
    assert "each epoch was trained on 50 % of the training images" in report


def test_the_first_trial_of_each_architecture_is_its_baseline(searched: Path) -> None:
    first = read_history(searched).of_role("search")[:2]
    assert [(record.architecture, record.method) for record in first] == [("cnn", "baseline"), ("alexnet", "baseline")]
    assert first[0].config["learning_rate"] == 0.001


def test_decisions_follow_from_the_rows_before_them(searched: Path) -> None:
    history = read_history(searched)
    halving = Halving("val_accuracy", 4)
    kept = [row for row in rows_of(searched, "decision") if history.trials[row["trial"]].role == "search"]
    assert len(kept) >= 8  # the first rung alone gives one a trial
    for row in kept:
        record = history.trials[row["trial"]]
        again = halving.decide(history, record, record.epochs[row["epoch"] - 1])
        assert again is not None
        assert (again.sentence, again.stop) == (row["sentence"], row["decision"] == "stop")


def test_the_refused_files_are_named_with_their_reasons_and_the_rest_is_used(searched: Path, images: Path) -> None:
    analysis_cache = json.loads((Path(read_experiment(searched)["data"]["cache"]) / "manifest.json").read_text())
    assert {entry["path"] for entry in analysis_cache["refused"]} == {"class0/empty.png", "class1/cut.png"}
    assert analysis_cache["n_images"] == 90


def test_trials_csv_has_a_row_per_trial_with_its_configuration(searched: Path) -> None:
    with open(searched / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 8
    assert rows[0]["config/learning_rate"] == "0.001"
    assert int(rows[0]["n_params"]) > 100
    assert {"trial", "architecture", "status", "best_epoch", "val_loss", "images_per_second", "seed"} <= set(rows[0])


def test_the_same_request_has_nothing_left_to_do_and_another_one_is_refused(spec: SearchSpec, searched: Path) -> None:
    before = len(read_history(searched).trials)
    assert search(spec, quiet=True).folder == searched
    assert len(read_history(searched).trials) == before
    with pytest.raises(RequestError) as caught:
        search(spec.model_copy(update={"epochs": 9, "seed": 4}), quiet=True)
    assert "asked for something else" in caught.value.problems[0]
    assert caught.value.problems[1:] == (
        "epochs: the experiment has 4, now asked 9",
        "seed: the experiment has 0, now asked 4",
    )


def test_tensorboard_has_loss_for_train_and_val_under_one_tag(searched: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run in ("train", "val"):
        events = EventAccumulator(str(searched / "trials" / "0000" / run))
        events.Reload()
        assert {"loss", "accuracy"} <= set(events.Tags()["scalars"])
        assert len(events.Scalars("loss")) == len(read_history(searched).trials[0].epochs)


def test_contenders_are_retrained_with_fresh_seeds_and_the_final_training_takes_the_chosen_epochs(
    analysed: Path,
) -> None:
    history, analysis = read_history(analysed), read_analysis(analysed)
    used = {record.seed for record in history.of_role("search")}
    for contender in analysis["contenders"]:
        assert len(contender["curves"]) == len(contender["finals"]) == 2
        assert not used & {curve["seed"] for curve in contender["curves"]}
        assert all(len(curve["val_loss"]) == 4 for curve in contender["curves"])
        for final in contender["finals"]:
            record = history.trials[final["trial"]]
            assert len(record.epochs) == contender["epochs"]["epochs"]
            assert record.epochs[0]["val_loss"] is None


def test_finals_replay_the_learning_rates_of_their_retraining(analysed: Path) -> None:
    history = read_history(analysed)
    for record in history.of_role("final"):
        rates = [row["learning_rate"] for row in record.epochs]
        of_run = record.work["learning_rates"][: len(rates)]
        if record.config["schedule"] in ("constant", "plateau"):
            assert rates == pytest.approx(of_run)
        else:  # the last step of an epoch lies a little later when an epoch has more steps
            assert rates == pytest.approx(of_run, rel=0.35, abs=1e-4)


def test_every_trial_keeps_which_validation_images_were_right_and_a_retraining_their_losses(analysed: Path) -> None:
    history = read_history(analysed)
    n_val = len(open_cache(Path(read_experiment(analysed)["data"]["cache"])).indices("val"))
    for record in history.of_role("search", "retrain"):
        correct = read_correct(trial_folder(analysed, record.trial), len(record.epochs), n_val)
        assert correct is not None
        assert correct.mean(axis=1) == pytest.approx([row["val_accuracy"] for row in record.epochs])
        losses = read_losses(trial_folder(analysed, record.trial), len(record.epochs), n_val)
        if record.role == "search":
            assert losses is None
        else:
            assert losses is not None
            assert losses.mean(axis=1) == pytest.approx([row["val_loss"] for row in record.epochs], rel=1e-5)


def test_the_contenders_are_the_best_three_and_every_baseline(analysed: Path) -> None:
    names = [row["name"] for row in read_analysis(analysed)["contenders"]]
    best = read_analysis(analysed)["search"]["trials"][:3]
    assert [int(name.split()[-1]) for name in names if "trial" in name] == [
        row["trial"] for row in best if row["trial"] > 1
    ]
    assert {"cnn baseline", "alexnet baseline"} <= set(names)


def test_the_choice_is_written_before_the_test_split_is_opened_once(analysed: Path) -> None:
    chosen, opened = rows_of(analysed, "chosen"), rows_of(analysed, "test_opened")
    assert len(chosen) == len(opened) == 1
    assert chosen[0]["seq"] < opened[0]["seq"]
    last_final = max(row["seq"] for row in rows_of(analysed, "ended"))
    assert last_final < chosen[0]["seq"]
    analysis = read_analysis(analysed)
    best = max(analysis["contenders"], key=lambda each: each["validation"]["val_accuracy"]["mean"])
    assert analysis["chosen"]["contender"] == best["name"]


def test_analysing_again_changes_nothing_and_leaves_the_test_split_closed(analysed: Path) -> None:
    before = read_analysis(analysed)
    (analysed / "analysis.json").unlink()  # the ledger and what the models said are enough
    analyze(analysed, seeds=2, quiet=True)
    assert read_analysis(analysed) == before
    assert len(rows_of(analysed, "test_opened")) == 1


@pytest.mark.parametrize("less", [{"finalists": 1, "seeds": 2}, {"seeds": 1}])
def test_fewer_models_than_before_are_others_for_the_test_split(analysed: Path, less: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="opened before, for other models"):
        analyze(analysed, **less, quiet=True)
    assert len(rows_of(analysed, "test_opened")) == 1


def test_folds_leave_no_images_to_ablate_on(analysed: Path) -> None:
    with pytest.raises(RequestError, match="ask for one of them"):
        analyze(analysed, seeds=2, folds=2, ablate=("optimizer",), quiet=True)


def test_the_test_figures_say_their_n(analysed: Path) -> None:
    for contender in read_analysis(analysed)["contenders"]:
        test = contender["test"]
        assert test["n_images"] == 18
        assert test["accuracy"]["n"] == len(test["accuracy"]["values"]) == 2
        assert test["accuracy"]["low"] <= test["accuracy"]["mean"] <= test["accuracy"]["high"]
        assert sum(map(sum, contender["first_test"]["confusion"])) == 18


def board(analysed: Path) -> dict[str, dict[str, Any]]:
    """Return what TensorBoard shows of the test images, by trial and tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in sorted((analysed / "trials").glob("*/test")):
        (file,) = run.iterdir()
        events = EventAccumulator(str(file)).Reload()
        found[run.parent.name] = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    return found


def test_tensorboard_shows_every_contenders_confusion_matrix_and_the_worst_mistakes_of_the_chosen(
    analysed: Path,
) -> None:
    analysis, shown = read_analysis(analysed), board(analysed)
    chosen = f"{analysis['chosen']['trial']:04d}"
    finals = {f"{each['finals'][0]['trial']:04d}": each["finals"][0]["epochs"] for each in analysis["contenders"]}
    assert shown.keys() == finals.keys()
    for run, images in shown.items():
        (event,) = images["confusion_matrix"]
        width, height, content = event.tensor_proto.string_val
        assert event.step == finals[run]
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[:2] == (int(height), int(width))
        mistakes = sorted(images.keys() - {"confusion_matrix"})
        expected = [
            f"worst_mistakes/{rank:02d}: {row['true']} taken for {row['predicted']}, {100 * row['probability']:.1f} %"
            for rank, row in enumerate(analysis["worst"], start=1)
        ]
        assert mistakes == (expected if run == chosen else [])


def test_images_that_cannot_be_written_do_not_cost_the_analysis(analysed: Path) -> None:
    before, shown = read_analysis(analysed), board(analysed)
    run = analysed / "trials" / f"{before['chosen']['trial']:04d}" / "test"
    (file,) = run.iterdir()
    file.rename(analysed / file.name)
    run.rmdir()
    run.write_text("a file where a folder should be")
    said: list[str] = []
    analyze(analysed, seeds=2, quiet=True, tell=said.append)
    assert read_analysis(analysed) == before
    assert any(line.startswith("TensorBoard shows no images of the test: they could not be written (") for line in said)
    run.unlink()
    (analysed / file.name).unlink()
    analyze(analysed, seeds=2, quiet=True)
    assert str(board(analysed)) == str(shown)


def test_the_report_is_one_file_that_asks_nobody(analysed: Path) -> None:
    report = (analysed / "report.html").read_text()
    assert "Confusion matrix" in report
    assert "class1/cut.png" in report
    assert '<script src="http' not in report


def test_the_model_predicts_files_and_names_those_it_cannot_read(analysed: Path, images: Path) -> None:
    model = load_model(analysed / "model")
    files = sorted(images.glob("class*/*.png"))
    predictions = model.predict(files)
    readable = [each for each in predictions if each.error is None]
    right = sum(each.label == Path(each.path).parent.name for each in readable)
    assert len(readable) == 90
    assert right / len(readable) > 0.5  # a third by guessing
    errors = {Path(each.path).name: each.error for each in predictions if each.error}
    assert set(errors) == {"empty.png", "cut.png"}

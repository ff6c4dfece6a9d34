"""Who goes on from a search, what an analysis trains, and who wins: without training anything."""

from types import SimpleNamespace
from typing import Any

import pytest

from analysis.contest import Contestant, winner
from analysis.protocol import _alike
from analysis.retrain import Plan
from analysis.select import Contender, check_numbers, contenders, no_faster
from cluster.dispatch import Proposal
from cluster.history import History
from cluster.record import TrialRecord
from foundation import RequestError


def trial(
    number: int, accuracy: list[float], architecture: str = "cnn", method: str = "tpe", **more: Any
) -> TrialRecord:
    record = TrialRecord(
        trial=number,
        role="search",
        architecture=architecture,
        config={"learning_rate": 0.1 / (number + 1)},
        seed=number,
        work={"epochs": 3, "schedule_epochs": 3},
        method=method,
        proposed_time=0.0,
        status="completed",
    )
    for name, value in more.items():
        setattr(record, name, value)
    record.epochs = [
        {"epoch": epoch, "val_accuracy": value, "val_loss": 1 - value, "learning_rate": 0.1, "train_loss": 1.0}
        | {"val_balanced_accuracy": value, "val_macro_f1": value, "train_accuracy": 0.5}
        for epoch, value in enumerate(accuracy, start=1)
    ]
    return record


def history(*records: TrialRecord) -> History:
    made = History()
    for record in records:
        made.add(record)
    return made


def names(*records: TrialRecord, finalists: int = 3) -> list[str]:
    return [each.name for each in contenders(history(*records), "val_accuracy", finalists)]


def test_the_best_configurations_and_every_architectures_baseline_go_on() -> None:
    searched = (
        trial(0, [0.5], method="baseline"),
        trial(1, [0.6], "alexnet", method="baseline"),
        trial(2, [0.9]),
        trial(3, [0.8], "alexnet"),
        trial(4, [0.7]),
        trial(5, [0.1], "vgg11", method="baseline"),
    )
    baselines = ["alexnet baseline", "cnn baseline", "vgg11 baseline"]
    assert names(*searched) == ["cnn trial 2", "alexnet trial 3", "cnn trial 4", *baselines]
    assert names(*searched, finalists=1) == ["cnn trial 2", *baselines]
    best_is_a_baseline = (trial(6, [0.95], "tiny", method="baseline"), *searched)
    assert names(*best_is_a_baseline, finalists=2) == ["tiny baseline", "cnn trial 2", *baselines]


def test_a_baseline_that_is_best_meets_the_best_that_was_tuned_and_one_that_failed_stays_out() -> None:
    baseline = trial(0, [0.9], method="baseline")
    both = names(baseline, trial(1, [0.2], "alexnet", method="baseline"), trial(2, [0.1], "alexnet"), finalists=2)
    assert both == ["cnn baseline", "alexnet baseline", "alexnet trial 2"]
    assert names(baseline, trial(1, [], status="lost")) == ["cnn baseline"]
    assert names(trial(0, [0.95], method="baseline", status="diverged"), trial(1, [0.2])) == ["cnn trial 1"]


def test_a_configuration_that_was_tried_again_is_one_contender_and_the_baseline_where_it_is_that() -> None:
    same, other = {"learning_rate": 0.5}, {"learning_rate": 0.4}
    baseline = trial(0, [0.5], method="baseline", config=same)
    again = trial(1, [0.9], config=dict(same))
    twins = trial(2, [0.8], config=other), trial(3, [0.7], config=dict(other))
    elsewhere = trial(4, [0.6], "alexnet", config=dict(same))
    assert names(baseline, again, *twins, elsewhere) == ["cnn baseline", "cnn trial 2", "alexnet trial 4"]
    assert names(baseline, again, *twins, finalists=1) == ["cnn baseline", "cnn trial 2"]


def test_without_a_finished_epoch_there_is_nothing_to_analyse() -> None:
    with pytest.raises(RequestError, match="none of the 1 trials of the search has a finished epoch"):
        names(trial(0, [], status="lost"))


def carry_out(found: History, proposal: Proposal, accuracy: list[float], status: str = "completed") -> None:
    number = found.next_trial()
    made = trial(number, accuracy[: proposal.work["epochs"]], status=status)
    for name in ("role", "seed", "work", "config"):
        setattr(made, name, getattr(proposal, name))
    found.add(made)


def test_a_plan_retrains_all_then_trains_each_for_the_epochs_its_curves_call_for() -> None:
    found = history(trial(0, [0.5, 0.6, 0.6], method="baseline"), trial(1, [0.9]))
    plan = Plan(contenders(found, "val_accuracy", 3), seeds=2, seed=0)
    assert plan.wanted(found) == 8
    done: list[Proposal] = []
    while proposal := plan.next_work(found):
        done.append(proposal)
        carry_out(found, proposal, [0.5, 0.8, 0.7])
    assert [each.role for each in done] == ["retrain"] * 4 + ["final"] * 4
    assert [each.work["of"] for each in done] == [1, 1, 0, 0] * 2
    assert len({each.seed for each in done[:4]}) == 4
    assert not {each.seed for each in done} & {0, 1}
    assert all(each.work["epochs"] == 3 for each in done[:4])
    for final in done[4:]:
        assert final.work["epochs"] == 2  # where the loss is lowest
        assert final.work["learning_rates"] == [0.1, 0.1, 0.1]
        assert (final.work["train_on_val"], final.work["keep_checkpoint"]) == (True, True)
    assert [each.seed for each in done[:2]] == [each.seed for each in done[4:6]]
    assert plan.wanted(found) == 8


def test_a_contenders_finals_wait_for_its_own_runs_only_and_leave_failed_ones_out() -> None:
    found = history(trial(0, [0.5], method="baseline"), trial(1, [0.9]))
    tuned, baseline = contenders(found, "val_accuracy", 3)
    plan = Plan([tuned, baseline], seeds=2, seed=0)
    for number, proposal in enumerate(plan.retrainings(tuned)):
        carry_out(found, proposal, [0.5, 0.8, 0.7], "completed" if number else "diverged")
    for proposal in plan.retrainings(baseline):
        carry_out(found, proposal, [0.5], None)  # type: ignore[arg-type]
    finals = plan.final_trainings(found, tuned)
    assert [each.work["seed_index"] for each in finals] == [1]
    assert plan.final_trainings(found, baseline) == []
    assert plan.next_work(found) == finals[0]


def contestant(accuracies: list[list[float]], method: str = "tpe") -> Contestant:
    runs = [trial(number, accuracy) for number, accuracy in enumerate(accuracies)]
    return Contestant(Contender(trial(9, [0.5], method=method)), runs)


def test_the_winner_has_the_best_mean_at_its_own_epoch_and_the_sentence_says_so() -> None:
    tuned, baseline = (
        contestant([[0.2, 0.7, 0.1], [0.2, 0.5, 0.1]]),
        contestant([[0.4, 0.5, 0.58]], "baseline"),
    )
    best, why = winner([tuned, baseline], "val_accuracy")
    assert best is tuned
    assert why == (
        "best mean val_accuracy on the validation images: cnn trial 9 0.6000 after 2 epochs (2 runs) "
        "against cnn baseline 0.5800 after 3 epochs (1 run)"
    )
    best, why = winner([baseline], "val_loss")
    assert (
        why
        == "best mean val_loss on the validation images: cnn baseline 0.4200 after 3 epochs (1 run), the only contender"
    )


def test_a_contender_that_failed_with_a_seed_ranks_behind_one_that_never_did() -> None:
    shaky = Contestant(Contender(trial(9, [0.5])), [trial(0, [0.9]), trial(1, [0.1], status="diverged")])
    best, why = winner([shaky, contestant([[0.6], [0.6]], "baseline")], "val_accuracy")
    assert best.name == "cnn baseline"
    assert why.startswith("best mean val_accuracy of those that never failed on the validation images: cnn baseline")
    assert why.endswith("against cnn trial 9 0.9000 after 1 epoch (1 run, 1 more failed)")


def test_a_run_lost_to_the_machines_is_trained_again() -> None:
    found = history(trial(0, [0.5], method="baseline"))
    plan = Plan(contenders(found, "val_accuracy", 3), seeds=1, seed=0)
    first = plan.next_work(found)
    assert first is not None
    carry_out(found, first, [0.5], "lost")
    assert plan.next_work(found) == first


def test_a_contestant_without_a_sound_run_has_no_choice_and_says_how_its_runs_ended() -> None:
    failed = Contestant(Contender(trial(9, [0.5])), [trial(0, [0.1], status="diverged", error="nan")])
    assert failed.choice is None
    row = failed.to_json()
    assert row["epochs"] is None
    assert "validation" not in row
    assert (row["curves"][0]["status"], row["curves"][0]["error"]) == ("diverged", "nan")


def test_with_folds_each_run_validates_on_another_part_and_finals_are_as_many_as_seeds() -> None:
    found = history(trial(0, [0.5], method="baseline"), trial(1, [0.9]))
    plan = Plan(contenders(found, "val_accuracy", 3), seeds=2, seed=0, folds=3)
    assert plan.wanted(found) == 2 * (3 + 2)
    done: list[Proposal] = []
    while proposal := plan.next_work(found):
        done.append(proposal)
        carry_out(found, proposal, [0.5, 0.8, 0.7])
    assert [each.work.get("fold") for each in done[:3]] == [[0, 3], [1, 3], [2, 3]]
    finals = [each for each in done if each.role == "final"]
    assert len(finals) == 4
    assert not any("fold" in each.work for each in finals)
    assert len({each.seed for each in finals}) == 4


def test_several_workers_train_each_final_model_together_and_another_number_is_another_training() -> None:
    found = history(trial(0, [0.5], method="baseline"))
    chosen = contenders(found, "val_accuracy", 3)
    done: list[Proposal] = []
    for workers in (1, 2):
        plan = Plan(chosen, seeds=2, seed=0, workers=workers)
        while proposal := plan.next_work(found):
            done.append(proposal)
            carry_out(found, proposal, [0.5, 0.8, 0.7])
        assert plan.wanted(found) == len(done)
    assert [each.role for each in done] == ["retrain"] * 2 + ["final"] * 4
    assert [each.work.get("workers") for each in done] == [None] * 4 + [2, 2]  # the retrainings are every plan's
    assert [record.workers for record in found.of_role("final")] == [1, 1, 2, 2]
    assert [each.seed for each in done[2:4]] == [each.seed for each in done[4:]]


def test_batches_too_small_to_be_shared_are_said_beforehand() -> None:
    small, large = trial(0, [0.5]), trial(1, [0.6])
    small.config, large.config = {"batch_size": 15}, {"batch_size": 16}
    contender = [Contender(small), Contender(large)]
    assert no_faster(contender, 1) == no_faster(contender, 7) == []
    assert no_faster(contender, 8) == [
        "cnn trial 0 trains with batches of 15 images, fewer than two for each of 8 workers: all of them compute all "
        "of it, and it trains no faster than with one."
    ]


def test_fewer_than_one_worker_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^--retrain-workers 0: at least 1 is needed$"):
        check_numbers(3, 3, 0, 0)


def test_what_folds_differ_by_is_not_called_the_luck_of_seeds() -> None:
    values = {"a": [0.9, 0.8], "b": [0.5, 0.6]}
    ran: Any = [SimpleNamespace(name=name, at_chosen_epoch=lambda _, v=v: {"values": v}) for name, v in values.items()]
    seeds, folds = _alike(ran, 0), _alike(ran, 2)
    assert seeds["sigma_seed"] == pytest.approx(0.0707, abs=1e-4)
    assert seeds["group"] == ["a"]
    assert folds["sigma_seed"] is None
    assert "with folds, runs differ by their images, too" in folds["sentence"]
    assert folds["group"] == ["a", "b"]

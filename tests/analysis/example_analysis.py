"""A realistic analysis.json: the numbers come from a seeded generator, the shape is what a real analysis leaves."""

from dataclasses import asdict
from typing import Any

import numpy as np
from example_search import EPOCHS, SPACES, ExampleSearch

from analysis.compare import compare
from analysis.course import search_results
from analysis.epochs import choose_epochs
from analysis.evaluate import Predictions, test_comparisons, test_figures
from analysis.metrics import over_seeds
from analysis.page import NotYet, Section

CLASSES = ("aeroplane", "<b>bird</b>", "cat & dog", "deer", "=frog", "horse", "ship", "truck", "lorry", "van")
TUNED, BASELINE = "cnn trial 3", "cnn baseline"


def example_analysis(
    classes: tuple[str, ...] = CLASSES, n_seeds: int = 3, n_trials: int = 40, n_test: int = 1000
) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    finals = {TUNED: list(range(46, 46 + n_seeds)), BASELINE: list(range(60, 60 + n_seeds))}
    predictions = _predictions(rng, {TUNED: 0.82, BASELINE: 0.6}, finals, len(classes), n_test)
    contenders = [
        _contender(rng, TUNED, 0.82, 0.06, n_seeds, finals[TUNED]) | test_figures(predictions, finals[TUNED], classes),
        _contender(rng, BASELINE, 0.74, 0.10, n_seeds, finals[BASELINE])
        | test_figures(predictions, finals[BASELINE], classes),
    ]
    search = search_results(ExampleSearch(n_trials).history, "val_accuracy")
    return {
        "format": 4,
        "experiment": _experiment(classes, n_trials),
        "troubles": {
            "failed": [{"trial": 7, "role": "search", "status": "diverged", "error": "epoch 2: train_loss nan"}],
            "lost": [{"trial": 9, "attempt": 1, "cause": "died", "error": "the worker process died (SYSTEM_ERROR)"}],
            "rescued": [4],
            "interruptions": 1,
            "changed": ["torch was 2.9.0 and is 2.9.1"],
        },
        "search": search | {"rejected": {"impossible": 3, "too_long": 1}},
        "learned": _learned(),
        "contenders": contenders,
        "folds": 0,
        "chosen": {
            "contender": TUNED,
            "why": "its mean validation accuracy over 3 seeds is higher than the baseline's",
            "trial": n_trials + 6,
            "seed": 101,
        },
        "tests_opened": 1,
        "comparisons": test_comparisons(predictions, TUNED, finals),
        "alike": {
            "sigma_seed": 0.01,
            "sentence": "the seed alone changes the accuracy with a standard deviation of 1.0 points",
            "group": [TUNED, BASELINE],
        },
        "ablations": _ablations(predictions, finals),
        "worst": predictions.worst_rows(finals[TUNED][0], classes),
    }


def _experiment(classes: tuple[str, ...], n_trials: int) -> dict[str, Any]:
    return {
        "name": "photos <script>alert(1)</script>",
        "data": "data/photos-small.zip",
        "fingerprint": "9f2c" * 16,
        "classes": list(classes),
        "image_shape": [3, 64, 64],
        "counts": {split: dict.fromkeys(classes, n) for split, n in (("train", 170), ("val", 30), ("test", 100))},
        "n_refused": 2,
        "refused": [
            {"path": "cat/broken.jpg", "reason": "truncated JPEG: no end marker"},
            {"path": "deer/notes.txt", "reason": "not an image file (.txt)"},
        ],
        "method": "tpe_asha",
        "metric": "val_accuracy",
        "epochs": EPOCHS,
        "trials": n_trials,
        "seed": 0,
        "architectures": list(SPACES),
        "spaces": {name: space.rows() for name, space in SPACES.items()},
        "versions": {"python": "3.11.9", "torch": "2.15.0", "ray": "2.60.0"},
        "command_line": "convscout search data/photos-small.zip --arch cnn --arch mobilenet_v2 --trials 40",
        "created": "2026-01-05T10:12:00+00:00",
    }


def _config(rng: np.random.Generator, momentum: int) -> dict[str, Any]:
    config = {
        "learning_rate": float(10 ** rng.uniform(-5, -1)),
        "optimizer": "sgd" if momentum else "adamw",
        "batch_size": int(rng.choice([16, 32, 64])),
        "weight_decay": float(10 ** rng.uniform(-6, -2)),
        "schedule": "cosine",
        "dropout": float(rng.uniform(0, 0.6)),
        "filters": 64,
    }
    return config | ({"momentum": 0.9} if momentum else {})


def _contender(
    rng: np.random.Generator, name: str, accuracy: float, rise: float, n_seeds: int, finals: list[int]
) -> dict[str, Any]:
    curves = [_curve(rng, trial, accuracy, rise) for trial in range(n_seeds)]
    choice = choose_epochs([curve["val_loss"] for curve in curves])
    at = choice.epochs - 1
    return {
        "name": name,
        "baseline": name == BASELINE,
        "trial": 3,
        "architecture": "cnn",
        "config": _config(rng, int(name == TUNED)),
        "epochs": asdict(choice),
        "curves": curves,
        "validation": {
            "val_accuracy": over_seeds([curve["val_accuracy"][at] for curve in curves]),
            "val_loss": over_seeds([curve["val_loss"][at] for curve in curves], proportion=False),
        },
        "finals": [{"trial": trial, "seed": 55 + trial, "epochs": choice.epochs} for trial in finals],
    }


def _curve(rng: np.random.Generator, seed: int, accuracy: float, rise: float) -> dict[str, Any]:
    epoch = np.arange(1, EPOCHS + 1)
    falling = 2.3 * np.exp(-epoch / 5)
    noise = rng.normal(0, 0.02, (4, EPOCHS))
    return {
        "trial": 40 + seed,
        "seed": 11 + seed,
        "status": "completed",
        "train_loss": (0.1 + falling + noise[0].clip(-0.05)).tolist(),
        "train_accuracy": (0.97 - 0.6 * np.exp(-epoch / 6) + 0.3 * noise[1]).tolist(),
        "val_loss": (0.6 + falling + rise * 0.1 * (epoch - 10).clip(0) + noise[2]).tolist(),
        "val_accuracy": (accuracy - 0.5 * np.exp(-epoch / 5) + 0.5 * noise[3]).tolist(),
        "learning_rate": (1e-3 * np.cos(epoch / EPOCHS * np.pi / 2)).tolist(),
    }


def _predictions(
    rng: np.random.Generator, accuracy: dict[str, float], finals: dict[str, list[int]], n_classes: int, n_test: int
) -> Predictions:
    labels = np.arange(n_test) % n_classes
    probabilities = {}
    for name, trials in finals.items():
        for trial in trials:
            logits = rng.normal(0, 1, (n_test, n_classes))
            logits[np.arange(n_test), labels] += 3.4 * accuracy[name]
            of_trial = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            probabilities[trial] = of_trial.astype(np.float32)
    guessed = probabilities[finals[TUNED][0]].argmax(axis=1)
    worst = np.flatnonzero(guessed != labels)[:5]
    images = rng.integers(0, 256, (len(worst), 32, 32, 3), dtype=np.uint8)
    return Predictions(labels, tuple(f"c/{n}.png" for n in range(n_test)), probabilities, worst, images)


def _ablations(predictions: Predictions, finals: dict[str, list[int]]) -> dict[str, Any]:
    correct = {"optimizer adam": predictions.correct(finals[BASELINE]), TUNED: predictions.correct(finals[TUNED])}
    (compared,) = compare([("optimizer adam", TUNED)], correct)
    row = {"name": "optimizer adam", "knob": "optimizer", "value": "adam", "n_failed": 0, "epochs": 12}
    row["val_accuracy"] = over_seeds([0.6, 0.62, 0.61])
    row["comparison"] = asdict(compared) | {"sentence": compared.sentence, "found": compared.found}
    failed = {"name": "optimizer rmsprop", "knob": "optimizer", "value": "rmsprop", "n_failed": 3}
    return {"of": TUNED, "config": {"optimizer": "sgd"}, "variants": [row, failed], "left_out": {}}


def _learned() -> dict[str, Any]:
    shares = [{"knob": "learning_rate", "share": 0.61, "low": 0.5, "high": 0.7}, {"knob": "dropout", "share": -0.01}]
    shares[1] |= {"low": -0.03, "high": 0.02}
    known = {"architecture": "cnn", "epoch": 3, "n_trials": 20, "knobs": shares, "explained": 0.5, "reason": None}
    unknown = known | {"architecture": "mobilenet_v2", "knobs": [], "reason": "not enough trials: 20 are needed"}
    rescued = {"trial": 5, "epoch": 3, "score": 0.61, "predicted": 0.7, "low": 0.6, "high": 0.82, "best": 0.8}
    return {
        "winner": {"sentence": "the best of 12 trials and 360 epochs is right about 80.0 % of 300 validation images"},
        "rescue": {"reason": None, "n_stopped": 25, "n_could_win": 1, "trials": [rescued]},
        "importance": [
            known | {"caution": "TPE does not sample evenly", "sentence": "cnn"},
            unknown | {"caution": None, "sentence": "mobilenet_v2: not enough trials: 20 are needed"},
        ],
        "edges": [{"architecture": "cnn", "knob": "filters", "sentence": "filters: the best value is at the edge"}],
    }


def ready(content: Section | NotYet) -> Section:
    """Return a section that must be there; the assertion shows why it is not."""
    assert isinstance(content, Section), content
    return content

"""What an analysis would take, before there is a search to analyse: the protocol gone through many times on paper."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.select import check_numbers
from cluster.forecast import Span, timetable

TIMES = 300
# The epochs of a final training, as a share of those of the search: validation loss is lowest somewhere in between.
FINAL_EPOCHS = (1 / 3, 1.0)
VALIDATING = 1 / 3  # of the time that training on an image takes: no way back through the model, no step


@dataclass(frozen=True)
class Price:
    """What an analysis would train, at the most: so many contenders, so many trainings, in so many seconds."""

    contenders: int
    trainings: int
    seconds: Span


def price(
    epoch_seconds: Mapping[str, Sequence[float]],
    *,
    trials: int,
    epochs: int,
    val_share: float,
    slots: int,
    finalists: int,
    seeds: int,
    folds: int = 0,
    seed: int = 0,
) -> Price:
    """Return what the protocol would take after a search of so many trials, on as many slots.

    `epoch_seconds` are by architecture those of its baseline, and then of configurations drawn from its space, of which
    any may become a finalist; `val_share` is the number of validation images over that of training images. No baseline
    is taken to be among the best, so there may be fewer contenders. The final trainings run for a third to all of the
    epochs. Evaluation of the test images and the report, some seconds, are left out. Raises `RequestError` for numbers
    that an analysis would refuse.
    """
    check_numbers(finalists, seeds, folds)
    rng = random.Random(seed)
    baselines = [each[0] for each in epoch_seconds.values()][:trials]
    drawn = [seconds for each in epoch_seconds.values() for seconds in each[1:] or each]
    tuned = max(0, min(finalists, trials - len(baselines)))
    runs = folds or seeds
    in_fold = _relative(1 + val_share, (folds - 1) / folds, 1 / folds, val_share) if folds else 1.0
    on_all = _relative(1 + val_share, 1.0, 0.0, val_share)
    totals = []
    for _ in range(TIMES):
        contenders = baselines + [rng.choice(drawn) for _ in range(tuned)]
        retrained = [in_fold * each * epochs for each in contenders for _ in range(runs)]
        finals = [on_all * each * epochs * rng.uniform(*FINAL_EPOCHS) for each in contenders for _ in range(seeds)]
        totals.append(max(end for _, end in timetable(retrained + finals, slots)))
    count = len(baselines) + tuned
    return Price(count, count * (runs + seeds), Span.of(totals))


def _relative(images: float, trained: float, validated: float, val_share: float) -> float:
    """Return the time of an epoch that trains on and validates with parts of some images, over that of the search's.

    `images` are relative to the training images, which an epoch of the search trains on, validating on `val_share`.
    """
    return images * (trained + VALIDATING * validated) / (1 + VALIDATING * val_share)

"""What one epoch gave, and the scores of a confusion matrix."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Losses are plain cross-entropy in nats, whatever smoothing or weights were trained with.

    `train_*` are running averages over the epoch, on augmented images; `val_*` come from the model as the epoch
    left it, and are None without validation images. `learning_rate` is that of the last step. `seconds` include
    validation and what frozen layers computed for all images; `images_per_second` does not. `peak_memory_mb` is the
    most since the trial began in this process, in MB of 10**6 bytes; None where the system cannot tell.
    `reads_features` says that frozen layers were not computed again, `features_not_kept` that, in this epoch or before,
    what they give could not be kept (then augmented views are new each epoch), `layers_change` that the next epoch
    trains other layers.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_balanced_accuracy: float | None
    val_macro_f1: float | None
    learning_rate: float
    seconds: float
    images_per_second: float
    peak_memory_mb: float | None
    reads_features: bool = False
    features_not_kept: bool = False
    layers_change: bool = False

    @property
    def diverged(self) -> bool:
        """Whether a loss is no longer a finite number."""
        return not math.isfinite(self.train_loss) or (self.val_loss is not None and not math.isfinite(self.val_loss))

    def to_json(self) -> dict[str, Any]:
        """Return the result as a ledger row keeps it: what is not finite becomes None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def scores(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy, balanced accuracy and macro F1 of a confusion matrix (rows: true, columns: predicted).

    Balanced accuracy averages recall over the classes that occur, macro F1 over those that occur or are predicted,
    as scikit-learn does.
    """
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    occurs, seen = true > 0, (true + predicted) > 0
    return {
        "val_accuracy": float(hits.sum() / confusion.sum()),
        "val_balanced_accuracy": float((hits[occurs] / true[occurs]).mean()),
        "val_macro_f1": float((2 * hits[seen] / (true + predicted)[seen]).mean()),
    }

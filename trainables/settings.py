"""What is the same for every trial of an experiment, measured once."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What is the same for every trial of an experiment: the device, its precision, memory format and threads.

    `device` is `cpu`, `cuda` or `mps`. `captured` records the steps as CUDA graphs, and replays them.
    """

    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = True
    threads: int = 1
    captured: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the ledger keeps them."""
        return asdict(self)

import pytest

from cluster.resources import Slot, choose_slot
from foundation import RequestError


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked_cpus", "asked_gpus", "slot", "fit"),
    [
        (2, 0, None, None, Slot(1, 0.0), 2),
        (16, 1, None, None, Slot(16, 1.0), 1),
        (16, 4, None, None, Slot(4, 1.0), 4),
        (16, 1, None, 0.25, Slot(4, 0.25), 4),
        (16, 2, None, 0.6, Slot(4, 0.6), 2),
        (16, 4, 2, 2, Slot(2, 2), 2),
        (8, 1, 2, 0, Slot(2, 0), 4),
    ],
)
def test_slots_and_how_many_fit(
    cpus: float, gpus: float, asked_cpus: int | None, asked_gpus: float | None, slot: Slot, fit: int
) -> None:
    found = choose_slot(cpus, gpus, asked_cpus, asked_gpus)
    assert found == slot
    assert found.how_many(cpus, gpus) == fit


@pytest.mark.parametrize(
    ("asked_cpus", "asked_gpus", "message"),
    [
        (4, None, "asks for 4 CPU cores and 0 GPUs, but the cluster has 2 cores and 0 GPUs: lower --cpus-per-trial"),
        (None, 1, "asks for 2 CPU cores and 1 GPUs, but the cluster has 2 cores and 0 GPUs"),
        (None, 1.5, "--gpus-per-trial 1.5: above 1 it must be a whole number"),
    ],
)
def test_what_can_never_be_scheduled_is_refused(asked_cpus: int | None, asked_gpus: float | None, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        choose_slot(2, 0, asked_cpus, asked_gpus)
    assert message in str(caught.value)

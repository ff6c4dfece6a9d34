import pytest

from cluster.resources import Host, Place, Slot, choose_slot
from foundation import RequestError


@pytest.mark.parametrize(
    ("hosts", "asked_cpus", "asked_gpus", "slot", "fit"),
    [
        ([Host(2, 0)], None, None, Slot(1, 0.0), 2),
        ([Host(16, 1)], None, None, Slot(16, 1.0), 1),
        ([Host(16, 4)], None, None, Slot(4, 1.0), 4),
        ([Host(16, 1)], None, 0.25, Slot(4, 0.25), 4),
        ([Host(16, 2)], None, 0.6, Slot(4, 0.6), 2),
        ([Host(16, 4)], 2, 2, Slot(2, 2), 2),
        ([Host(8, 1)], 2, 0, Slot(2, 0), 4),
        ([Host(64, 0), Host(4, 4)], None, None, Slot(1, 1.0), 4),
        ([Host(8, 1), Host(32, 1)], None, None, Slot(8, 1.0), 2),
        ([Host(4, 0), Host(4, 0)], 3, None, Slot(3, 0.0), 2),
    ],
)
def test_slots_and_how_many_fit(
    hosts: list[Host], asked_cpus: int | None, asked_gpus: float | None, slot: Slot, fit: int
) -> None:
    found = choose_slot(hosts, asked_cpus, asked_gpus)
    assert found == slot
    assert found.how_many(hosts) == fit


@pytest.mark.parametrize(
    ("hosts", "asked_cpus", "asked_gpus", "message"),
    [
        (
            [Host(2, 0)],
            4,
            None,
            "4 CPU cores and 0 GPUs on one host, but the hosts have 2 cores and 0 GPUs: lower --cpus-per-trial",
        ),
        ([Host(4, 0), Host(4, 0)], 6, None, "the hosts have 4 cores and 0 GPUs"),
        ([Host(2, 0)], None, 1, "asks for 1 CPU cores and 1 GPUs on one host"),
        ([Host(2, 0)], None, 1.5, "--gpus-per-trial 1.5: above 1 it must be a whole number"),
    ],
)
def test_what_can_never_be_scheduled_is_refused(
    hosts: list[Host], asked_cpus: int | None, asked_gpus: float | None, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        choose_slot(hosts, asked_cpus, asked_gpus)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("slot", "hosts", "room", "message"),
    [
        (
            Slot(1, 0.0),
            [Host(2, 0), Host(1, 0)],
            3,
            "4 workers that train one model together (--retrain-workers) ask for 1 CPU core each; the hosts have room "
            "for 3 of them: 1 cores and 0 GPUs; 2 cores and 0 GPUs",
        ),
        (
            Slot(2, 0.25),  # four trials share a GPU, but a worker of a team has one to itself
            [Host(16, 2)],
            2,
            "3 workers that train one model together (--retrain-workers) ask for 2 CPU cores and 1 whole GPU each; the "
            "hosts have room for 2 of them: 16 cores and 2 GPUs",
        ),
    ],
)
def test_more_workers_than_the_hosts_can_ever_hold_are_refused(
    slot: Slot, hosts: list[Host], room: int, message: str
) -> None:
    place = Place(slot, hosts)
    assert place.team_room == room
    place.check_team(room)
    with pytest.raises(RequestError) as caught:
        place.check_team(room + 1)
    assert str(caught.value) == message


def test_a_head_that_takes_no_trials_does_not_count_among_the_hosts_with_cores() -> None:
    place = Place(Slot(2, 0), [Host(0, 0), Host(8, 0), Host(4, 0), Host(1, 0)])
    assert (place.host_cores, place.slots) == (4, 6)
    assert Place(Slot(2, 0), [Host(0, 0)]).host_cores == 2  # none has come yet


def test_hosts_that_may_come_count_and_what_nobody_knows_of_is_not_refused() -> None:
    head = Host(0, 0)
    with pytest.raises(RequestError, match="the hosts have 0 cores and 0 GPUs: no worker has joined; `ray start --add"):
        choose_slot([head])
    assert choose_slot([head, Host(8, 1)]) == Slot(8, 1.0)
    assert choose_slot([head], others_may_come=True) == Slot(1, 0.0)
    with pytest.raises(RequestError, match="a trial asks for 1 CPU cores and 2 GPUs"):
        choose_slot([head, Host(8, 1)], 1, 2)


def test_hosts_without_room_count_for_nothing() -> None:
    place = Place(Slot(2, 0.0), [Host(0, 0), Host(8, 0), Host(4, 0)])
    assert (place.slots, place.host_cores) == (6, 4)
    empty = Place(Slot(2, 0.0), [Host(0, 0)])
    assert (empty.slots, empty.host_cores) == (1, 2)

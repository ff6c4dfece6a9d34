"""How many trials share a host or a GPU: decided from figures that are stated here, and what a shortage changes."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.ledger import Ledger, read_history, read_rows
from cluster.progress import Progress
from cluster.proposal import Proposal
from cluster.resources import Host, Place, Slot, choose_slot, hosts_of, of_kind
from cluster.shares import FINEST, MeasuredGpu, alone, grown, share, share_of, within_memory
from foundation import RequestError

GB = 10**9
LARGE = MeasuredGpu("H100", 1, 80 * GB, 4 * GB, {1: 1.0, 2: 1.9, 4: 3.4, 8: 5.0, 16: 5.1})
SMALL = MeasuredGpu("T4", 1, 16 * GB, 4 * GB, {1: 0.5, 2: 0.8, 4: 0.9})
CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"


@pytest.mark.parametrize(
    ("kinds", "sharers"),
    [
        ([LARGE], 8),  # 16 would bring 1.02 times as much
        ([MeasuredGpu("H100", 1, 80 * GB, 10 * GB, LARGE.rates)], 4),  # 7 fit
        ([MeasuredGpu("H100", 1, 80 * GB, 100 * GB, LARGE.rates)], 1),  # not even one fits: it is tried
        ([MeasuredGpu("H100", 1, 80 * GB, GB, {1: 1.0, 2: 1.04})], 1),
        ([MeasuredGpu("H100", 1, 80 * GB, GB, {1: 1.0, 2: 0.9, 4: 1.2})], 4),
        ([SMALL], 2),  # memory holds 3
        ([LARGE, SMALL], 2),  # one size for both kinds: what the smaller holds
        ([LARGE, MeasuredGpu("A10", 9, 80 * GB, GB, {1: 1.0, 2: 0.5})], 1),  # most of the GPUs lose by it
        ([LARGE, MeasuredGpu("A10", 1, 80 * GB, GB, {1: 1.0, 2: 1.0})], 8),  # what was not measured is no gain
    ],
)
def test_as_many_share_a_gpu_as_train_the_most_within_its_memory(kinds: list[MeasuredGpu], sharers: int) -> None:
    assert share(kinds) == sharers


@pytest.mark.parametrize("sharers", range(1, 33))
def test_shares_of_a_gpu_are_no_more_than_one_as_ray_counts(sharers: int) -> None:
    slot = Slot(1, share_of(sharers))
    assert slot.sharers == sharers
    assert sharers * round(slot.gpus * FINEST) <= FINEST
    assert slot.fit(Host(100, 2)) == 2 * sharers
    assert choose_slot([Host(64, 2)], None, share_of(sharers)) == Slot(
        int(32 * share_of(sharers)) or 1, share_of(sharers)
    )


@pytest.mark.parametrize(
    ("hosts", "trial", "shared", "fits"),
    [
        ([Host(64, 0, 16 * GB)], 5 * GB, 0, [3]),
        ([Host(64, 0, 16 * GB)], 5 * GB, 2 * GB, [2]),  # the images lie there once
        ([Host(2, 0, 160 * GB)], 5 * GB, 0, [2]),
        ([Host(64, 0, 16 * GB), Host(64, 0, 160 * GB)], 5 * GB, 0, [3, 32]),  # each host holds what it has memory for
        ([Host(64, 0, 4 * GB), Host(64, 0, 16 * GB)], 5 * GB, 0, [0, 3]),
        ([Host(64, 0, 3 * GB), Host(64, 0, 4 * GB)], 5 * GB, 0, [1, 1]),  # nowhere enough: alone, where it is
        ([Host(64, 0)], 5 * GB, 0, [64]),  # the host does not say
    ],
)
def test_a_host_holds_as_many_as_its_memory(hosts: list[Host], trial: int, shared: int, fits: list[int]) -> None:
    slot = within_memory(Slot(1, 0.0), hosts, trial, shared)
    assert [slot.fit(host) for host in hosts] == fits
    for host, number in zip(hosts, fits, strict=True):
        assert number * trial + shared <= host.memory or sum(fits) == len(hosts)


def test_who_is_alone_stays_so_with_a_little_more_or_less_memory_the_next_time() -> None:
    slot = alone(Slot(1, 0.0), [Host(8, 0, 10 * GB)])
    assert [slot.fit(Host(8, 0, memory * GB)) for memory in (8, 10, 12)] == [1, 1, 1]


@pytest.mark.parametrize(("beside", "fewer"), [(16, 12), (12, 9), (4, 3), (3, 2), (2, 1), (40, 12)])
def test_a_larger_slot_holds_three_quarters_of_those_that_were_there(beside: int, fewer: int) -> None:
    gpu = grown(Slot(1, share_of(16)), Host(64, 1), beside, device=True)
    assert gpu.sharers == fewer
    host = Host(16, 0, 100 * GB)
    assert grown(Slot(1, 0.0), host, beside, device=False).fit(host) == fewer


def test_a_slot_that_holds_one_grows_no_more() -> None:
    whole = Slot(1, 1.0)
    assert grown(whole, Host(8, 1), 1, device=True) == whole
    single = Slot(8, 0.0)
    assert grown(single, Host(8, 0, 8 * GB), 3, device=False) == single
    assert grown(Slot(1, 0.0), Host(8, 0, math.inf), 3, device=False) == Slot(1, 0.0)  # of nothing known, no part


def proposals(history: History) -> Proposal | None:
    work = {"epochs": 2, "schedule_epochs": 2}
    return Proposal("search", "cnn", {}, seed=7, work=work, method="random") if len(history.trials) < 6 else None


def launched(ledger: Ledger, place: Place, hosts: str, gpus: str = "", **options: Any) -> Dispatcher:
    """Return a dispatcher whose trials a, b, ... have begun on the hosts, and GPUs, that these letters name."""
    run = Dispatcher(ledger, ["search"], proposals, lambda *_: None, **options)
    run.sharing.place = place
    for key, host, gpu in zip("abcdef", hosts, gpus or " " * len(hosts), strict=False):
        begin(run, key, host, gpu)
    return run


def begin(run: Dispatcher, key: str, host: str, gpu: str = " ") -> dict[str, Any]:
    given = run.hand_out(key)
    assert given is not None
    row = {"attempt": given["attempt"], "host": host, "gpu": gpu, "pid": 1, "n_params": 5, "epochs": []}
    run.report(key, {"kind": "started", **row})
    return given


def rows_of(ledger: Ledger, event: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(ledger.path) if row["event"] == event]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


FOUR_HOSTS = Place(Slot(1, 0.0), [Host(4, 0, 8 * GB, name=name) for name in "xyzw"])
SHARED_GPU = Place(Slot(1, share_of(4)), [Host(16, 2, 64 * GB, "T4", "x")])


def test_a_host_short_of_memory_makes_the_slot_grow_and_charges_nobody(ledger: Ledger) -> None:
    ledger.append("calibrated", slot=Slot(1, 0.0).to_json())
    run = launched(ledger, FOUR_HOSTS, "xxxy")
    run.lost("a", "killed: low on memory", "out_of_memory")
    (lost,), (growth,) = rows_of(ledger, "lost"), rows_of(ledger, "slot_grown")
    assert (lost["charged"], lost["shared"], lost["alone"]) == (False, True, False)
    place = run.sharing.place
    assert place is not None
    assert [place.slot.fit(host) for host in place.hosts] == [2, 2, 2, 2]  # three were on x
    assert (growth["beside"], growth["slots"], growth["host"]) == (2, 8, "x")
    assert growth["why"] == (
        "trial 0 ran out of the memory of x beside 2 others: fewer run side by side from now on, 4 to 2 on such a host"
    )
    again = run.hand_out("e")
    assert again is not None
    assert (again["trial"], again["attempt"], again["micro_batch_divisor"]) == (0, 2, 1)
    for history in (ledger.history, read_history(ledger.path.parent)):  # it is the slot of every resume, too
        assert history.calibrated is not None
        assert Slot(**history.calibrated["slot"]) == place.slot


def test_several_that_fail_at_once_let_the_slot_grow_once(ledger: Ledger) -> None:
    run = launched(ledger, FOUR_HOSTS, "xxxx")
    for key in "abc":
        run.lost(key, "killed: low on memory", "out_of_memory")
    assert len(rows_of(ledger, "slot_grown")) == 1
    assert [row["charged"] for row in rows_of(ledger, "lost")] == [False] * 3
    begin(run, "e", "x")
    run.lost("e", "killed: low on memory", "out_of_memory")  # beside d, whose slot is the one of before
    assert len(rows_of(ledger, "slot_grown")) == 1


def test_a_trial_that_runs_out_of_memory_beside_others_again_runs_alone_and_is_then_charged(ledger: Ledger) -> None:
    run = launched(ledger, FOUR_HOSTS, "xx")
    run.lost("a", "killed: low on memory", "out_of_memory")
    begin(run, "c", "x")
    run.lost("c", "killed: low on memory", "out_of_memory")
    assert run.hand_out("d") is None  # trial 1 comes to its end first
    run.finished("b")
    assert begin(run, "d", "x")["micro_batch_divisor"] == 1
    run.lost("d", "killed: low on memory", "out_of_memory")
    assert begin(run, "e", "x")["micro_batch_divisor"] == 2
    run.lost("e", "killed: low on memory", "out_of_memory")
    record = ledger.history.trials[0]
    assert (record.status, record.error) == (
        "out_of_memory",
        "2 attempts failed, the last one with: killed: low on memory",
    )
    assert [row["charged"] for row in record.lost] == [False, False, True, True]
    assert len(rows_of(ledger, "slot_grown")) == 1


@pytest.mark.parametrize(
    ("place", "hosts", "gpus", "error", "shared"),
    [
        (SHARED_GPU, "xxx", "001", CUDA, True),
        (SHARED_GPU, "xxx", "001", "RuntimeError: GET was unable to find an engine", True),
        (SHARED_GPU, "xxx", "011", "RuntimeError: GET was unable to find an engine", False),
        (SHARED_GPU, "xxx", "011", CUDA, False),  # the others are on another GPU
        (Place(Slot(1, 1.0), [Host(16, 2, name="x")]), "xx", "01", CUDA, False),
        (FOUR_HOSTS, "xyz", "", "MemoryError", False),  # the others are on other hosts
        (FOUR_HOSTS, "xxz", "", "MemoryError", True),
    ],
)
def test_who_was_beside_decides_whose_fault_it_is(
    ledger: Ledger, place: Place, hosts: str, gpus: str, error: str, shared: bool
) -> None:
    run = launched(ledger, place, hosts, gpus)
    run.lost("a", error, "out_of_memory")
    (lost,) = rows_of(ledger, "lost")
    assert (lost["shared"], lost["charged"]) == (shared, not shared)
    assert len(rows_of(ledger, "slot_grown")) == shared


def test_a_gpu_that_was_short_is_shared_by_fewer(ledger: Ledger) -> None:
    run = launched(ledger, SHARED_GPU, "xxxx", "0000")
    run.lost("b", CUDA, "out_of_memory")
    assert run.sharing.place is not None
    assert run.sharing.place.slot == Slot(1, share_of(3))
    assert "1 ran out of a GPU's memory beside 3 others" in rows_of(ledger, "slot_grown")[0]["why"]
    assert rows_of(ledger, "slot_grown")[0]["why"].endswith("4 to 3 on such a GPU")


def test_a_worker_that_never_spoke_may_have_had_any_other_beside_it(ledger: Ledger) -> None:
    run = launched(ledger, FOUR_HOSTS, "y")
    run.hand_out("b")
    run.lost("b", "MemoryError: 2 GB", "out_of_memory")
    assert rows_of(ledger, "lost")[0]["shared"]


def test_no_host_has_room_for_two_so_nobody_was_beside(ledger: Ledger) -> None:
    run = launched(ledger, Place(Slot(4, 0.0), FOUR_HOSTS.hosts), "y")
    run.hand_out("b")
    run.lost("b", "MemoryError: 2 GB", "out_of_memory")
    assert (rows_of(ledger, "lost")[0]["shared"], rows_of(ledger, "lost")[0]["alone"]) == (False, True)


def test_it_is_said_once_and_counted(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.troubles import recorded_troubles, troubles

    progress = Progress(("search",), "x (search)", "val_accuracy", 16)
    run = launched(ledger, FOUR_HOSTS, "xx", observers=(progress,))
    run.lost("a", "MemoryError", "out_of_memory")
    assert capsys.readouterr().err.count("fewer run side by side") == 1
    assert rows_of(ledger, "slot_grown")[0]["slots"] == 4
    section = troubles({"troubles": recorded_troubles(ledger.history)})
    assert "Memory was short for trials side by side 1 time, so fewer ran at once: trial 0 ran" in section.sentences[1]
    assert section.sentences[0].startswith("Of 1 worker process that failed, 1 ran out of memory")


@pytest.mark.parametrize(
    ("memory", "slot"),
    [
        (12 * GB, Slot(2, 0.0, 5 * GB)),  # as it was measured
        (4 * GB, Slot(2, 0.0, int(4 * GB / 1.5))),  # less than then: one alone, and not as many as there are cores
    ],
)
def test_a_slot_stays_what_it_was_and_never_forgets_that_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, memory: int, slot: Slot
) -> None:
    from cluster import session

    monkeypatch.setattr(session, "connect", lambda _: None)
    monkeypatch.setattr(session, "is_own_cluster", lambda: True)
    monkeypatch.setattr(session, "hosts_of", lambda _: [Host(8, 0, memory)])
    asked = dict.fromkeys(("address", "cpus_per_trial", "gpus_per_trial", "max_concurrent", "epoch_timeout"))
    calibrated = {"slot": {"cpus": 2, "gpus": 0.0, "memory": 5 * GB}}
    assert session.open_session(asked, calibrated).slot == slot
    assert session.open_session(asked, {"slot": {"cpus": 2, "gpus": 0.0}}).slot == Slot(2, 0.0)  # of an earlier version


ASKED = dict.fromkeys(("address", "cpus_per_trial", "gpus_per_trial", "max_concurrent", "epoch_timeout"))


def on_hosts(monkeypatch: pytest.MonkeyPatch, *hosts: Host) -> None:
    from cluster import session

    monkeypatch.setattr(session, "connect", lambda _: None)
    monkeypatch.setattr(session, "is_own_cluster", lambda: True)
    monkeypatch.setattr(session, "hosts_of", lambda _: hosts)


def test_on_a_smaller_machine_a_trial_gets_the_cores_there_are_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import session
    from trainables.learned import Needs, worker_parameters

    on_hosts(monkeypatch, Host(8, 0), Host(4, 0))
    settings = {"cnn": {"device": "cpu", "threads": 16}}
    calibrated = {"slot": {"cpus": 16, "gpus": 0.0}, "settings": settings}
    said: list[str] = []
    place = session.open_session(ASKED, calibrated, tell=said.append)
    assert place.slot == Slot(8, 0.0)
    assert said == ["No host has 16 cores for a trial: each gets 8, and figures may differ slightly."]
    given = worker_parameters(Path("x"), {"sources": {}}, calibrated, place.slot.cpus, 30.0, Needs("", {}))
    assert given["settings"] == {"cnn": {"device": "cpu", "threads": 8}}
    on_hosts(monkeypatch, Host(4, 1.0), Host(64, 0))
    assert session.open_session(ASKED, {"slot": {"cpus": 8, "gpus": 0.5}}).slot == Slot(4, 0.5)
    on_hosts(monkeypatch, Host(64, 0, 512 * GB), Host(8, 1.0, 64 * GB))  # only one of them can train
    measured = {"slot": {"cpus": 8, "gpus": 0.25, "memory": 100 * GB}}
    assert session.open_session(ASKED, measured).slot == Slot(8, 0.25, int(64 * GB / 1.5))
    on_hosts(monkeypatch, Host(64, 1.0), Host(4, 2.0))
    assert session.open_session(ASKED, {"slot": {"cpus": 8, "gpus": 2.0}}).slot == Slot(4, 2.0)


def test_another_mac_has_fewer_cores_and_the_same_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import session

    on_hosts(monkeypatch, Host(8, 0))
    monkeypatch.setattr("sys.platform", "darwin")
    calibrated = {"slot": {"cpus": 10, "gpus": 0.0}, "settings": {"cnn": {"device": "mps", "threads": 10}}}
    assert session.open_session(ASKED, calibrated).slot == Slot(8, 0.0)


@pytest.mark.parametrize(("device", "gpus", "kind"), [("cuda", 0.25, "a GPU"), ("mps", 0.0, "Apple's GPU")])
def test_what_was_measured_on_a_gpu_does_not_go_on_without_one(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: float, kind: str
) -> None:
    """Each trial would have ended as infeasible, within a second, until none was left."""
    from cluster import session

    on_hosts(monkeypatch, Host(8, 0))
    monkeypatch.setattr("sys.platform", "linux")
    settings = {"cnn": {"device": device, "threads": 1}}
    calibrated = {"slot": {"cpus": 1, "gpus": gpus}, "settings": settings, "device": "Model X"}
    with pytest.raises(RequestError) as caught:
        session.open_session(ASKED, calibrated)
    assert str(caught.value) == (
        f"the trials of this experiment train on {kind} (Model X), and no host here has one: 8 cores and 0 GPUs. Go on "
        "with it where there is one, or begin another with --name"
    )


def test_what_was_measured_on_a_mac_waits_for_none_to_join_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import session
    from cluster.growth import Coming

    on_hosts(monkeypatch)
    monkeypatch.setattr(session, "is_own_cluster", lambda: False)
    monkeypatch.setattr(session, "coming", lambda _: Coming(unknown=True))
    monkeypatch.setattr("sys.platform", "linux")
    settings = {"cnn": {"device": "mps", "threads": 1}}
    calibrated = {"slot": {"cpus": 1, "gpus": 0.0}, "settings": settings, "device": "Apple M9"}
    with pytest.raises(RequestError, match=r"Apple's GPU \(Apple M9\), and no host here has one: none has joined\. Go"):
        session.open_session(ASKED, calibrated)


def test_a_calibrated_slot_is_kept_where_hosts_of_unknown_kinds_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import session
    from cluster.growth import Coming

    on_hosts(monkeypatch, Host(1, 0))
    monkeypatch.setattr(session, "is_own_cluster", lambda: False)
    monkeypatch.setattr(session, "coming", lambda _: Coming(unknown=True))
    monkeypatch.setattr(session, "room_comes", lambda *_: True)
    calibrated = {"slot": {"cpus": 8, "gpus": 1.0}, "settings": {"cnn": {"device": "cuda", "threads": 8}}}
    assert session.open_session(ASKED, calibrated).slot == Slot(8, 1.0)


def test_ray_is_asked_for_what_the_slot_says() -> None:
    assert Slot(2, 0.5).request() == {"cpu": 2, "gpu": 0.5}
    assert Slot(2, 0.0, GB).request() == {"cpu": 2, "gpu": 0.0, "memory": GB}


def test_hosts_are_read_as_ray_lists_them() -> None:
    def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
        return {"Alive": alive, "NodeManagerHostname": name, "NodeID": f"id-{name}", "Resources": resources}

    gpu = {"GPU": 2.0, "accelerator_type:T4": 1.0, "memory": 8.0 * GB}
    nodes = [node("a", CPU=4.0, **gpu), node("b", CPU=2.0), node("c", alive=False, CPU=2.0)]
    found = hosts_of(SimpleNamespace(nodes=lambda: nodes))
    assert found == [Host(4, 2, 8 * GB, "T4", "a", "id-a"), Host(2, 0, name="b", node="id-b")]
    assert of_kind("T4") == {"accelerator_type:T4": 0.001}
    assert of_kind("") == {}

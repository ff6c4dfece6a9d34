"""How many trials share a host or a GPU: what is measured, when, and what comes of it. No GPU is needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import spaces
from cluster.ledger import Ledger
from cluster.resources import Host, Place, Slot
from cluster.shares import share_of
from search import calibration, sharing
from search.largest import candidates, largest
from search.request import Request
from search.sharing import PROCESS_BYTES, by_gpu, by_host_memory
from search.spec import checked_spec
from trainables.footprint import Footprint
from trainables.samples import Sample
from trainables.settings import Settings

GB = 10**9


def request(*architectures: str, side: int = 32, images: int = 1000, **asked: Any) -> Request:
    spec = checked_spec({"data": "digits", "name": "x"} | asked)
    array = np.zeros((images, 1, 1, 1), np.uint8)
    cache: Any = SimpleNamespace(
        image_shape=(3, side, side),
        classes=("a", "b"),
        counts={"train": {"a": images}, "val": {"a": images // 5}},
        arrays=lambda: (array, array),
    )
    return Request(spec, cache, {name: spaces.load(name) for name in architectures}, {})


def measured(monkeypatch: pytest.MonkeyPatch, **host_bytes: int) -> list[str]:
    """Let the largest configuration of each architecture have taken so much; return the list of what was measured."""
    seen: list[str] = []

    def run(function: Any, slot: Slot, found: Any, *_: Any) -> dict[str, Footprint]:
        seen.extend(each.architecture for each in found)
        return {each.architecture: Footprint(host_bytes[each.architecture]) for each in found}

    monkeypatch.setattr(sharing, "run_in_slot", run)
    monkeypatch.setattr(sharing, "is_own_cluster", lambda: True)
    return seen


def test_the_largest_configuration_is_no_smaller_than_any_that_is_drawn() -> None:
    asked = request("vgg11")
    (found,) = largest(asked)
    assert found.config["batch_size"] == 128
    for config in candidates(asked.spaces["vgg11"]):
        known = asked.preflight("vgg11", config)
        assert found.trial_bytes >= config["batch_size"] * known.kept_bytes + known.state_bytes


def test_of_transfer_models_the_one_whose_layers_all_train_is_the_largest() -> None:
    asked = request("mobilenet_v2")
    (found,) = largest(asked)
    assert (found.config["trainable_layers"], found.config["input_size"]) == ("all", 224)
    assert found.kept_bytes > 50e6  # and not that of the head alone, with which it begins


def test_where_memory_cannot_be_short_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = measured(monkeypatch)
    shares = by_host_memory(request("cnn"), Place(Slot(1, 0.0), [Host(2, 0, 16 * GB)]), 20)
    assert (shares.slot, shares.sentence, seen) == (Slot(1, 0.0), None, [])
    assert shares.row["reckoned_mb"]["cnn"] > PROCESS_BYTES / 1e6
    one_trial = by_host_memory(request("cnn"), Place(Slot(1, 0.0), [Host(64, 0, 16 * GB)]), 1)
    assert (one_trial.slot.memory, seen) == (0, [])


def test_trials_are_bounded_by_memory_and_get_the_cores_that_it_leaves_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = measured(monkeypatch, cnn=2 * GB, vgg11=3 * GB)
    place = Place(Slot(1, 0.0), [Host(64, 0, 16 * GB)])
    shares = by_host_memory(request("cnn", "vgg11"), place, 100)
    assert seen == ["cnn", "vgg11"]
    assert shares.slot.how_many(place.hosts) == 4  # of 3.3 GB
    assert shares.slot.cpus == 16
    assert shares.row["measured_mb"] == {"cnn": 2000, "vgg11": 3000}
    takes = "the largest configuration, of vgg11, takes 3.0 GB of a host's 16.0 GB"
    assert shares.sentence == f"Memory: {takes}, so 4 and not 64 run side by side."
    asked = by_host_memory(request("cnn", "vgg11", cpus_per_trial=2), Place(Slot(2, 0.0), place.hosts), 100)
    assert (asked.slot.cpus, asked.slot.how_many(place.hosts)) == (2, 4)


def test_what_was_measured_and_is_not_short_changes_only_what_is_asked_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, cnn=GB)
    shares = by_host_memory(request("cnn"), Place(Slot(1, 0.0), [Host(8, 0, 10 * GB)]), 100)
    assert (shares.slot.cpus, shares.sentence) == (1, None)
    assert shares.slot.memory == 1_100_000_000 + 125  # an eighth of the images, which lie there once


def test_where_the_system_does_not_tell_the_slot_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "run_in_slot", lambda *_: {"cnn": None})
    monkeypatch.setattr(sharing, "is_own_cluster", lambda: True)
    place = Place(Slot(1, 0.0), [Host(64, 0, 16 * GB)])
    assert by_host_memory(request("cnn"), place, 100).slot == place.slot


Rates = dict[str, dict[int, float]]


def on_gpus(monkeypatch: pytest.MonkeyPatch, totals: dict[str, int], rates: Rates, host_bytes: int = GB) -> list[Any]:
    """Let each kind of GPU have so much memory and be so fast, and a trial of any take 4 GB; return what was asked."""
    asked: list[Any] = []

    def run(function: Any, kind: str, slot: Slot, *_: Any, **options: Any) -> Any:
        asked.append((kind, slot, options.get("counts")))
        if "counts" not in options:
            return {"cnn": Footprint(host_bytes, 4 * GB, GB // 2, totals[kind])}
        return {number: 1000.0 * rates[kind][number] for number in options["counts"]}

    monkeypatch.setattr(sharing, "run_on_kind", run)
    return asked


SETTINGS = {"cnn": Settings("cuda", threads=16)}
SAMPLES = [Sample("cnn", spaces.load("cnn").baseline)]
H100 = {"H100": {1: 1.0, 2: 1.9, 4: 3.0, 8: 4.5, 16: 4.6}}


def test_as_many_trials_share_a_gpu_as_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = on_gpus(monkeypatch, {"H100": 80 * GB}, H100)
    place = Place(Slot(16, 1.0), [Host(16, 1, 128 * GB, "H100")])
    shares = by_gpu(request("cnn", gpus_per_trial="auto"), place, SETTINGS, SAMPLES, 100)
    assert (shares.slot.cpus, shares.slot.gpus) == (2, share_of(8))
    assert shares.slot.how_many(place.hosts) == 8
    assert [(kind, slot, counts) for kind, slot, counts in asked] == [
        ("H100", Slot(16, 1.0), None),
        ("H100", Slot(16, 1.0), [1, 2, 4, 8, 16]),
    ]
    assert shares.row["trials_per_gpu"] == 8
    (kind,) = shares.row["kinds"]
    assert (kind["fits"], kind["trial_mb"], kind["total_mb"]) == (17, 4000, 80_000)  # a copy of the data has 1 KB
    assert kind["epochs_per_second"]["8"] == pytest.approx(4.5)
    assert shares.sentence == (
        "GPU: 8 trials on each at a time, 4.50 times as fast together as one; memory for 17 on H100."
    )


def test_each_process_has_its_own_copy_of_the_data_where_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(Slot(16, 1.0), [Host(16, 1, 128 * GB, "H100")])
    for cached, fits in ((2 * GB, 12), (25 * GB, 18)):  # what takes more than 30 % of the GPU stays on the host
        on_gpus(monkeypatch, {"H100": 80 * GB}, H100)
        monkeypatch.setattr(sharing, "_cached_bytes", lambda _, size=cached: size)
        shares = by_gpu(request("cnn", gpus_per_trial="auto"), place, SETTINGS, SAMPLES, 100)
        assert shares.row["kinds"][0]["fits"] == fits


def test_no_more_are_measured_than_trials_and_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(Slot(8, 1.0), [Host(16, 2, 128 * GB, "H100")])
    asked = on_gpus(monkeypatch, {"H100": 80 * GB}, H100)
    by_gpu(request("cnn", gpus_per_trial="auto", cpus_per_trial=2), place, SETTINGS, SAMPLES, 100)
    by_gpu(request("cnn", gpus_per_trial="auto", max_concurrent=4), place, SETTINGS, SAMPLES, 100)
    by_gpu(request("cnn", gpus_per_trial="auto"), place, SETTINGS, SAMPLES, 1)
    assert [counts for _, _, counts in asked if counts] == [[1, 2, 4], [1, 2], [1]]


def test_every_kind_of_gpu_is_measured_and_one_slot_fits_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = H100 | {"T4": {1: 0.3, 2: 0.5, 4: 0.6}}
    asked = on_gpus(monkeypatch, {"H100": 80 * GB, "T4": 16 * GB}, rates)
    hosts = [Host(16, 1, 128 * GB, "H100"), Host(8, 1, 64 * GB, "T4"), Host(32, 0, 64 * GB)]
    shares = by_gpu(request("cnn", gpus_per_trial="auto"), Place(Slot(8, 1.0), hosts), SETTINGS, SAMPLES, 100)
    assert [(kind, slot.cpus) for kind, slot, counts in asked if counts is None] == [("H100", 16), ("T4", 8)]
    assert shares.row["trials_per_gpu"] == 2  # 3 fit on the smaller
    assert [shares.slot.fit(host) for host in hosts] == [2, 2, 0]
    assert shares.sentence is not None
    assert "memory for 17 on H100 and 3 on T4" in shares.sentence


def test_processes_on_a_gpu_share_the_memory_of_its_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch, {"H100": 80 * GB}, H100, host_bytes=4 * GB)
    place = Place(Slot(16, 1.0), [Host(16, 1, 16 * GB, "H100")])
    shares = by_gpu(request("cnn", gpus_per_trial="auto"), place, SETTINGS, SAMPLES, 100)
    assert shares.slot.how_many(place.hosts) == 3
    assert shares.sentence is not None
    assert shares.sentence.endswith("takes 4.0 GB of a host's 16.0 GB, so 3 and not 8 run side by side.")


def test_what_memory_decided_is_told_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {"slot": {"cpus": 1, "gpus": 0.0, "memory": 5}, "shares": {"sentence": "Memory: little."}}
    monkeypatch.setattr(calibration, "measured", lambda *_: row)
    said: list[str] = []
    with Ledger(tmp_path) as ledger:
        calibration.calibrate(request("cnn"), ledger, 3, said.append)
        assert ledger.history.calibrated is not None
        assert ledger.history.calibrated["slot"]["memory"] == 5
    assert said == ["Memory: little."]

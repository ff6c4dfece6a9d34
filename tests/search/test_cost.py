"""A time budget is not spent on configurations that could not be trained within it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import spaces
from cluster.history import History
from foundation import RequestError
from search.cost import Costs
from search.flops import flops as counted
from search.preflight import Preflight
from search.request import Request
from search.run import COSTED_DRAWS, Planner
from search.spec import checked_spec
from spaces import Choice, Knob
from spaces.training import TRAINING


def request(*, time_budget: str | None, method: str = "random") -> Request:
    asked = {"data": "made", "name": "x", "arch": ["cnn"], "trials": 200, "epochs": 10, "method": method}
    spec = checked_spec(asked | ({"time_budget": time_budget} if time_budget else {}))
    cache: Any = SimpleNamespace(image_shape=(3, 32, 32), classes=("a", "b"), counts={"train": {"a": 600, "b": 400}})
    return Request(spec, cache, {"cnn": spaces.load("cnn")}, {})


def epoch(history: History, trial: int, images_per_second: float, **more: Any) -> None:
    number = len(history.trials[trial].epochs) + 1
    row = {"trial": trial, "attempt": 1, "epoch": number, "val_accuracy": 0.5, "val_loss": 1.0, "seconds": 1.0}
    row |= {"images_per_second": images_per_second, **more}
    history.apply({"seq": history.last_seq + 1, "time": 0.0, "incarnation": 1, "event": "epoch", **row})


def propose(planner: Planner, history: History) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    proposal = planner.next_work(history)
    assert proposal is not None
    row = {"trial": history.next_trial(), "role": "search", "architecture": proposal.architecture}
    row |= {"config": proposal.config}
    row |= {"seed": proposal.seed, "work": proposal.work, "method": proposal.method}
    history.apply({"seq": history.last_seq + 1, "time": 0.0, "incarnation": 1, "event": "proposed", **row})
    start = {"trial": row["trial"], "attempt": 1, "n_params": 1}
    history.apply({"seq": history.last_seq + 1, "time": 0.0, "incarnation": 1, "event": "started", **start})
    return proposal.config, list(proposal.rejected)


def flops(config: dict[str, Any]) -> int:
    return counted("cnn", config, (3, 32, 32), 2, None, 1).whole


def test_each_architectures_baseline_is_built_before_anything_is_made() -> None:
    asked = request(time_budget=None)
    baseline = {name: value for name, value in asked.spaces["cnn"].baseline.items() if name in TRAINING}
    mine = spaces.Space("mine", dict(TRAINING), baseline)
    source = "def build(image_shape, classes):\n    raise ValueError('images of 64 pixels are needed')\n"
    with pytest.raises(RequestError, match=r"mine: its baseline cannot be built .*images of 64 pixels are needed"):
        Planner(replace(asked, spaces={**asked.spaces, "mine": mine}, sources={"mine": source})).check()
    Planner(asked).check()


def test_operations_are_those_of_the_layers() -> None:
    source = (
        "from torch import nn\n\ndef build(image_shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, classes))\n"
    )
    found = counted("mine", spaces.TRAINING_BASELINE, (3, 32, 32), 2, source, 1)
    assert found.whole == 2 * (900 * 4 * 27 + 3600 * 2)


def test_what_could_not_end_within_the_budget_is_drawn_again_and_said() -> None:
    planner, history = Planner(request(time_budget="100s")), History()
    baseline, rejected = propose(planner, history)
    assert not rejected  # nothing is known before an epoch has ended
    epoch(history, 0, images_per_second=200.0)  # 5 s an epoch: the baseline fits twice into the budget
    most = 2 * flops(baseline)
    proposed = [propose(planner, history) for _ in range(30)]
    assert all(flops(config) <= most for config, _ in proposed)
    refused = [row for _, rows in proposed for row in rows]
    assert refused
    assert all(flops(row["config"]) > most and row["cause"] == "too_long" for row in refused)
    assert refused[0]["why"].startswith("its 10 epochs would take ")
    left = "s at least, at the best speed measured, and 100 s of the time budget of 100 s are left"
    assert refused[0]["why"].endswith(left)


def test_without_a_budget_or_with_a_long_one_the_proposals_are_the_same() -> None:
    found = []
    for time_budget in (None, "100h"):
        planner, history = Planner(request(time_budget=time_budget)), History()
        first = propose(planner, history)
        epoch(history, 0, images_per_second=200.0)
        found.append([first, *(propose(planner, history) for _ in range(10))])
    assert found[0] == found[1]


def test_a_budget_for_which_everything_is_too_long_still_tries() -> None:
    planner, history = Planner(request(time_budget="1s")), History()
    propose(planner, history)
    epoch(history, 0, images_per_second=1.0)
    config, rejected = propose(planner, history)
    assert len(rejected) == COSTED_DRAWS
    assert flops(config) > 0


def test_a_frozen_backbone_is_not_too_long_though_computing_it_each_time_would_be() -> None:
    asked = request(time_budget="100s")
    space = spaces.load("mobilenet_v2")
    planner, history = Planner(replace(asked, spaces={"mobilenet_v2": space})), History()
    plain = dict.fromkeys(("flip", "rotation", "shift", "zoom", "shear", "cutout"), 0.0)
    transfer = dict(space.baseline) | plain | {"weights": "none", "augmented_views": 0}
    costs = Costs(planner.request)
    figures = {"mobilenet_v2": {"fp32 channels_last": 20.0}}  # 500 s for 10 epochs of 1,000 images
    row = {"event": "calibrated", "images_per_second": figures, "seq": history.last_seq + 1}
    history.apply({**row, "time": 0.0, "incarnation": 1})
    frozen = transfer | {"trainable_layers": 0}
    assert costs.too_long("mobilenet_v2", frozen | {"flip": 0.5}, history)
    assert costs.too_long("mobilenet_v2", transfer | {"trainable_layers": "all", "frozen_epochs": 1}, history)
    assert costs.too_long("mobilenet_v2", frozen, history) is None


@pytest.mark.parametrize(("reads_features", "refuses"), [(False, True), (True, False)])
def test_epochs_that_read_features_say_nothing_of_the_speed(reads_features: bool, refuses: bool) -> None:
    planner, history = Planner(request(time_budget="100s")), History()
    baseline, _ = propose(planner, history)
    epoch(history, 0, images_per_second=50.0, reads_features=reads_features)
    why = Costs(planner.request).too_long("cnn", baseline, history)
    assert (why is not None) == refuses


def test_the_speed_measured_beforehand_counts_where_the_machine_was_busy_since() -> None:
    planner, history = Planner(request(time_budget="100s")), History()
    baseline, _ = propose(planner, history)
    epoch(history, 0, images_per_second=50.0)  # other work took the cores
    assert Costs(planner.request).too_long("cnn", baseline, history)
    figures = {"cnn": {"fp32 channels_last": 600.0, "fp32 contiguous": 400.0}}
    row = {"event": "calibrated", "images_per_second": figures, "seq": history.last_seq + 1}
    history.apply({**row, "time": 0.0, "incarnation": 1})
    assert Costs(planner.request).too_long("cnn", baseline, history) is None


def test_tpe_learns_from_what_was_refused() -> None:
    planner, history = Planner(request(time_budget="100s", method="tpe")), History()
    propose(planner, history)
    epoch(history, 0, images_per_second=120.0)
    for _ in range(9):
        propose(planner, history)
    for trial in range(1, 10):  # the larger, the better: TPE wants what the budget forbids
        row = {"event": "ended", "trial": trial, "status": "completed", "seq": history.last_seq + 2}
        epoch(history, trial, images_per_second=1.0, val_accuracy=flops(history.trials[trial].config) / 1e9)
        history.apply({**row, "time": 0.0, "incarnation": 1})
    refused = [len(propose(planner, history)[1]) for _ in range(5)]
    assert max(refused) < COSTED_DRAWS


def trained(planner: Planner, trials: int, seconds: Callable[[dict[str, Any]], float], gone: int = 900) -> History:
    """Return what is known when so many trials have had an epoch of so many seconds, the larger ones the better."""
    history = History()
    for trial in range(trials):
        config, _ = propose(planner, history)
        took = seconds(config)
        value = flops(config) / 1e9 if "filters" in config else 0.5
        epoch(history, trial, val_accuracy=value, seconds=took, images_per_second=1000 / max(took, 1e-9))
        row = {"event": "ended", "trial": trial, "status": "completed", "seq": history.last_seq + 1}
        history.apply({**row, "time": 0.0, "incarnation": 1})
    history.seconds["search"] = gone
    return history


def by_operations(config: dict[str, Any]) -> float:
    return 1.0 + flops(config) / 1e7


def test_what_a_value_costs_are_the_seconds_of_the_baseline_with_it() -> None:
    planner = Planner(request(time_budget="1h"))
    found = Costs(planner.request).prices(planner.request.spaces["cnn"], trained(planner, 9, by_operations))
    assert found is not None
    baseline = planner.request.spaces["cnn"].baseline
    assert set(found) == {"depth", "filters", "kernel", "dense_layers", "dense_units"}  # not the batch size, nor rates
    assert [value for value, _ in found["depth"]] == [2, 4, 6]
    for filters, price in found["filters"]:
        assert math.exp(price / 0.75) == pytest.approx(by_operations(baseline | {"filters": filters}), rel=0.01)


@pytest.mark.parametrize(("gone", "weight"), [(900, 0.75), (1800, 0.5), (3600, 0.0), (4000, 0.0)])
def test_seconds_count_the_less_the_more_of_them_are_gone(gone: int, weight: float) -> None:
    planner = Planner(request(time_budget="1h"))
    space = planner.request.spaces["cnn"]
    found, first = (
        Costs(planner.request).prices(space, trained(planner, 9, by_operations, gone=each)) for each in (gone, 900)
    )
    assert found
    assert first
    assert dict(found["filters"]) == pytest.approx({n: weight * price / 0.75 for n, price in first["filters"]})


@pytest.mark.parametrize(
    ("time_budget", "trials", "gone", "priced"),
    [
        ("1h", 9, 900, True),
        (None, 9, 900, False),
        ("1h", 0, 900, False),  # no epoch has ended
        ("1h", 9, 154, False),  # 191 more would take 3,268 s, as fast as these nine; 3,446 s are left
        ("1h", 9, 170, True),
    ],
)
def test_seconds_have_a_price_only_where_they_are_what_is_scarce(
    time_budget: str | None, trials: int, gone: int, priced: bool
) -> None:
    planner = Planner(request(time_budget=time_budget))
    history = trained(planner, trials, by_operations, gone)
    assert (Costs(planner.request).prices(planner.request.spaces["cnn"], history) is not None) == priced


class NoneOfSixLayers(Request):
    def preflight(self, architecture: str, config: Mapping[str, Any]) -> Preflight:
        return Preflight("too deep") if config["depth"] == 6 else super().preflight(architecture, config)


def test_a_value_that_cannot_be_built_has_no_price() -> None:
    asked = request(time_budget="1h")
    history = trained(Planner(asked), 9, by_operations)
    found = Costs(NoneOfSixLayers(asked.spec, asked.cache, asked.spaces, {})).prices(asked.spaces["cnn"], history)
    assert found is not None
    assert [value for value, _ in found["depth"]] == [2, 4]


def test_tpe_proposes_cheaper_configurations_under_a_time_budget() -> None:
    operations = {}
    for time_budget in (None, "1h"):
        planner = Planner(request(time_budget=time_budget, method="tpe"))
        history = trained(planner, 12, by_operations)
        configs = [propose(planner, history)[0] for _ in range(10)]
        operations[time_budget] = sum(map(flops, configs)) / len(configs)
    assert operations["1h"] < 0.67 * operations[None]


def test_near_the_end_only_what_can_still_end_is_proposed_and_then_anything() -> None:
    planner, history = Planner(request(time_budget="1000s")), History()
    baseline, _ = propose(planner, history)
    epoch(history, 0, images_per_second=200.0)  # 5 s an epoch of the baseline, 50 s in all
    costs = Costs(planner.request)
    for left, smallest, large in ((1000, None, None), (60, None, "left"), (3, None, None)):
        history.seconds["search"] = 1000 - left
        assert costs.too_long("cnn", baseline, history) is smallest
        found = costs.too_long("cnn", baseline | {"filters": 64}, history)
        assert (found is None) == (large is None), left


def test_lists_have_prices_as_numbers_have_and_epochs_of_no_time_tell_nothing() -> None:
    source = (
        "from torch import nn\n\ndef build(image_shape, classes, *, widths):\n"
        "    return nn.Sequential(nn.Conv2d(3, widths[0], 3), nn.Flatten(), nn.Linear(900 * widths[0], classes))\n"
    )
    space = spaces.assembled("mine", {"widths": Knob(Choice(([8], [64])), "", "two")}, {"widths": [8]})
    asked = request(time_budget="1h")
    planner = Planner(Request(asked.spec, asked.cache, {"mine": space}, {"mine": source}))
    assert Costs(planner.request).prices(space, trained(planner, 1, lambda _: 0.0)) is None
    found = Costs(planner.request).prices(space, trained(planner, 1, lambda _: 4.0))
    assert found is not None
    (small, low), (large, high) = found["widths"]
    assert (small, large) == ([8], [64])
    assert low == pytest.approx(0.75 * math.log(4.0))
    assert high >= low

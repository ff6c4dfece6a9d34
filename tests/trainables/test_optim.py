import math

import pytest
import torch
from torch import nn
from torch.profiler import profile

from spaces import TRAINING_BASELINE
from trainables.optim import LearningRateCurve, make_optimizer
from trainables.recipe import KNOBS, Recipe, split


def recipe(**changes: object) -> Recipe:
    return split(TRAINING_BASELINE | changes)[0]


def curve(schedule: str, epochs: int = 20, warmup: int = 0) -> LearningRateCurve:
    return LearningRateCurve(recipe(schedule=schedule, warmup_epochs=warmup, learning_rate=0.1), epochs)


def test_the_recipe_takes_its_knobs_and_leaves_the_model_the_rest() -> None:
    found, knobs = split(TRAINING_BASELINE | {"depth": 3})
    assert found.learning_rate == TRAINING_BASELINE["learning_rate"]
    assert knobs == {"depth": 3}
    assert set(TRAINING_BASELINE) <= set(KNOBS)
    with pytest.raises(KeyError, match=r"lacks the training knobs .*learning_rate"):
        split({"depth": 3})


@pytest.mark.parametrize(
    ("schedule", "epoch", "fraction", "expected"),
    [
        ("constant", 19, 0.9, 0.1),
        ("step", 9, 0.99, 0.1),
        ("step", 10, 0.0, 0.01),
        ("step", 15, 0.0, 0.001),
        ("cosine", 0, 0.0, 0.1),
        ("cosine", 10, 0.0, 0.05),
        ("cosine", 20, 0.0, 0.0),
        ("one_cycle", 0, 0.0, 0.1 / 25),
        ("one_cycle", 6, 0.0, 0.1),
        ("one_cycle", 20, 0.0, 0.1 * 1e-4),
    ],
)
def test_schedules_pass_through_their_known_points(schedule: str, epoch: int, fraction: float, expected: float) -> None:
    assert curve(schedule).at(epoch, fraction) == pytest.approx(expected, abs=1e-9)


def test_warm_up_rises_linearly_and_ends_before_training_does() -> None:
    warm = curve("constant", epochs=10, warmup=2)
    assert [warm.at(0, 0.5), warm.at(1, 0.0), warm.at(2, 0.0)] == pytest.approx([0.025, 0.05, 0.1])
    assert 0 < warm.at(0, 0.0) < 0.01
    assert curve("constant", epochs=1, warmup=3).at(0, 0.0) == 0.1


def test_plateau_halves_after_two_epochs_without_a_lower_loss_and_a_recorded_run_is_replayed() -> None:
    live = curve("plateau")
    rates = []
    for epoch, loss in enumerate([1.0, 0.9, 0.95, 0.92, 0.91, 0.99]):
        rates.append(live.at(epoch, 0.5))
        live.observe(loss)
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    replayed = LearningRateCurve(recipe(schedule="plateau", learning_rate=0.1), 20, recorded=rates)
    assert [replayed.at(epoch, 0.3) for epoch in range(6)] == rates


def test_every_other_schedule_replays_by_itself_since_time_is_counted_in_epochs() -> None:
    for schedule in ("constant", "step", "cosine", "one_cycle"):
        first, again = curve(schedule), curve(schedule)
        again.observe(5.0)
        assert [first.at(epoch, 0.5) for epoch in range(20)] == [again.at(epoch, 0.5) for epoch in range(20)]


def test_a_curve_goes_on_from_its_kept_state() -> None:
    live = curve("plateau")
    for loss in (1.0, 2.0, 2.0, 0.5):
        live.observe(loss)
    again = curve("plateau")
    again.restore(live.state())
    assert again.at(5, 0.0) == live.at(5, 0.0) == 0.05
    assert (again.lowest, again.waited) == (0.5, 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimizers_lower_a_loss_and_leave_biases_undecayed(optimizer: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    extra = {"momentum": 0.9} if optimizer in ("sgd", "rmsprop") else {}
    made = make_optimizer(recipe(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, **extra), model)
    inputs, targets = torch.randn(64, 4), torch.randn(64, 2)
    losses = []
    for _ in range(30):
        made.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        made.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(math.isfinite(value) for value in losses)
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_layers_that_thaw_get_the_steps_of_torchs_plain_sgd(momentum: float) -> None:
    """The fused step fails where some parameters have a momentum already and others have none."""

    def weights(fused: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
        made = make_optimizer(recipe(optimizer="sgd", momentum=momentum, weight_decay=0.01), model)
        assert made.defaults["fused"]
        for group in made.param_groups:
            group["fused"] = fused
        model[0].requires_grad_(False)
        for step in range(4):
            model[0].requires_grad_(step >= 2)
            made.zero_grad()
            model(torch.full((3, 6), step + 1.0)).square().sum().backward()
            made.step()
        return [parameter.detach() for parameter in model.parameters()]

    for fused, plain in zip(weights(True), weights(False), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-7)


def test_unknown_words_are_named_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"'lion' is not known: allowed are adam, adamw, rmsprop, sgd"):
        make_optimizer(recipe(optimizer="lion"), nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"'linear' is not known: allowed are constant"):
        curve("linear").at(0, 0.0)


ORDERS = {"channels-last": torch.channels_last, "plain": torch.contiguous_format}


def convolutions(order: torch.memory_format) -> nn.Module:
    """Return layers whose weights have one channel, one filter, one place and several of each, with their gradients."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 1, 3), nn.Conv2d(16, 8, 1), nn.Linear(8, 4)]
    return nn.Sequential(*layers).to(memory_format=order)


def steps_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    torch.manual_seed(2)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        optimizer.step()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_a_step_gives_the_bits_and_the_state_of_torchs_own(
    name: str, kind: type[torch.optim.Optimizer], order: str
) -> None:
    ours, theirs = convolutions(ORDERS[order]), convolutions(ORDERS[order])
    chosen = recipe(optimizer=name, weight_decay=0.01, learning_rate=0.1)
    optimizer = make_optimizer(chosen, ours)
    groups = [
        {"params": [each for each in theirs.parameters() if each.ndim >= 2], "weight_decay": 0.01},
        {"params": [each for each in theirs.parameters() if each.ndim < 2], "weight_decay": 0.0},
    ]
    own = kind(groups, lr=0.1, fused=True)  # type: ignore[call-arg]
    steps_of(optimizer, ours)
    steps_of(own, theirs)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
        for key, value in own.state[other].items():
            assert torch.equal(optimizer.state[one][key], value)
            assert optimizer.state[one][key].stride() == value.stride()
    assert optimizer.state_dict().keys() == own.state_dict().keys()


def test_a_step_copies_no_gradient_whatever_order_it_is_stored_in() -> None:
    model = convolutions(torch.channels_last)
    optimizer = make_optimizer(recipe(optimizer="adam"), model)
    steps_of(optimizer, model)
    with profile() as found:
        optimizer.step()
    assert "aten::_fused_adam_" in {each.name for each in found.events()}
    assert "aten::clone" not in {each.name for each in found.events()}
    own = torch.optim.Adam(model.parameters(), fused=True)
    own.step()
    with profile() as found:
        own.step()
    assert "aten::clone" in {each.name for each in found.events()}, "torch has mended it: optim._AsStored can go"

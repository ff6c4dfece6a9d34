"""Dropout: how many values it drops, what it does to the others, and when it leaves all as they are."""

import pytest
import torch
from torch import nn

from trainables.models._dropout import Dropout

COUNT = 200_003  # no multiple of the four values that one random number serves


def dropped(p: float, seed: int = 1, kind: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(COUNT, dtype=kind))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.75, 0.99])
def test_it_drops_the_share_that_was_asked_for(p: float) -> None:
    share = (dropped(p) == 0).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / COUNT) ** 0.5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_stays_grows_so_that_the_sum_is_the_same(kind: torch.dtype) -> None:
    values = dropped(0.2, kind=kind)
    assert values.dtype == kind
    assert set(values.double().unique().tolist()) == {0.0, torch.tensor(1.25, dtype=kind).double().item()}


def test_each_value_is_drawn_by_itself() -> None:
    kept = (dropped(0.5)[: COUNT // 4 * 4] != 0).double().view(-1, 4) - 0.5
    alike = kept.T @ kept / len(kept)  # 0.25 with itself
    assert torch.allclose(alike, 0.25 * torch.eye(4, dtype=torch.float64), atol=0.006)
    following = (kept[:-1] * kept[1:]).mean().item()
    assert abs(following) < 0.006


def test_the_seed_decides() -> None:
    assert torch.equal(dropped(0.5, seed=3), dropped(0.5, seed=3))
    assert not torch.equal(dropped(0.5, seed=3), dropped(0.5, seed=4))


def test_the_gradient_is_that_of_what_stayed() -> None:
    images = torch.randn(7, 33, requires_grad=True)
    torch.manual_seed(1)
    result = Dropout(0.3)(images)
    result.sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad * images, result)
    assert set(images.grad.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_all_are_dropped_as_by_torch(p: float) -> None:
    images = torch.randn(5, 5)
    assert torch.equal(Dropout(p)(images), nn.Dropout(p)(images))


def test_nothing_is_dropped_where_nothing_is_learned() -> None:
    images = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(images), images)


def test_shapes_can_be_followed_without_values() -> None:
    assert Dropout(0.5)(torch.empty(3, 5, device="meta")).shape == (3, 5)

"""Convolution of small images in bf16: it learns what torch's own does, and steps aside everywhere else."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.models import build_classifier
from trainables.models._convolution import Conv2d

BF16 = 2**-8  # the relative error of a rounded number, at most
CASES = {  # images, channels, filters, side, kernel, stride
    "one place": (8, 16, 24, 1, 3, 1),
    "2 x 2": (32, 48, 64, 2, 3, 1),
    "2 x 2 of 3 x 3": (8, 16, 24, 3, 3, 2),
    "4 x 4": (32, 48, 64, 4, 3, 1),
    "4 x 4, kernel 1": (8, 16, 24, 4, 1, 1),
    "4 x 4 of 8 x 8": (8, 3, 24, 8, 3, 2),
    "too large": (8, 16, 24, 5, 3, 1),
    "too many taps": (8, 16, 24, 2, 5, 1),
}


@pytest.fixture(params=[torch.channels_last, torch.contiguous_format], ids=["channels-last", "plain"])
def order(request: Any) -> torch.memory_format:
    found: torch.memory_format = request.param
    return found


def layer(case: str, kind: type[nn.Conv2d], order: torch.memory_format, bias: bool = True) -> nn.Conv2d:
    _, channels, filters, _, kernel, stride = CASES[case]
    torch.manual_seed(1)
    made = kind(channels, filters, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return made.to(memory_format=order)


def learned(conv: nn.Conv2d, images: Tensor) -> Iterator[Tensor]:
    """Give the result of a step in bf16, then the gradients: of the images and of all parameters."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = conv(images.bfloat16())
    torch.manual_seed(2)
    result.backward(torch.randn(result.shape).to(result.dtype))
    yield from (result, images.grad, *(each.grad for each in conv.parameters()))


def images_of(case: str, order: torch.memory_format) -> Tensor:
    count, channels, _, side, _, _ = CASES[case]
    torch.manual_seed(3)
    return torch.randn(count, channels, side, side).bfloat16().float().contiguous(memory_format=order)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_exact_numbers_give_but_for_rounding(case: str, bias: bool, order: torch.memory_format) -> None:
    images = images_of(case, order)
    exact = layer(case, nn.Conv2d, order, bias).double()
    for parameter in exact.parameters():
        parameter.data = parameter.data.float().bfloat16().double()
    truth = images.double().requires_grad_()
    result = exact(truth)
    torch.manual_seed(2)
    result.backward(torch.randn(result.shape).bfloat16().double())
    expected = (result, truth.grad, *(each.grad for each in exact.parameters()))
    for found, right in zip(learned(layer(case, Conv2d, order, bias), images), expected, strict=True):
        assert right is not None
        assert found.shape == right.shape
        assert (found.double() - right).norm() < BF16 * right.norm()


@pytest.mark.parametrize("case", [each for each in CASES if not each.startswith("too")])
def test_the_weights_gradient_is_stored_as_the_weights_are(case: str) -> None:
    conv = layer(case, Conv2d, torch.channels_last)
    list(learned(conv, images_of(case, torch.channels_last)))
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()
    assert conv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("case", CASES)
def test_what_follows_may_change_the_result_in_its_place(case: str, bias: bool, order: torch.memory_format) -> None:
    gradients = []
    for inplace in (True, False):
        conv, images = layer(case, Conv2d, order, bias).bfloat16(), images_of(case, order).bfloat16()
        result = nn.ReLU(inplace=inplace)(conv(images))
        result.backward(torch.ones_like(result))
        gradients.append([result, *(each.grad for each in conv.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_the_same_step_gives_the_same_bits(case: str, order: torch.memory_format) -> None:
    images = images_of(case, order)
    once, again = (list(learned(layer(case, Conv2d, order), images)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_images_that_want_no_gradient_get_none() -> None:
    conv = layer("2 x 2", Conv2d, torch.channels_last)
    images = images_of("2 x 2", torch.channels_last).bfloat16()
    conv.to(torch.bfloat16)(images).float().sum().backward()
    assert images.grad is None
    assert conv.weight.grad is not None


def _is_torchs_own(conv: nn.Conv2d, images: Tensor) -> bool:
    name = type(conv(images).grad_fn).__name__
    return name in ("ConvolutionBackward0", "NoneType")


def test_it_is_torchs_own_where_that_is_faster_or_nothing_is_learned() -> None:
    conv, images = layer("2 x 2", Conv2d, torch.channels_last), images_of("2 x 2", torch.channels_last)
    assert _is_torchs_own(conv, images)  # fp32
    for case in CASES:
        own = _is_torchs_own(
            layer(case, Conv2d, torch.channels_last).bfloat16(), images_of(case, torch.channels_last).bfloat16()
        )
        assert own == case.startswith("too"), case
    conv, images = conv.bfloat16(), images.bfloat16()
    assert not _is_torchs_own(conv, images)
    with torch.no_grad():
        assert _is_torchs_own(conv, images)
    assert _is_torchs_own(conv.eval(), images.requires_grad_())
    conv.train().requires_grad_(False)
    assert _is_torchs_own(conv, images)


@pytest.mark.parametrize(
    ("options", "torchs"),
    [
        ({"padding": 1, "groups": 2}, True),
        ({"padding": 2, "dilation": 2}, True),
        ({"padding": "same"}, True),
        ({"padding": 1, "padding_mode": "reflect"}, True),
        ({"padding": 0}, False),
        ({"padding": (2, 1), "stride": (2, 1)}, False),
    ],
    ids=str,
)
def test_any_convolution_gives_what_torchs_gives(options: dict[str, Any], torchs: bool) -> None:
    torch.manual_seed(1)
    conv, own = (kind(16, 24, 3, **options).bfloat16() for kind in (Conv2d, nn.Conv2d))
    own.load_state_dict(conv.state_dict())
    images = torch.randn(8, 16, 4, 4).bfloat16()
    found, right = conv(images), own(images)
    assert _is_torchs_own(conv, images) == torchs
    assert found.shape == right.shape
    gradient = torch.randn(found.shape).bfloat16()
    found.backward(gradient)
    right.backward(gradient)
    for one, other in zip(
        (found, *(each.grad for each in conv.parameters())),
        (right, *(each.grad for each in own.parameters())),
        strict=True,
    ):
        assert one is not None
        assert other is not None
        assert (one.double() - other.double()).norm() < 2 * BF16 * other.double().norm()


@pytest.mark.parametrize(("kernel", "torchs"), [(2, False), (4, True)])
def test_an_even_kernel_gives_what_torchs_gives(kernel: int, torchs: bool) -> None:
    torch.manual_seed(1)
    conv, own = (kind(16, 24, kernel, padding=kernel // 2).bfloat16() for kind in (Conv2d, nn.Conv2d))
    own.load_state_dict(conv.state_dict())
    images = torch.randn(8, 16, 2, 2).bfloat16()
    assert _is_torchs_own(conv, images) == torchs
    assert (conv(images).double() - own(images).double()).norm() < 2 * BF16 * own(images).double().norm()


def test_its_state_and_its_shapes_are_those_of_torchs_own() -> None:
    conv, own = (layer("2 x 2", kind, torch.contiguous_format) for kind in (Conv2d, nn.Conv2d))
    assert conv.state_dict().keys() == own.state_dict().keys()
    on_meta = layer("2 x 2", Conv2d, torch.channels_last).to("meta").bfloat16()
    assert on_meta(torch.empty(4, 48, 2, 2, device="meta", dtype=torch.bfloat16)).shape == (4, 64, 2, 2)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_network_whose_images_become_that_small_learns(batch_norm: bool, activation: str) -> None:
    knobs = {"base_width": 8, "dense_units": 16, "dropout": 0.0, "activation": activation, "batch_norm": batch_norm}
    torch.manual_seed(1)
    model = build_classifier("vgg11", (3, 32, 32), 2, knobs, mean=[128.0] * 3, deviation=[64.0] * 3)
    assert sum(isinstance(module, Conv2d) for module in model.modules()) == 8
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    images = 255 * torch.rand(16, 3, 32, 32)
    labels = torch.arange(16) % 2
    images[labels == 1] /= 2
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.3  # guessing gives 0.69

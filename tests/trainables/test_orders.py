"""What is computed in the order in which images lie gives the same as in any other, to the last bit."""

import pytest
import torch
from torch import nn

import spaces
from trainables.models import Classifier
from trainables.models._layers import Flatten
from trainables.samples import Sample, begun, noise
from trainables.settings import Settings

LAST = torch.channels_last


@pytest.mark.parametrize("memory_format", [LAST, torch.contiguous_format])
@pytest.mark.parametrize(("channels", "of_mean"), [(3, 3), (1, 1), (1, 3)])
@pytest.mark.parametrize("sides", [(5, 8), (1, 1)])
def test_images_are_normalised_alike_in_each_order(memory_format, channels, of_mean, sides):
    mean, deviation = [125.3, 12.0, 77.7][:of_mean], [60.1, 0.5, 33.3][:of_mean]
    model = Classifier(nn.Identity(), mean, deviation)
    images = torch.randint(0, 256, (4, channels, *sides)).float().contiguous(memory_format=memory_format)
    by_channel = torch.tensor(mean).view(-1, 1, 1), torch.tensor(deviation).clamp(min=1).view(-1, 1, 1)
    normalised = model(images)
    assert torch.equal(normalised, (images - by_channel[0]) / by_channel[1])
    assert normalised.is_contiguous(memory_format=memory_format if channels == 3 else torch.contiguous_format)
    assert torch.equal(model.prepared(images), normalised)


def gradient_before(flatten, memory_format):
    """Return what a layer before the flattening is given back."""
    images = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=memory_format)
    seen = []
    before = images.requires_grad_() * 2
    flat = flatten(before)
    before.register_hook(seen.append)
    (flat * torch.arange(4.0 * 90).view(4, 90)).sum().backward()
    return seen[0], images.grad


def test_the_gradient_of_a_flattening_lies_as_its_images_do():
    given, of_images = gradient_before(Flatten(), LAST)
    plain, of_plain_images = gradient_before(nn.Flatten(), LAST)
    assert torch.equal(given, plain)
    assert torch.equal(of_images, of_plain_images)
    assert given.is_contiguous(memory_format=LAST)
    assert not plain.is_contiguous(memory_format=LAST)  # torch's own: once it is, ours is of no use any more


def test_other_images_are_flattened_as_by_torch():
    given, _ = gradient_before(Flatten(), torch.contiguous_format)
    assert given.is_contiguous()
    for shape in ((2, 3), (2, 3, 1, 1)):
        values = torch.ones(shape, requires_grad=True)
        Flatten()(values).sum().backward()
        assert values.grad is not None
        assert torch.equal(values.grad, torch.ones(shape))


def trained(flatten, precision, activation, depth):
    """Return the weights of a network after three steps; a fourth block, on 4 x 4 places, is not pooled."""
    knobs = {"depth": depth, "filters": 8, "kernel": 3, "dense_layers": 1, "dense_units": 8, "dropout": 0.0}
    knobs |= {"activation": activation, "batch_norm": True, "batch_size": 16, "optimizer": "sgd"}
    sample = Sample("cnn", {**spaces.load("cnn").baseline, **knobs, "learning_rate": 0.01})
    training = begun(sample, noise((3, 32, 32), 5, 48, 4), Settings(precision=precision))
    training.model.net.flatten = flatten
    training.epoch()
    return torch.cat([each.detach().flatten() for each in training.model.parameters()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_learns_the_same_whatever_order_its_gradient_comes_in(precision):
    assert torch.equal(trained(Flatten(), precision, "relu", 3), trained(nn.Flatten(), precision, "relu", 3))


@pytest.mark.parametrize(("activation", "depth"), [("elu", 3), ("relu", 4)])
def test_only_rounding_follows_the_order_of_a_gradient(activation, depth):
    """An exponential is rounded otherwise where one value is computed at a time, and so is a sum in another order."""
    ours, plain = (trained(flatten, "fp32", activation, depth) for flatten in (Flatten(), nn.Flatten()))
    assert torch.allclose(ours, plain, rtol=0, atol=1e-6)

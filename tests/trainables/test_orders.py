"""What is computed in the order in which images lie gives the same as in any other, to the last bit."""

import pytest
import torch
from torch import nn

from trainables.models import Classifier
from trainables.models._layers import Flatten

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
    assert channels != of_mean or normalised.is_contiguous(memory_format=memory_format)
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
    assert torch.equal(Flatten()(torch.ones(2, 3)), torch.ones(2, 3))
    assert torch.equal(Flatten()(torch.ones(2, 3, 1, 1, requires_grad=True)), torch.ones(2, 3))

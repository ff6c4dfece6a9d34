from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces import TRAINING_BASELINE
from trainables.batches import Batches, Dataset, augment, micro_batches
from trainables.recipe import Recipe, split

PLAIN = split(TRAINING_BASELINE)[0]
MEAN = torch.tensor([10.0, 20.0, 30.0])


def dataset(count: int = 6, side: int = 4) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(
        images=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 2,
        train=np.arange(count - 2),
        val=np.arange(count - 2, count),
        n_classes=2,
        mean=(1.0, 2.0, 3.0),
        deviation=(1.0, 1.0, 1.0),
    )


def moved(recipe: Recipe, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment(images, recipe, MEAN, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_batch_is_the_images_asked_for_in_the_memory_format_asked_for(channels_last: bool) -> None:
    data = dataset()
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = Batches(data, torch.device("cpu")).take(torch.tensor([3, 1]), wanted)
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == torch.float32
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), data.images[[3, 1]].astype(np.float32))
    assert labels.tolist() == [1, 1]
    assert images.is_contiguous(memory_format=wanted)


def test_micro_batches_use_every_image_once_except_a_single_one_left_over() -> None:
    steps = list(micro_batches(torch.arange(23), 4, 2))
    assert [[len(part) for part in step] for step in steps] == [[4, 4], [4, 4], [4, 3]]
    assert torch.cat([part for step in steps for part in step]).tolist() == list(range(23))
    assert [[len(part) for part in step] for step in micro_batches(torch.arange(9), 4, 1)] == [[4], [4]]
    assert [[len(part) for part in step] for step in micro_batches(torch.arange(1), 4, 1)] == [[1]]


def test_whole_batches_are_never_dropped() -> None:
    assert [[len(part) for part in step] for step in micro_batches(torch.arange(3), 1, 2)] == [[1, 1], [1]]
    assert [[len(part) for part in step] for step in micro_batches(torch.arange(5), 2, 4)] == [[2, 2]]


def test_without_any_strength_the_batch_is_untouched() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert moved(PLAIN, images) is images


def test_flip_mirrors_left_and_right_for_the_share_of_images_asked_for() -> None:
    images = torch.rand(1, 3, 8, 8).expand(400, 3, 8, 8).contiguous()
    flipped = moved(replace(PLAIN, flip=0.5), images)
    mirrored = torch.isclose(flipped, images.flip(3), atol=1e-4).flatten(1).all(1)
    same = torch.isclose(flipped, images, atol=1e-4).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 150 < int(mirrored.sum()) < 250


def test_shift_moves_by_whole_fractions_of_the_side_at_most() -> None:
    images = torch.zeros(200, 1, 32, 32)
    images[:, :, 16, 16] = 255.0
    shifted = augment(images, replace(PLAIN, shift=0.25), MEAN[:1], torch.Generator().manual_seed(0))
    brightest = shifted.flatten(1).argmax(1)
    offsets = torch.stack([brightest // 32 - 16, brightest % 32 - 16]).abs()
    assert 6 <= int(offsets.max()) <= 9


def test_rotation_turns_about_the_centre_and_keeps_it() -> None:
    images = torch.zeros(50, 1, 33, 33)
    images[:, :, 16, 16] = 255.0
    turned = augment(images, replace(PLAIN, rotation=30.0), MEAN[:1], torch.Generator().manual_seed(0))
    assert torch.allclose(turned[:, 0, 16, 16], torch.full((50,), 255.0), atol=1.0)
    corner = torch.zeros(50, 1, 33, 33)
    corner[:, :, 4, 16] = 255.0
    turned = augment(corner, replace(PLAIN, rotation=30.0), MEAN[:1], torch.Generator().manual_seed(0))
    columns = turned.sum(2).squeeze(1).argmax(1) - 16
    assert int(columns.abs().max()) in range(4, 8)  # 12 pixels from the centre, turned by up to 30 degrees: 6


@pytest.mark.parametrize("strength", ["zoom", "shear"])
def test_zoom_and_shear_change_each_image_in_its_own_way(strength: str) -> None:
    images = torch.rand(1, 3, 16, 16).expand(8, 3, 16, 16).contiguous()
    amount = {"zoom": 0.3, "shear": 20.0}[strength]
    changed = moved(replace(PLAIN, **{strength: amount}), images)
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 8


def test_cutout_sets_one_square_of_the_given_side_to_the_mean() -> None:
    images = torch.full((300, 3, 20, 20), 200.0)
    cut = moved(replace(PLAIN, cutout=0.5), images)
    covered = (cut[:, 0] == 10.0).flatten(1).sum(1)
    assert int(covered.max()) == 100  # a square of 10 x 10, smaller where it leaves the image
    assert int(covered.min()) >= 25
    assert (cut[:, 1][cut[:, 0] == 10.0] == 20.0).all()


def test_augmentation_is_repeatable_and_keeps_the_memory_format() -> None:
    strong = replace(PLAIN, flip=0.5, shift=0.1, rotation=10.0, zoom=0.1, shear=5.0, cutout=0.3)
    images = (torch.rand(4, 3, 16, 16) * 255).contiguous(memory_format=torch.channels_last)
    first = moved(strong, images)
    assert torch.equal(first, moved(strong, images))
    assert not torch.equal(first, moved(strong, images, seed=1))
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255.001


@pytest.mark.parametrize(("images", "batch_size", "steps"), [(100, 32, 1), (100, 33, 2), (7, 3, 1), (10, 2, 2)])
def test_batches_in_halves_hold_the_same_images_in_each_step(images: int, batch_size: int, steps: int) -> None:
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    whole = list(micro_batches(order, batch_size, steps))
    halves = list(micro_batches(order, batch_size, steps, 2))
    assert [torch.cat(step).tolist() for step in halves] == [torch.cat(step).tolist() for step in whole]
    assert max(len(part) for step in halves for part in step) <= max(2, -(-batch_size // 2), 3)
    assert min(len(part) for step in halves for part in step) > 1

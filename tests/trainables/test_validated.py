"""What each validation image gave: one record an epoch, whoever trained it and however often."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from trainables.validated import Validated, read_correct, read_losses, write_validated


def made(epoch: int, n_images: int) -> Validated:
    rng = np.random.default_rng(epoch)
    return Validated(rng.random(n_images) < 0.5, rng.random(n_images, dtype=np.float32))


@pytest.mark.parametrize("n_images", [1, 7, 8, 9, 1000])
def test_what_was_written_reads_back_epoch_by_epoch(n_images: int, tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 2):  # the second is trained again after a crash
        write_validated(tmp_path / "0007", epoch, made(epoch, n_images), losses=True)
    correct, losses = (read(tmp_path / "0007", 3, n_images) for read in (read_correct, read_losses))
    assert correct is not None
    assert losses is not None
    for epoch in (1, 2, 3):
        assert np.array_equal(correct[epoch - 1], made(epoch, n_images).correct)
        assert np.array_equal(losses[epoch - 1], made(epoch, n_images).losses)
    assert (tmp_path / "0007" / "val_correct.bits").stat().st_size == 3 * ((n_images + 7) // 8)


def test_epochs_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    write_validated(tmp_path, 1, made(1, 20), losses=False)
    assert read_correct(tmp_path, 1, 20) is not None
    assert read_correct(tmp_path, 2, 20) is None
    assert read_losses(tmp_path, 1, 20) is None
    assert read_correct(tmp_path / "none", 1, 20) is None


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    (tmp_path / "val_correct.bits").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        write_validated(tmp_path, 1, made(1, 20), losses=False)
    assert raised.value.errno == errno.ENOSPC

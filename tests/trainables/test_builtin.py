"""Data sets that have a name."""

import cv2
import numpy as np
import pytest

from foundation import RequestError
from trainables import builtin
from trainables.images import list_images


def test_digits_need_no_network():
    listing = list_images("digits")
    assert len(listing.items) == 1797
    assert listing.classes == tuple("0123456789")
    pixels = cv2.imdecode(np.frombuffer(listing.source.read("0/0000.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (8, 8)
    assert pixels[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


class FakeFashion:
    classes = ("T-shirt/top", "Bag")

    def __init__(self, train):
        self.data = np.full((8, 28, 28, 3), (1, 2, 3), np.uint8)
        self.targets = [0, 1] * 4


def test_downloaded_data_keeps_its_split(monkeypatch):
    monkeypatch.setattr(builtin, "_torchvision", lambda name, folder, train: FakeFashion(train))
    listing = list_images("fashion_mnist")
    assert listing.classes == ("Bag", "T-shirt-top")
    assert [item.split for item in listing.items] == ["test"] * 8 + ["train"] * 8
    pixels = cv2.imdecode(np.frombuffer(listing.source.read("train/Bag/00001.png"), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels[0, 0].tolist() == [1, 2, 3]


def test_no_network(monkeypatch, tmp_path):
    def unreachable(name, folder, train):
        raise RuntimeError("Error downloading")

    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path))
    monkeypatch.setattr(builtin, "_torchvision", unreachable)
    with pytest.raises(RequestError, match=r"'mnist' could not be downloaded to .*Error downloading.*use 'digits'"):
        list_images("mnist")

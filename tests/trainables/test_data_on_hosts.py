"""What a host learns from: its own files, or what is sent to it; the sender is a plain copy here."""

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from foundation import RequestError
from trainables import sent
from trainables.cache import open_cache, open_learned, prepare
from trainables.learned import Images, Needs, Weights, needs
from trainables.settings import Settings
from trainables.training import Training

SPACES = {"resnet50": [{"architecture": "resnet50", "knob": "weights", "domain": {"options": ["published"]}}]}


@dataclass
class Copier:
    """Brings files by copying them, as often as it is asked to."""

    folder: Path
    names: Sequence[str]
    times: int = 0
    spoil: str = ""
    full: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total_bytes(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.names)

    def fetch_into(self, folder: Path) -> None:
        with self.turn:
            self.times += 1
        for name in self.names:
            if self.full and name == "labels.npy":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / name))
            shutil.copy(self.folder / name, folder / name)
        if self.spoil:
            content = bytearray((folder / self.spoil).read_bytes())
            content[-1] ^= 1
            (folder / self.spoil).write_bytes(content)


@pytest.fixture
def wanted(striped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Images:
    """The images of the driver, whose folder another host, where this test then is, does not see."""
    there = prepare(str(striped)).folder
    images = needs(there, {}, {}, Copier).images
    assert images is not None
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "host"))
    return replace(images, folder=f"/not/on/this/host/{there.name}")


def copier(images: Images) -> Copier:
    assert isinstance(images.sender, Copier)
    return images.sender


def test_a_host_that_has_nothing_gets_the_images_once_and_without_those_of_the_test(wanted: Images) -> None:
    assert wanted.finding().said.startswith("gets the images, ")
    first, second = wanted.here(), wanted.here()
    assert copier(wanted).times == 1
    assert first.folder == second.folder
    assert not list(first.folder.glob("test_*"))
    pixels, labels = first.arrays()
    original = open_cache(copier(wanted).folder)
    assert np.array_equal(pixels, original.arrays()[0])
    assert np.array_equal(labels, original.arrays()[1])
    assert [len(fold) for fold in first.folds(3)] == [len(fold) for fold in original.folds(3)]
    assert wanted.finding().said == "the images are in its cache"
    with pytest.raises(RequestError, match="cannot be opened"):
        open_cache(first.folder)  # nobody takes it for a whole one


def test_what_was_sent_trains_bit_for_bit_the_same(wanted: Images) -> None:
    from trainables.batches import Dataset

    losses = []
    for cache in (open_cache(copier(wanted).folder), wanted.here()):
        training = Training(Dataset.from_cache(cache), Settings("cpu", "fp32", True, 1))
        config = {"depth": 1, "filters": 4, "dense_layers": 1, "dense_units": 8, "batch_size": 16}
        usual = {knob: value for knob, value in baseline().items() if knob not in config}
        training.begin("cnn", usual | config, seed=1, epochs=1)
        losses.append(training.epoch().val_loss)
    assert losses[0] == losses[1]


def baseline() -> dict[str, object]:
    import spaces

    return dict(spaces.load("cnn").baseline)


def test_all_workers_of_a_host_wait_for_the_one_that_fetches(wanted: Images) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(wanted.here().folder)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert copier(wanted).times == 1


def test_a_cache_that_the_host_made_itself_is_used_if_its_arrays_are_the_same(wanted: Images) -> None:
    own = sent.cache_root() / copier(wanted).folder.name
    shutil.copytree(copier(wanted).folder, own)
    assert wanted.here().folder == own
    assert copier(wanted).times == 0
    images = np.load(own / "images.npy")
    images[0, 0, 0, 0] ^= 1  # its manifest still says that it is the same
    np.save(own / "images.npy", images)
    assert wanted.here().folder != own
    assert copier(wanted).times == 1


@pytest.mark.parametrize("spoiled", ["images.npy", "labels.npy", "split.npy", "groups.npy"])
def test_what_comes_otherwise_than_it_was_sent_is_not_kept(wanted: Images, spoiled: str) -> None:
    copier(wanted).spoil = spoiled
    with pytest.raises(RequestError, match=r"host .*: the images could not be fetched .*not what was sent|cannot be"):
        wanted.here()
    assert not [path for path in (sent.cache_root() / sent.SENT).iterdir() if path.is_dir()]
    copier(wanted).spoil = ""
    wanted.here()


def test_a_disk_that_is_full_is_said_with_the_host_and_leaves_nothing(
    wanted: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    copier(wanted).full = True
    monkeypatch.setattr("socket.gethostname", lambda: "hosta")
    with pytest.raises(RequestError, match=r"host hosta: the images could not be fetched .*No space left.*CONVSCOUT_C"):
        wanted.here()
    assert not [path for path in (sent.cache_root() / sent.SENT).iterdir() if path.is_dir()]


def test_no_room_is_known_before_anything_is_fetched(wanted: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2000000, 1990000, 10000))
    with pytest.raises(RequestError, match=r"that takes \d+ MB, and 0 MB are free"):
        wanted.here()
    assert copier(wanted).times == 0
    finding = wanted.finding()
    assert (finding.state, finding.what) == ("problem", "data")
    assert "0 MB free" in finding.said


def test_a_cache_folder_that_cannot_be_made_is_a_problem_with_a_remedy(
    wanted: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "file" / "cache"))
    finding = wanted.finding()
    assert finding.state == "problem"
    assert "CONVSCOUT_CACHE" in finding.remedy
    with pytest.raises(RequestError, match="could not be fetched"):
        wanted.here()


def test_what_was_sent_long_ago_makes_room(wanted: Images) -> None:
    old = sent.cache_root() / sent.SENT / "old"
    used = sent.cache_root() / sent.SENT / "used"
    for folder in (old, used):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    wanted.here()
    assert not old.exists()
    assert used.exists()


def test_weights_of_ones_own_are_sent_and_found_by_their_path_on_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, striped: Path
) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"tensors")
    rows = {"resnet50": [{"architecture": "resnet50", "knob": "weights", "domain": {"options": ["none", str(file)]}}]}
    found = needs(prepare(str(striped)).folder, rows, {}, Copier)
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "host"))
    config = {"weights": str(file), "batch_size": 16}
    assert found.config(config) == config  # it is here too
    assert found.config({"weights": "none"}) == {"weights": "none"}
    assert found.config({"batch_size": 16}) == {"batch_size": 16}
    file.rename(tmp_path / "elsewhere.pth")
    weights = found.weights[str(file)]
    sender = Copier(tmp_path, ["mine.pth"])
    (tmp_path / "driver").mkdir()
    shutil.copy(tmp_path / "elsewhere.pth", tmp_path / "driver" / "mine.pth")
    sender.folder = tmp_path / "driver"
    needed = Needs("", rows, found.images, {str(file): Weights(weights.path, weights.digest, sender)})
    there = Path(needed.config(config)["weights"])
    assert there.read_bytes() == b"tensors"
    assert there.is_relative_to(tmp_path / "host")
    assert Path(needed.config(config)["weights"]) == there
    assert sender.times == 1
    (tmp_path / "elsewhere.pth").rename(file)
    own = needs(prepare(str(striped)).folder, rows, {"resnet50": "a user's own text"}, Copier)
    assert own.weights == {}  # what he calls weights is no file of ours


def test_published_weights_that_a_host_lacks_are_a_warning(
    striped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = [probe() for probe in needs(prepare(str(striped)).folder, SPACES, {}, Copier).probes()]
    [weights] = [each for each in found if each is not None and each.what == "weights"]
    assert weights.state == "warning"
    assert "resnet50" in weights.said


def test_without_other_hosts_nothing_is_sent_or_asked(striped: Path) -> None:
    folder = prepare(str(striped)).folder
    found = needs(folder, SPACES, {}, lambda *_: None)
    assert found.probes() == []
    assert found.cache().folder == folder


def test_a_host_that_came_late_and_lacks_the_storage_says_so(striped: Path, tmp_path: Path) -> None:
    folder = prepare(str(striped)).folder
    found = needs(folder, SPACES, {}, Copier)
    with pytest.raises(RequestError, match=r"does not have the folder .*/runs/x: trials there could not keep anything"):
        found.cache(tmp_path / "runs" / "x")
    assert found.cache(tmp_path).folder == found.cache().folder == folder


def test_a_cache_without_its_test_files_can_be_learned_from_and_is_no_whole_one(striped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(prepare(str(striped)).folder, folder)
    for path in folder.glob("test_*"):
        path.unlink()
    assert len(open_learned(folder).arrays()[0])
    with pytest.raises(RequestError, match="test_images"):
        open_cache(folder)
    (folder / "labels.npy").unlink()
    with pytest.raises(RequestError, match=r"labels\.npy"):
        open_learned(folder)

import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from trainables import checkpoint

OURS = "cnn, seed 1"


def state(value: int) -> dict[str, object]:
    return {"training": {"tensor": torch.full((3,), float(value))}, "epochs": "[]"}


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 1, 3, state(3), OURS)
    loaded = checkpoint.load(tmp_path, OURS)
    assert loaded.state is not None
    assert loaded.state["training"]["tensor"].tolist() == [3.0, 3.0, 3.0]
    assert loaded.path == saved.path == tmp_path / "a01-e0003"
    assert loaded.damaged == ()


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        checkpoint.save(tmp_path, 1, epoch, state(epoch), OURS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a01-e0003", "a01-e0004"]


def test_the_newest_is_that_of_the_highest_epoch_then_attempt(tmp_path: Path) -> None:
    for attempt, epoch in ((2, 9_999), (99, 10_000), (100, 10_001), (100, 10_002)):
        checkpoint.save(tmp_path, attempt, epoch, state(epoch), OURS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a100-e10001", "a100-e10002"]
    loaded = checkpoint.load(tmp_path, OURS)
    assert loaded.state is not None
    assert loaded.state["training"]["tensor"][0] == 10_002


def test_the_one_that_was_gone_on_from_stays_and_the_damaged_ones_after_it_go(tmp_path: Path) -> None:
    for epoch in (8, 9):
        checkpoint.save(tmp_path, 1, epoch, state(epoch), OURS)
    (tmp_path / "a01-e0009" / checkpoint.STATE).write_bytes(b"damaged")
    assert checkpoint.load(tmp_path, OURS).path == tmp_path / "a01-e0008"
    checkpoint.save(tmp_path, 2, 9, state(9), OURS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a01-e0008", "a02-e0009"]


def test_one_of_another_configuration_is_named_and_refused_and_makes_room(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, 1, epoch, state(epoch), "cnn, seed 2")
    refused = tuple(f"a01-e000{epoch}: is of another configuration" for epoch in (2, 1))
    assert checkpoint.load(tmp_path, OURS) == checkpoint.Loaded(None, None, refused)
    assert checkpoint.load(tmp_path).state is not None  # who asks for none takes any
    saved = checkpoint.save(tmp_path, 2, 1, state(7), OURS)
    assert list(tmp_path.iterdir()) == [saved.path]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no manifest"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, 1, state(1), OURS)
    newest = checkpoint.save(tmp_path, 1, 2, state(2), OURS).path
    content = bytearray((newest / checkpoint.STATE).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        (newest / checkpoint.STATE).write_bytes(bytes(content))
    elif damage == "truncate":
        (newest / checkpoint.STATE).write_bytes(bytes(content[:-10]))
    else:
        (newest / checkpoint.MANIFEST).unlink()
    loaded = checkpoint.load(tmp_path, OURS)
    assert loaded.state is not None
    assert loaded.state["training"]["tensor"][0] == 1
    assert len(loaded.damaged) == 1
    assert loaded.damaged[0].startswith("a01-e0002: ")


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran-on-load",)


def test_a_planted_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = checkpoint.save(tmp_path, 1, 1, state(1), OURS)
    (saved.path / checkpoint.STATE).write_bytes(pickle.dumps(Malicious()))
    digest = checkpoint._sha256(saved.path / checkpoint.STATE)
    (saved.path / checkpoint.MANIFEST).write_text(f'{{"sha256": "{digest}", "identity": "{OURS}"}}')
    assert checkpoint.load(tmp_path, OURS).state is None
    assert not Path("ran-on-load").exists()


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "nothing") == checkpoint.Loaded(None, None, ())


def test_a_pickle_planted_in_a_checkpoint_does_not_run_and_the_one_before_is_read(tmp_path):
    class Touch:
        def __reduce__(self):
            return type(tmp_path).touch, (tmp_path / "ran",)

    checkpoint.save(tmp_path, 1, 1, {"epoch": 1}, "x")
    saved = checkpoint.save(tmp_path, 1, 2, {"epoch": 2}, "x")
    state = saved.path / checkpoint.STATE
    for planted in (pickle.dumps(Touch()), io.BytesIO()):
        if isinstance(planted, io.BytesIO):
            torch.save({"epoch": Touch()}, planted)
            planted = planted.getvalue()
        state.write_bytes(planted)
        manifest = {"sha256": hashlib.sha256(planted).hexdigest(), "bytes": len(planted), "identity": "x"}
        (saved.path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
        loaded = checkpoint.load(tmp_path, "x")
        assert loaded.state == {"epoch": 1}
        assert loaded.damaged[0].startswith("a01-e0002: ")
    assert not (tmp_path / "ran").exists()


def test_what_is_written_is_the_state_as_it_was_handed_over(tmp_path):
    writer = checkpoint.Writer()
    writer.begin(tmp_path, 1, "x")
    weights = torch.zeros(1000)
    for epoch in range(1, 4):
        weights += 1
        writer.submit(epoch, {"nested": [{"weights": weights, "epoch": epoch}]})
        weights += 100  # training goes on in place
        weights -= 100
    saved = writer.finish()
    assert [each.epoch for each in saved] == [1, 2, 3]
    assert all(each.seconds > 0 for each in saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a01-e0002", "a01-e0003"]
    state = checkpoint.load(tmp_path, "x").state
    assert state["nested"][0]["weights"].tolist() == [3.0] * 1000
    assert writer.collect() == []


def test_a_write_that_fails_is_raised_once_and_the_next_one_works(tmp_path):
    writer = checkpoint.Writer()
    blocked = tmp_path / "blocked"
    blocked.touch()
    writer.begin(blocked, 1, "x")
    writer.submit(1, {"epoch": 1})
    with pytest.raises(OSError, match="blocked"):
        writer.finish()
    assert writer.finish() == []
    writer.begin(tmp_path / "free", 1, "x")
    writer.submit(2, {"epoch": 2})
    assert [each.epoch for each in writer.finish()] == [2]
    writer.submit(3, {"epoch": 3})
    writer.drop()
    assert writer.collect() == []

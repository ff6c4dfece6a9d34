"""What every kind of store must do, through the same few operations."""

import pickle
from pathlib import Path

import pytest

from cluster.remote import Remote

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["file", "s3", "gs"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param != "file":
        return Remote(request.getfixturevalue(request.param))
    return Remote(f"file://{tmp_path}/store")


def test_nothing_is_there_at_first(remote: Remote) -> None:
    assert remote.objects() == remote.objects("a", deep=True) == {}
    assert remote.folders() == []
    assert remote.info("a") is None
    with pytest.raises(FileNotFoundError):
        remote.read("a")
    remote.remove("a")
    remote.remove_tree("a")


def test_what_is_written_reads_back_and_is_listed(remote: Remote) -> None:
    remote.write("top", b"1")
    remote.write("a/one", b"22")
    remote.write("a/b/two", b"")
    assert {name: found.size for name, found in remote.objects().items()} == {"top": 1}
    assert {name: found.size for name, found in remote.objects("a").items()} == {"a/one": 2}
    assert {name: found.size for name, found in remote.objects("a", deep=True).items()} == {"a/one": 2, "a/b/two": 0}
    assert set(remote.objects(deep=True)) == {"top", "a/one", "a/b/two"}
    assert (remote.folders(), remote.folders("a")) == (["a"], ["a/b"])
    assert remote.read("a/one") == remote.under("a").read("one") == b"22"


def test_a_changed_object_has_another_version(remote: Remote) -> None:
    remote.write("a", b"1")
    first = remote.objects()["a"]
    assert remote.info("a") == remote.objects()["a"] == first
    remote.write("a", b"2")
    assert remote.objects()["a"].version != first.version


def test_only_one_can_create_an_object(remote: Remote) -> None:
    if remote.url.startswith("gs://"):  # the emulator takes no note of ifGenerationMatch: that is found out
        with pytest.raises(OSError, match="lets two writers make the same object"):
            remote.check()
        assert remote.objects(deep=True) == {}
        return
    remote.create("a/one", b"first")
    with pytest.raises(FileExistsError):
        remote.create("a/one", b"second")
    assert remote.read("a/one") == b"first"
    remote.remove("a/one")
    remote.create("a/one", b"third")
    remote.check()
    assert set(remote.objects(deep=True)) == {"a/one"}


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs to aiohttp
def test_files_and_trees_go_both_ways(remote: Remote, tmp_path: Path) -> None:
    big = bytes(range(256)) * 8000
    (tmp_path / "big").write_bytes(big)
    remote.store(tmp_path / "big", "a/b/big")
    remote.write("a/small", b"x")
    remote.fetch("a/b/big", tmp_path / "new" / "big")
    assert (tmp_path / "new" / "big").read_bytes() == big
    remote.fetch_tree("a", tmp_path / "tree")
    assert (tmp_path / "tree" / "b" / "big").read_bytes() == big
    assert (tmp_path / "tree" / "small").read_bytes() == b"x"
    with pytest.raises(OSError, match="none"):
        remote.fetch("none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    remote.remove_tree("a")
    assert remote.objects(deep=True) == {}


def test_another_process_makes_a_connection_of_its_own(remote: Remote) -> None:
    remote.write("a", b"1")
    assert pickle.loads(pickle.dumps(remote)).read("a") == b"1"

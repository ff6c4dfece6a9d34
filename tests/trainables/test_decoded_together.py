"""Other hosts decode a part: the cache is that of one host alone, whatever they see, make, or die of."""

import csv
import errno
import os
import pickle
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from foundation import HaltError, RequestError
from trainables import decoding, orders, shared_out
from trainables.cache import ImageCache, open_test, prepare
from trainables.decode import TOO_LITTLE_MEMORY, BadImage
from trainables.files import Files
from trainables.orders import Answer, Order
from trainables.rows import Rows
from trainables.shared_out import AT_ONCE, MOST_HOSTS, Helpers, Work
from trainables.zipped import Archive

N_IMAGES, IN_ORDER = 120, 10
Change = Callable[[Order, Callable[[Order], Answer]], Answer]


@dataclass
class Host:
    """A host in this process: what it is asked for and what it answers goes through pickles, as it would there.

    `change` is what is otherwise there; it gets each order and what would decode it.
    """

    name: str = "b"
    cores: int = 2
    change: Change = lambda order, decoded: decoded(order)
    orders: list[Order] = field(default_factory=list)
    most_at_once: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    at_once: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.turn:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            [order] = pickle.loads(pickle.dumps(arguments))
            self.orders.append(order)
            return pickle.loads(pickle.dumps(self.change(order, function)))
        finally:
            with self.turn:
                self.at_once -= 1

    @staticmethod
    def proves(order: Order) -> bool:
        return order.start == 0

    @property
    def pieces(self) -> list[Order]:
        return [order for order in self.orders if not self.proves(order)]


@dataclass
class Cluster:
    """Some hosts, what the user was told, and how often they were asked for."""

    hosts: Sequence[Host]
    told: list[str] = field(default_factory=list)
    times: int = 0

    @contextmanager
    def joined(self) -> Iterator[Sequence[Host]]:
        self.times += 1
        try:
            yield self.hosts
        finally:
            for host in self.hosts:
                host.ended.set()

    @property
    def helpers(self) -> Helpers:
        return Helpers(self.joined, self.told.append)


@pytest.fixture(autouse=True)
def asked_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask other hosts however little there is to do, and a few images at a time."""
    monkeypatch.setattr(decoding, "SHARED_SECONDS", 0.0)
    monkeypatch.setattr(orders, "PIXEL_BYTES", 28 * 28 * 3 * IN_ORDER)


@pytest.fixture
def others_first(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes this host wait until every other one has done something, or has said why it does not."""

    def wait(cluster: Cluster, *, help_of_all: bool = True, reasons: bool = False) -> None:
        names = {host.name for host in cluster.hosts}
        asked, helped, refused = set[str](), set[str](), set[str]()
        changed = threading.Condition()
        take, done, not_done = Work.take, Work.done, Work.not_done

        def until(condition: Callable[[], bool]) -> None:
            with changed:
                assert changed.wait_for(condition, 60)

        def note(names: set[str], name: str) -> None:
            with changed:
                names.add(name)
                changed.notify_all()

        def later(work: Work[Any], most: int) -> range | None:
            until(lambda: (not help_of_all or helped >= names) and (not reasons or refused >= names))
            return take(work, most)

        def noted_done(work: Work[Any], rows: range, results: list[Any], by: str = "") -> None:
            done(work, rows, results, by)
            note(helped, by)

        def noted_not_done(work: Work[Any], by: str, reason: str) -> None:
            not_done(work, by, reason)
            note(refused, by)

        def together(host: Host) -> Change:
            change = host.change

            def changed_together(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
                if help_of_all and not host.proves(order):  # none takes all before others have had something
                    note(asked, host.name)
                    until(lambda: asked >= names)
                return change(order, decoded)

            return changed_together

        for host in cluster.hosts:
            host.change = together(host)
        monkeypatch.setattr(Work, "take", later)
        monkeypatch.setattr(Work, "done", noted_done)
        monkeypatch.setattr(Work, "not_done", noted_not_done)

    return wait


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ImageCache]:
    """Return `prepare` with an empty cache folder each time."""
    numbers = iter(range(100))

    def made(data: Path, **options: Any) -> ImageCache:
        monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / f"cache{next(numbers)}"))
        return prepare(str(data), image_size=28, **options)

    return made


def content(cache: ImageCache) -> dict[str, Any]:
    """Return every byte of a cache but the time when it was made."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in cache.folder.iterdir()}
    files["manifest.json"] = {key: value for key, value in cache.manifest.items() if key != "created"}
    return files


def as_csv(striped: Path, folder: Path) -> Path:
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted(striped.glob("*/*.png")):
            writer.writerow([os.path.relpath(path, folder), path.parent.name])
    return folder / "list.csv"


def as_zip(striped: Path, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in sorted(striped.glob("*/*.png")):
            archive.write(path, str(path.relative_to(striped)))
    return folder / "images.zip"


FORMS = {"folder": lambda striped, _: striped, "csv": as_csv, "zip": as_zip}


@pytest.mark.parametrize("form", FORMS)
def test_the_cache_is_that_of_one_host_alone(
    striped: Path, tmp_path: Path, fresh: Any, others_first: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, steps = FORMS[form](striped, tmp_path), []
    alone = content(fresh(data))
    cluster = Cluster([Host("b"), Host("c")])
    others_first(cluster)
    monkeypatch.chdir(data.parent)
    together = fresh(
        Path(data.name), helpers=cluster.helpers, on_progress=lambda done, total: steps.append((done, total))
    )
    found = content(together)
    alone["manifest.json"]["data"] = data.name
    assert found == alone
    assert all(host.pieces for host in cluster.hosts)
    [said] = cluster.told
    assert said.startswith(f"Of {N_IMAGES} images, ")
    assert " on host b, " in said
    assert " on host c were decoded, the others on this one." in said
    assert steps == sorted(steps)
    assert steps[-1] == (N_IMAGES, N_IMAGES)


def test_damaged_images_are_refused_whoever_finds_them(
    striped: Path, tmp_path: Path, fresh: Any, others_first: Any
) -> None:
    data = a_copy(striped, tmp_path / "data")
    for name in ("class0/000.png", "class1/010.png", "class2/035.png", "class2/036.png"):
        (data / name).write_bytes((data / name).read_bytes()[:200])
    cluster = Cluster([Host()])
    others_first(cluster)
    together = fresh(data, helpers=cluster.helpers)
    assert content(together) == content(fresh(data))
    assert len(together.manifest["refused"]) == 4
    assert len(cluster.told) == 1


def test_little_is_decoded_here_alone(striped: Path, fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SHARED_SECONDS", 10.0)
    cluster = Cluster([Host()])
    fresh(striped, helpers=cluster.helpers)
    assert cluster.times == 0
    assert cluster.told == []


def test_what_only_this_host_has_is_decoded_here_alone(striped: Path, tmp_path: Path, fresh: Any) -> None:
    tar = shutil.make_archive(str(tmp_path / "images"), "tar", striped)
    cluster = Cluster([Host()])
    fresh(Path(tar), helpers=cluster.helpers)
    fresh(Path("digits"), helpers=cluster.helpers)
    assert cluster.times == 0


def elsewhere(here: Path, there: Path) -> Change:
    """Return the change of a host on which `there` stands under the name of `here`."""

    def changed(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
        assert isinstance(order.reader, Files)
        named = {
            path: (each._replace(path=each.path.replace(str(here), str(there))), inode)
            for path, (each, inode) in order.reader.listed.items()
        }
        return decoded(replace(order, reader=Files(named)))

    return changed


def a_copy(striped: Path, there: Path) -> Path:
    shutil.copytree(striped, there)  # with the times
    return there


def without_data(there: Path) -> None:
    shutil.rmtree(there)


def other_size(there: Path) -> None:
    (there / "class2" / "025.png").write_bytes(b"more")


def other_bytes(there: Path) -> None:
    path = there / "class2" / "025.png"
    whole = bytearray(path.read_bytes())
    whole[60] ^= 1
    path.write_bytes(whole)


def other_bytes_at_the_same_time(there: Path) -> None:
    path = there / "class2" / "025.png"
    status = path.stat()
    other_bytes(there)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def nothing(there: Path) -> None:
    """Leave it a copy with its times, but other inodes."""


def other_times(there: Path) -> None:
    for path in there.glob("*/*.png"):
        os.utime(path, ns=(10**9, 10**9))


DIFFERENCES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "without": (without_data, "class0/000.png: No such file or directory", False),
    "size": (other_size, "class2/025.png: it has 4 bytes there, ", True),
    "bytes": (other_bytes, "class2/025.png: it holds other bytes there, as many as here", True),
    "same time": (other_bytes_at_the_same_time, "class2/025.png: it holds other bytes there, as many as here", True),
    "copy": (nothing, "", True),
    "times": (other_times, "", True),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_files_that_differ_on_a_host_are_decoded_here(
    striped: Path, tmp_path: Path, fresh: Any, others_first: Any, difference: str
) -> None:
    change, reason, helps = DIFFERENCES[difference]
    there = a_copy(striped, tmp_path / "there")
    change(there)
    cluster = Cluster([Host(change=elsewhere(striped, there))])
    others_first(cluster, help_of_all=helps, reasons=bool(reason))
    assert content(fresh(striped, helpers=cluster.helpers)) == content(fresh(striped))
    told = " ".join(cluster.told)
    assert (" on host b were decoded" in told) == helps
    assert ("Host b did not decode all that was asked for (" in told) == bool(reason)
    assert reason in told
    assert told.count("did not decode") <= 1


def test_an_archive_that_is_another_one_elsewhere_is_decoded_here(
    striped: Path, tmp_path: Path, fresh: Any, others_first: Any
) -> None:
    here = as_zip(striped, tmp_path)
    (tmp_path / "there").mkdir()
    other = tmp_path / "there" / "images.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a/0.png", b"")

    def changed(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
        assert isinstance(order.reader, Archive)
        return decoded(replace(order, reader=replace(order.reader, path=str(other))))

    cluster = Cluster([Host(change=changed)])
    others_first(cluster, help_of_all=False, reasons=True)
    assert content(fresh(here, helpers=cluster.helpers)) == content(fresh(here))
    assert f"({other}: it holds other files there)" in cluster.told[0]


def test_after_three_refusals_in_a_row_a_host_is_asked_no_more(
    striped: Path, tmp_path: Path, fresh: Any, others_first: Any
) -> None:
    there = a_copy(striped, tmp_path / "there")
    proof = set(sorted(striped.glob("*/*.png"))[:: -(-N_IMAGES // 16)])
    for path in striped.glob("*/*.png"):
        if path not in proof:
            (there / path.relative_to(striped)).unlink()
    cluster = Cluster([Host(change=elsewhere(striped, there))])
    others_first(cluster, help_of_all=False, reasons=True)
    assert content(fresh(striped, helpers=cluster.helpers)) == content(fresh(striped))
    assert 1 <= len(cluster.hosts[0].pieces) <= AT_ONCE * 3
    assert len(cluster.told) == 1


def other_version(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
    return replace(decoded(order), versions="OpenCV 3.1")


def other_float(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
    answer = decoded(order)
    first = answer.pieces[0].decoded.signatures
    first[0, 5] = np.nextafter(first[0, 5], np.float32(np.inf))
    return answer


def other_pixel(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
    answer = decoded(order)
    answer.pieces[0].pixels[-1, 0, 0, 0] ^= 1
    return answer


DIFFERENT = {
    "version": (other_version, "(it decodes with OpenCV 3.1, this host with OpenCV "),
    "float": (other_float, "(what it makes of some images is not what this host makes of them)"),
    "pixel": (other_pixel, "(what it makes of some images is not what this host makes of them)"),
}


@pytest.mark.parametrize("different", DIFFERENT)
def test_a_host_that_makes_anything_else_of_images_does_not_help(
    striped: Path, fresh: Any, others_first: Any, different: str
) -> None:
    change, reason = DIFFERENT[different]
    cluster = Cluster([Host("b", change=change), Host("c", change=change)])
    others_first(cluster, help_of_all=False, reasons=True)
    assert content(fresh(striped, helpers=cluster.helpers)) == content(fresh(striped))
    assert not [order for host in cluster.hosts for order in host.pieces]
    [said] = cluster.told
    assert said.startswith("Hosts b, c did not decode all that was asked for ")
    assert reason in said


def test_images_for_which_a_host_has_too_little_memory_are_decoded_here(
    striped: Path, fresh: Any, others_first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
        def too_little(*_: Any) -> None:
            raise BadImage(TOO_LITTLE_MEMORY)

        with monkeypatch.context() as there:  # this host waits meanwhile
            if len(host.pieces) == 1:
                there.setattr(decoding, "decode_and_fit", too_little)
            return decoded(order)

    host = Host(change=changed)
    cluster = Cluster([host])
    others_first(cluster, help_of_all=False, reasons=True)
    monkeypatch.setattr(shared_out, "AT_ONCE", 1)
    assert fresh(striped, helpers=cluster.helpers).manifest["refused"] == []
    assert f"({TOO_LITTLE_MEMORY})" in " ".join(cluster.told)


def test_what_a_host_was_doing_when_it_died_is_done_by_others(striped: Path, fresh: Any, others_first: Any) -> None:
    def dies(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
        if len(mortal.pieces) > AT_ONCE:
            raise ConnectionError("The actor died\n  because its node is gone.")
        return decoded(order)

    mortal = Host("b", change=dies)
    cluster = Cluster([mortal])
    others_first(cluster, reasons=True)
    assert content(fresh(striped, helpers=cluster.helpers)) == content(fresh(striped))
    assert " on host b were decoded" in cluster.told[0]
    assert "(The actor died because its node is gone.)" in cluster.told[1]


def test_a_host_that_never_answers_is_not_waited_for(
    striped: Path, fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(order: Order, decoded: Callable[[Order], Answer]) -> Answer:
        if Host.proves(order):
            return decoded(order)
        asked.set()
        assert host.ended.wait(60)  # it is let go when all is done
        raise ConnectionError("it has been let go")

    def later(work: Work[Any], most: int) -> range | None:
        assert asked.wait(60)
        return take(work, most)

    asked, take = threading.Event(), Work.take
    host = Host(change=hangs)
    cluster = Cluster([host])
    monkeypatch.setattr(Work, "take", later)
    found = content(fresh(striped, helpers=cluster.helpers))
    monkeypatch.setattr(Work, "take", take)
    assert found == content(fresh(striped))
    assert cluster.told == []


def test_answers_that_come_too_late_count_once() -> None:
    """What this host has taken back and done itself is not done twice, nor counted."""
    work: Work[str] = Work(range(8, 20))
    assert work.give_out(5) == range(15, 20)
    assert work.give_out(5) == range(10, 15)
    assert [work.take(4) for _ in range(4)] == [range(8, 10), range(15, 19), range(19, 20), range(10, 14)]
    assert not work.came_in_time(range(15, 20))
    assert not work.came_in_time(range(10, 15))
    work.give_back(range(10, 15), only_here=False)  # too late for that too
    assert work.give_out(5) is None
    assert work.take(4) == range(14, 15)
    for rows in (range(8, 10), range(15, 19), range(19, 20), range(10, 14)):
        work.done(rows, ["here"])
    assert next(work.progress()) == 11
    work.done(range(14, 15), ["here"])
    assert work.take(4) is None
    assert list(work.progress()) == [12]


def test_no_more_is_in_flight_than_a_few_pieces_a_host(striped: Path, fresh: Any, others_first: Any) -> None:
    cluster = Cluster([Host(f"host{number}") for number in range(MOST_HOSTS + 4)])
    fresh(striped, helpers=cluster.helpers)
    assert [host.name for host in cluster.hosts[MOST_HOSTS:] if host.orders] == []
    few = Cluster([Host()])
    others_first(few)
    fresh(striped, helpers=few.helpers)
    for host in (*cluster.hosts, *few.hosts):
        assert host.most_at_once <= AT_ONCE
        assert all(len(order.paths) <= IN_ORDER for order in host.pieces)
    assert few.hosts[0].most_at_once == AT_ONCE


def test_a_full_disk_here_ends_it_when_another_host_has_decoded(
    striped: Path, fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    take, stop = Work.take, Work.stop

    def full(rows: Rows, row: int, values: Any) -> None:
        if len(values) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def later(work: Work[Any], most: int) -> range | None:
        assert stopped.wait(60)
        return take(work, most)

    def noted(work: Work[Any], error: BaseException | None = None) -> None:
        stop(work, error)
        stopped.set()

    cluster = Cluster([Host()])
    monkeypatch.setattr(Rows, "write", full)
    monkeypatch.setattr(Work, "take", later)
    monkeypatch.setattr(Work, "stop", noted)
    with pytest.raises(HaltError, match="No space left on device"):
        fresh(striped, helpers=cluster.helpers)
    assert not list(Path(os.environ["CONVSCOUT_CACHE"]).iterdir())
    assert cluster.hosts[0].ended.is_set()


def test_a_cluster_that_does_not_answer_is_said_and_leaves_nothing(striped: Path, fresh: Any) -> None:
    def joined() -> Any:
        raise RequestError("--address a:1: nothing answers there")

    with pytest.raises(RequestError, match="nothing answers there"):
        fresh(striped, helpers=Helpers(joined, print))
    assert not list(Path(os.environ["CONVSCOUT_CACHE"]).iterdir())


def test_what_others_send_of_the_test_split_lies_in_its_file_alone(
    striped: Path, fresh: Any, others_first: Any
) -> None:
    cluster = Cluster([Host()])
    others_first(cluster)
    made = fresh(striped, helpers=cluster.helpers)
    images, _, paths = open_test(made.folder)
    by_host = {path for order in cluster.hosts[0].pieces for path in order.paths}
    assert by_host & set(paths)
    for image, path in zip(images, paths, strict=True):
        assert np.array_equal(image, cv2.imread(str(striped / path), cv2.IMREAD_COLOR_RGB))

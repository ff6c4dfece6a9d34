"""Archives that lie: what leads outside, expands too far, overlaps or is damaged costs itself, never a traceback."""

import errno
import io
import json
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from bad_files import DIFFICULT_NAMES, odd_images
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation import RequestError
from trainables import tarred
from trainables.files import MOST_FILE_BYTES
from trainables.images import list_images, open_source

HOUSE = Path(__file__).parents[2]
PNG = odd_images()["rgba.png"][0]
USABLE = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]
needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads a process's peak from /proc")


def write_zip(path, members=(), method=zipfile.ZIP_DEFLATED):
    """Write a zip of the usable images and of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in USABLE:
            archive.writestr(name, PNG)
        for member, content in members:
            archive.writestr(member, content)
    return path


def write_tar(path, members=(), mode="w"):
    """Write a tar of the usable images and of (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in [*((name, PNG) for name in USABLE), *members]:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def tar_member(name, kind, linkname=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, linkname
    return member


def zip_member(name, mode):
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = mode << 16
    return member


def reasons(path):
    listing = list_images(str(path))
    for name in USABLE:
        assert listing.source.read(name)
    return {refusal.path: refusal.reason for refusal in listing.refused}


def set_in_directory(path, name, offset, layout, value):
    """Change a field of the zip's central directory, `offset` bytes into the record of the member `name`."""
    content = bytearray(path.read_bytes())
    record = content.index(b"PK\1\2")
    while True:
        length = struct.unpack_from("<H", content, record + 28)[0]
        if content[record + 46 : record + 46 + length] == name.encode():
            break
        record = content.index(b"PK\1\2", record + 4)
    struct.pack_into(layout, content, record + offset, value)
    path.write_bytes(content)


def test_members_that_leave_are_refused(tmp_path):
    outside = ["../evil.png", "/etc/evil.png", "cat/../../evil.png", "\\evil.png", "cat\\..\\..\\evil.png"]
    members = [(name, PNG) for name in outside]
    for path in (write_zip(tmp_path / "data.zip", members), write_tar(tmp_path / "data.tar", members)):
        assert reasons(path) == dict.fromkeys(outside, "its path leaves the archive")
    assert not list(tmp_path.parent.glob("evil.png"))


def test_links_devices_and_pipes_are_refused(tmp_path):
    path = write_zip(
        tmp_path / "data.zip",
        [
            (zip_member("cat/link.png", stat.S_IFLNK | 0o777), "/etc/passwd"),
            (zip_member("cat/tape.png", stat.S_IFCHR | 0o666), b""),
            (zip_member("cat/pipe.png", stat.S_IFIFO | 0o666), b""),
        ],
    )
    assert reasons(path) == {
        "cat/link.png": "symbolic link in an archive",
        "cat/tape.png": "device, pipe or socket in an archive",
        "cat/pipe.png": "device, pipe or socket in an archive",
    }
    members = [
        (tar_member("cat/link.png", tarfile.SYMTYPE, "../../../etc/passwd"), b""),
        (tar_member("cat/inside.png", tarfile.SYMTYPE, "0.png"), b""),
        (tar_member("dog/in", tarfile.SYMTYPE, "/etc"), b""),
        ("dog/in/evil.png", PNG),
        (tar_member("cat/hard.png", tarfile.LNKTYPE, "/etc/passwd"), b""),
        (tar_member("cat/later.png", tarfile.LNKTYPE, "cat/latest.png"), b""),
        (tar_member("cat/0.png", tarfile.LNKTYPE, "cat/0.png"), b""),
        (tar_member("cat/equal.png", tarfile.LNKTYPE, "cat/0.png"), b""),
        (tar_member("cat/tape.png", tarfile.CHRTYPE), b""),
        (tar_member("cat/disk.png", tarfile.BLKTYPE), b""),
        (tar_member("cat/pipe.png", tarfile.FIFOTYPE), b""),
    ]
    path = write_tar(tmp_path / "data.tar", members)
    assert reasons(path) == {
        "cat/link.png": "symbolic link in an archive",
        "cat/inside.png": "symbolic link in an archive",
        "dog/in": "symbolic link in an archive",
        "cat/hard.png": "hard link to no file that stands before it in the archive",
        "cat/later.png": "hard link to no file that stands before it in the archive",
        "cat/0.png": "hard link to itself",
        "cat/tape.png": "device or pipe in an archive",
        "cat/disk.png": "device or pipe in an archive",
        "cat/pipe.png": "device or pipe in an archive",
    }
    assert list_images(str(path)).source.read("cat/equal.png") == PNG
    assert not Path("/etc/evil.png").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_members_with_one_name_the_last_counts(tmp_path):
    twice = [("cat/0.png", PNG + b"later"), ("cat/0.png", PNG + b"latest")]
    for path in (write_zip(tmp_path / "data.zip", twice), write_tar(tmp_path / "data.tar", twice)):
        listing = list_images(str(path))
        assert [(each.path, each.reason) for each in listing.refused] == [
            ("cat/0.png", "stands more than once in the archive: the last one is used")
        ] * 2
        assert listing.source.read("cat/0.png") == PNG + b"latest"
        assert len(listing.items) == 6


def test_a_name_that_is_file_and_folder_costs_itself(tmp_path):
    path = write_tar(tmp_path / "data.tar", [("cat/0.png/below.png", PNG), ("dog", PNG), ("cat/" + "x" * 300, PNG)])
    assert reasons(path) == {
        "cat/0.png/below.png": "cannot be unpacked (File exists)",
        "dog": "cannot be unpacked (Is a directory)",
        "cat/" + "x" * 300: "cannot be unpacked (File name too long)",
    }


def test_difficult_names(tmp_path):
    for path in (
        write_zip(tmp_path / "data.zip", [(f"cat/{name}", PNG) for name in DIFFICULT_NAMES.values()]),
        write_tar(tmp_path / "data.tar", [(f"cat/{os.fsdecode(name)}", PNG) for name in DIFFICULT_NAMES]),
    ):
        listing = list_images(str(path))
        if path.suffix == ".tar":
            assert listing.refused == ()
        for name in set(DIFFICULT_NAMES.values()) - {r"caf\xe9.png", r"\xff\xfe.png"}:
            assert listing.source.read(f"cat/{name}") == PNG
    assert listing.source.read(r"cat/caf\xe9.png") == PNG


def test_encrypted_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "data.zip", [("cat/secret.png", PNG)])
    set_in_directory(path, "cat/secret.png", 8, "<H", 1)
    assert reasons(path) == {"cat/secret.png": "encrypted"}


def test_a_member_that_expands_too_far_is_refused_before_it_is_read(tmp_path):
    path = write_zip(tmp_path / "data.zip", [("cat/zeros.bmp", bytes(2**25)), ("cat/few-zeros.bmp", bytes(2**20))])
    found = reasons(path)
    assert list(found) == ["cat/zeros.bmp"]
    assert found["cat/zeros.bmp"].startswith("expands 1,0")
    assert found["cat/zeros.bmp"].endswith(" times, to 33,554,432 bytes: more than 100 times is taken for a bomb")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_is_too_large_is_refused(kind, tmp_path, monkeypatch):
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path / f"data.{kind}", [("cat/large.png", os.urandom(5000))])
    monkeypatch.setattr("trainables.files.MOST_FILE_BYTES", 4000)
    assert reasons(path) == {"cat/large.png": "5,000 bytes: at most 4,000 are read"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_expansion_cannot_be_bounded_are_refused(method, tmp_path):
    path = write_zip(tmp_path / "data.zip")
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("cat/other.png", PNG)
    reason = f"compressed by method {method}: stored and Deflate (0 and 8) are read"
    assert reasons(path) == {"cat/other.png": reason}


def overlapping(path, copies=200):
    """Write a zip whose members are all the same bytes: 1 MB of zeros, once in the archive, in each of them."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(bytes(2**20)) + packed.flush()
    write_zip(path)
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    fields = (20, 0, 8, 0, 0, zlib.crc32(bytes(2**20)), len(body), 2**20)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields, 0, 0)
    directory = content[start:end]
    for number in range(copies):
        name = f"cat/copy{number}.png".encode()
        record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, len(name), 0, 0, 0, 0, 0, start)
        directory += record + name
    tail = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, 6 + copies, 6 + copies, len(directory), start + len(local) + len(body), 0
    )
    path.write_bytes(content[:start] + local + body + directory + tail)
    return path


def test_overlapping_members_are_refused(tmp_path):
    found = reasons(overlapping(tmp_path / "data.zip"))
    assert len(found) == 200
    assert set(found.values()) == {"its bytes are also another member's: no program makes such archives, bombs are"}


def test_an_archive_in_an_archive_is_not_opened(tmp_path):
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    for path in (
        write_zip(tmp_path / "data.zip", [("cat/r.zip", inner)]),
        write_tar(tmp_path / "data.tar", [("cat/r.zip", inner)]),
    ):
        assert reasons(path) == {"cat/r.zip": "not an image file (.zip)"}


READ = """
import sys
from trainables import tarred
from foundation import RequestError
from trainables.images import list_images

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

tarred._ALLOWANCE_BYTES = int(sys.argv[3])
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS:")
try:
    source = list_images(sys.argv[1]).source
    content = source.read(sys.argv[2])
    print("read", len(content))
except (RequestError, OSError) as error:
    print(error)
print((kilobytes("VmHWM:") - before) * 1024)
"""


def read_apart(path, member, tmp_path, *, tar_allowance_bytes=2**30):
    """Return what reading one member ends with, and by how many bytes a process of its own grew at most."""
    (tmp_path / "unpacked").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), member, str(tar_allowance_bytes)],
        cwd=HOUSE,
        env=os.environ | {"TMPDIR": str(tmp_path / "unpacked")},
        capture_output=True,
        check=True,
        timeout=100,
    )
    said, peak = done.stdout.decode().splitlines()
    assert list((tmp_path / "unpacked").iterdir()) == []
    return said, int(peak)


@needs_proc
@pytest.mark.timeout(120)
def test_a_member_that_claims_less_than_it_expands_to_takes_no_memory(tmp_path):
    """300 MB of zeros that the archive calls 5,000 bytes; Python's own `ZipFile.read` expands all of it first."""
    path = tmp_path / "data.zip"
    with (
        zipfile.ZipFile(write_zip(path), "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cat/liar.png", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    set_in_directory(path, "cat/liar.png", 24, "<L", 5000)
    said, peak = read_apart(path, "cat/liar.png", tmp_path)
    assert said.startswith("damaged in the archive (Bad CRC-32")
    assert peak < 30e6


@needs_proc
@pytest.mark.timeout(120)
@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_tar_that_expands_too_far_is_stopped_while_it_is_unpacked(compression, tmp_path):
    """Members of 30 MB, each small enough by itself, 330 MB in all; what was unpacked is deleted again."""
    path = tmp_path / f"data.tar.{compression}"
    with tarfile.open(path, f"w:{compression}") as archive:
        for number in range(11):
            member = tarfile.TarInfo(f"cat/{number}.bmp")
            member.size = 30 * 2**20
            archive.addfile(member, Zeros(member.size))
    said, peak = read_apart(path, "cat/0.bmp", tmp_path, tar_allowance_bytes=2**28)
    assert "expands to more than 0.3 GB: over 1 GiB and over 100 times the archive's own size is taken for a" in said
    assert peak < 30e6


class Zeros:
    """A file of so many zeros."""

    def __init__(self, size):
        self.left = size

    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize("noticed", ["before", "while"])
def test_a_tar_that_does_not_fit_says_where(noticed, tmp_path, monkeypatch):
    path = write_tar(tmp_path / "data.tar")
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tarred.tempfile, "tempdir", str(tmp_path / "unpacked"))
    monkeypatch.setattr(tarred.shutil, "disk_usage", lambda folder: Disk(100 if noticed == "before" else 2**19))
    monkeypatch.setattr(tarred.shutil, "copyfileobj", fill_the_disk)
    with pytest.raises(RequestError) as caught:
        list_images(str(path))
    assert str(caught.value) == (
        f"data {str(path)!r} needs more room to be unpacked than the 0 MB that are free in "
        f"{str(tmp_path / 'unpacked')!r}: set TMPDIR to a folder that has it, or give the folder"
    )
    assert list((tmp_path / "unpacked").iterdir()) == []


class Disk:
    def __init__(self, free):
        self.free = free


def fill_the_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [2**40, -1024])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_header_that_claims_any_length_takes_neither_memory_nor_for_ever(kind, size, tmp_path):
    """A length below zero leads back to what was read before, in Python's own reader without end."""
    header = bytearray(tar_member("cat/9.png", kind).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (b"\x80" if size > 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    checksum = sum(header[:148]) + sum(header[156:512]) + 8 * 32
    header[148:156] = f"{checksum:06o}\0 ".encode()
    content = write_tar(tmp_path / "data.tar").read_bytes()
    end = content.rindex(b"IEND")
    end += -end % 512
    (tmp_path / "data.tar").write_bytes(content[:end] + bytes(header) + content[end:])
    with pytest.raises(RequestError, match=r"cannot be unpacked \(|expands to more than 1.1 GB"):
        list_images(str(tmp_path / "data.tar"))


def test_a_thousand_headers_of_headers(tmp_path):
    header = tar_member("cat/9.png", tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    content = write_tar(tmp_path / "data.tar").read_bytes()
    (tmp_path / "data.tar").write_bytes(content[:1024] + header * 2000 + content[1024:])
    with pytest.raises(RequestError, match="cannot be unpacked"):
        list_images(str(tmp_path / "data.tar"))


def test_names_of_thousands_of_folders_are_refused(tmp_path):
    deep = "cat/" + "a/" * 30000 + "1.png"
    assert reasons(write_zip(tmp_path / "data.zip", [(deep, PNG)])) == {deep: "more than 100 folders deep"}
    assert reasons(write_tar(tmp_path / "data.tar", [(deep, PNG)])) == {deep: "more than 100 folders deep"}


def test_a_zip_inside_a_tar_does_not_make_it_a_zip(tmp_path):
    inner = write_zip(tmp_path / "inner.zip").read_bytes()
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w") as archive:
        for label in ("owl", "fox"):
            for number in range(3):
                member = tarfile.TarInfo(f"{label}/{number}.png")
                member.size = len(PNG)
                archive.addfile(member, io.BytesIO(PNG))
        member = tarfile.TarInfo("owl/last.zip")
        member.size = len(inner)
        archive.addfile(member, io.BytesIO(inner))
    assert list_images(str(path)).classes == ("fox", "owl")


def read_all(path):
    """Read all of an archive: every file gives bytes or `OSError`, or the archive is refused; nothing else happens."""
    try:
        source = open_source(str(path))
        tree = source.tree()
    except RequestError:
        return
    for name in tree.files:
        with suppress(OSError):
            assert len(source.read(name)) <= MOST_FILE_BYTES
    json.dumps([tree.files, [refusal.path for refusal in tree.refused]], ensure_ascii=False).encode("utf-8")
    assert all(refusal.reason for refusal in tree.refused)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Return the bytes of small archives of every kind."""
    folder = tmp_path_factory.mktemp("archives")
    members = [("cat/young/\u732b.png", PNG), ("dog/notes.txt", b"notes" * 50)]
    made = {}
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflate", zipfile.ZIP_DEFLATED)):
        made[f"{name}.zip"] = write_zip(folder / f"{name}.zip", members, method).read_bytes()
    links = [*members, (tar_member("cat/equal.png", tarfile.LNKTYPE, "cat/0.png"), b""), ("dog/" + "x" * 120, PNG)]
    for mode, suffix in (("w", "tar"), ("w:gz", "tar.gz"), ("w:bz2", "tar.bz2"), ("w:xz", "tar.xz")):
        made[suffix] = write_tar(folder / f"data.{suffix}", links, mode).read_bytes()
    return made


@pytest.mark.timeout(120)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_to_an_archive_is_refused_or_costs_single_files(data, archives, tmp_path_factory):
    kind = data.draw(st.sampled_from(sorted(archives)))
    content = bytearray(archives[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        # Half of the damage goes to the last bytes, where a zip's directory is.
        start = data.draw(st.sampled_from([0, max(len(content) - 900, 0)]))
        where = data.draw(st.integers(start, len(content) - 1))
        damage = data.draw(st.binary(min_size=1, max_size=8))
        content[where : where + len(damage)] = damage
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content)
    read_all(path)


@pytest.mark.timeout(60)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_truncated_tar_is_refused(data, archives, tmp_path_factory):
    kind = data.draw(st.sampled_from(["tar", "tar.gz", "tar.bz2", "tar.xz"]))
    content = archives[kind]
    # tarfile fills a tar with zeros up to 10 KB, so the end may be cut off without a loss.
    end = len(content.rstrip(b"\0")) if kind == "tar" else len(content)
    path = tmp_path_factory.getbasetemp() / f"cut.{kind}"
    path.write_bytes(content[: data.draw(st.integers(0, end - 1))])
    with pytest.raises(RequestError):
        list_images(str(path))

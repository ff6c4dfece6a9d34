"""Every form of DATA, and every way in which it can be wrong."""

import io
import os
import tarfile
import threading
import time
import zipfile

import cv2
import numpy as np
import pytest

from foundation import RequestError
from trainables.images import list_images

PNG = cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1].tobytes()
TWO_CLASSES = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)]
SPLIT = [f"{split}/{path}" for split in ("train", "val", "test") for path in TWO_CLASSES]


def write_tree(root, paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    return root


def write_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, PNG)
    return path


def pack(kind, root, paths):
    """Return DATA of one kind that holds `paths`."""
    if kind == "folder":
        return str(write_tree(root / "data", paths))
    if kind == "zip":
        return str(write_zip(root / "data.zip", paths))
    write_tree(root / "unpacked", paths)
    with tarfile.open(root / f"data.{kind}", "w:" + kind.partition(".")[2]) as archive:
        for path in paths:
            archive.add(root / "unpacked" / path, path)
    return str(root / f"data.{kind}")


def rows(listing):
    return [(item.path, item.label, item.split) for item in listing.items]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_class_folders(kind, tmp_path):
    listing = list_images(pack(kind, tmp_path, [*TWO_CLASSES, "README.md", "notes.txt"]))
    assert rows(listing) == [(path, path[:3], None) for path in TWO_CLASSES]
    assert listing.classes == ("cat", "dog")
    assert listing.refused == ()
    assert listing.source.read("cat/0.png") == PNG


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("around", ["", "mydata/", "a/b/"])
def test_split_folders_with_others_around(kind, around, tmp_path):
    listing = list_images(pack(kind, tmp_path, [around + path for path in SPLIT]))
    expected = [(around + path, path.split("/")[1], path.split("/")[0]) for path in sorted(SPLIT)]
    assert rows(listing) == expected


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Valid"])
def test_words_for_validation(word, tmp_path):
    paths = [f"{split}/{path}" for split in ("train", word) for path in TWO_CLASSES]
    assert {item.split for item in list_images(pack("zip", tmp_path, paths)).items} == {"train", "val"}


def test_deeper_folders_belong_to_their_class(tmp_path):
    paths = [*TWO_CLASSES, "cat/young/1.png", "cat/old/a/2.png"]
    listing = list_images(pack("folder", tmp_path, paths))
    assert [item.label for item in listing.items] == ["cat"] * 5 + ["dog"] * 3


def test_a_class_may_be_called_train(tmp_path):
    paths = [f"{label}/{index}.png" for label in ("bus", "train") for index in range(3)]
    assert list_images(pack("folder", tmp_path, paths)).classes == ("bus", "train")


def test_hidden_and_system_files_are_ignored_and_others_are_listed(tmp_path):
    extra = [".git/x.png", "cat/.hidden.png", "cat/Thumbs.db", "__MACOSX/cat/._0.png", "cat/notes.txt", "cat/noname"]
    listing = list_images(pack("folder", tmp_path, [*TWO_CLASSES, *extra, "loose.png", "labels.csv"]))
    assert {(refusal.path, refusal.reason) for refusal in listing.refused} == {
        ("cat/notes.txt", "not an image file (.txt)"),
        ("cat/noname", "not an image file (no suffix)"),
        ("loose.png", "not in a class folder"),
        ("labels.csv", "not an image file (.csv)"),
    }
    assert len(listing.items) == 6


def test_links_that_leave_or_loop_are_refused(tmp_path):
    data = write_tree(tmp_path / "data", TWO_CLASSES)
    outside = write_tree(tmp_path / "outside", ["secret.png"])
    (data / "cat/out.png").symlink_to(outside / "secret.png")
    (data / "cat/all").symlink_to(outside)
    (data / "cat/up").symlink_to(data)
    (data / "cat/gone.png").symlink_to(data / "nothing.png")
    (data / "cat/self.png").symlink_to(data / "cat/self.png")
    (data / "cat/dogs").symlink_to(data / "dog")
    (data / "dog/cats").symlink_to(data / "cat")
    os.mkfifo(data / "cat/pipe.png")
    listing = list_images(str(data))
    reasons = {refusal.path: refusal.reason for refusal in listing.refused}
    assert reasons["cat/out.png"] == reasons["cat/all"] == "symbolic link that leaves the folder"
    assert reasons["cat/up"] == "symbolic link to a folder it lies in"
    assert reasons["cat/dogs/cats"] == reasons["dog/cats/dogs"] == "symbolic link to a folder it lies in"
    assert reasons["cat/gone.png"] == reasons["cat/self.png"] == "symbolic link that leads nowhere"
    assert reasons["cat/pipe.png"] == "not a regular file"
    assert "cat/dogs/0.png" in [item.path for item in listing.items]


def test_archive_members_that_leave_are_refused(tmp_path):
    bad = ["../evil.png", "/etc/evil.png", "cat/../../evil.png"]
    listing = list_images(str(write_zip(tmp_path / "data.zip", [*TWO_CLASSES, *bad])))
    assert {refusal.path for refusal in listing.refused} == set(bad)
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w") as archive:
        for name in [*TWO_CLASSES, *bad]:
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        archive.addfile(link)
    listing = list_images(str(path))
    assert {refusal.path for refusal in listing.refused} == {*bad, "cat/link.png"}
    assert len(listing.items) == 6
    assert not (tmp_path.parent / "evil.png").exists()


def test_zip_is_read_by_many_threads_at_once(tmp_path):
    path = tmp_path / "data.zip"
    contents = {f"{label}/{index}.png": os.urandom(5000) for label in "ab" for index in range(20)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    source = list_images(str(path)).source
    wrong = []

    def read_all():
        wrong.extend(name for name, content in contents.items() if source.read(name) != content)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_damaged_member_is_an_oserror(tmp_path):
    path = write_zip(tmp_path / "data.zip", TWO_CLASSES)
    content = bytearray(path.read_bytes())
    content[content.index(PNG) + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(OSError, match="damaged in the archive"):
        list_images(str(path)).source.read("cat/0.png")


def test_key_follows_what_is_on_disk(tmp_path):
    data = write_tree(tmp_path / "data", TWO_CLASSES)
    first = list_images(str(data)).key
    assert list_images(str(data)).key == first
    data.rename(tmp_path / "moved")
    assert list_images(str(tmp_path / "moved")).key == first
    os.utime(tmp_path / "moved/cat/0.png", ns=(1, 1))
    second = list_images(str(tmp_path / "moved")).key
    (tmp_path / "moved/cat/9.png").write_bytes(PNG)
    assert len({first, second, list_images(str(tmp_path / "moved")).key}) == 3


def test_key_of_archives_is_their_content(tmp_path):
    keys = [
        list_images(pack(kind, tmp_path / kind, TWO_CLASSES)).key
        for kind in ("zip", "tar")
        if not (tmp_path / kind).mkdir()
    ]
    os.utime(tmp_path / "zip/data.zip", ns=(1, 1))
    os.utime(tmp_path / "tar/data.tar", ns=(1, 1))
    again = [list_images(str(tmp_path / kind / f"data.{kind}")).key for kind in ("zip", "tar")]
    assert keys == again


def test_key_of_many_files_is_quick(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(2000):
            (tmp_path / label / f"{index}.png").touch()
    started = time.process_time()
    assert len(list_images(str(tmp_path)).items) == 4000
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["cat/notes.txt"], "holds no image (1 other files)"),
        (["1.png", "2.png"], "holds 2 images but no class folders"),
        (["train/1.png", "test/2.png"], "holds 2 images but no class folders"),
        (["cat/1.png", "cat/2.png", "cat/3.png"], "holds one class only ('cat'): at least two are needed"),
        ([*TWO_CLASSES, "emu/notes.txt"], "class folder 'emu' in"),
        ([*SPLIT, "test/emu/notes.txt"], "class folder 'emu' in"),
        ([*SPLIT, "test/emu/1.png"], "class 'emu' in data {data!r} is in test but not in train"),
        (
            [*TWO_CLASSES, "emu/1.png", "emu/2.png"],
            "class 'emu' in data {data!r} holds 2 of the 3 images it needs: "
            "1 to train and 1 for val and 1 for test, which must be made from them",
        ),
        (
            [f"{split}/{label}/1.png" for split in ("train", "test") for label in "ab"],
            "class 'a' in data {data!r} holds 1 of the 2 images it needs: "
            "1 to train and 1 for val, which must be made from them",
        ),
        (SPLIT[6:], "has test and val but no train: training needs it"),
        (
            [*SPLIT[:6], "val/cat/1.png", "val/dog/1.png", "test/cat/1.png"],
            "has 1 image in test: two or more are needed to say anything of others",
        ),
        ([*SPLIT, "cat/1.png"], "mixes splits (test, train, val) with other folders (cat)"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_data_that_cannot_be_used(kind, paths, problem, tmp_path):
    data = pack(kind, tmp_path, paths)
    with pytest.raises(RequestError) as caught:
        list_images(data)
    assert problem.format(data=data) in caught.value.problems[0]


def test_empty_folders(tmp_path):
    with pytest.raises(RequestError, match=r"holds no image \(0 other files\): give a folder, a zip"):
        list_images(str(tmp_path))
    write_tree(tmp_path, TWO_CLASSES)
    (tmp_path / "emu").mkdir()
    with pytest.raises(RequestError, match=r"class folder 'emu' in data .* holds no image"):
        list_images(str(tmp_path))


def test_missing_data_names_the_closest(tmp_path):
    (tmp_path / "photos.zip").touch()
    with pytest.raises(RequestError, match=r"photso.zip' does not exist: did you mean '.*/photos.zip'\? give a folder"):
        list_images(str(tmp_path / "photso.zip"))
    with pytest.raises(RequestError, match=r"'digit' does not exist: did you mean 'digits'\?"):
        list_images("digit")
    with pytest.raises(RequestError, match=r"does not exist: give a folder"):
        list_images(str(tmp_path / "nowhere/zzz"))


@pytest.mark.parametrize("data", ["", " "])
def test_empty_data_is_not_this_folder(data):
    with pytest.raises(RequestError, match=r"DATA is empty: give a folder, a zip"):
        list_images(data)


def test_mistakes_in_classes_say_what_was_refused(tmp_path):
    data = write_tree(tmp_path / "data", TWO_CLASSES[:3])
    (data / "dog").symlink_to(write_tree(tmp_path / "outside", ["dog/1.png"]) / "dog")
    with pytest.raises(RequestError) as caught:
        list_images(str(data))
    assert caught.value.problems == (
        f"data {str(data)!r} holds one class only ('cat'): at least two are needed",
        "1 path was refused: 'dog' (symbolic link that leaves the folder)",
    )
    write_tree(data, [f"emu/{index}.txt" for index in range(4)])
    with pytest.raises(RequestError) as caught:
        list_images(str(data))
    assert caught.value.problems == (
        f"class folder 'emu' in data {str(data)!r} holds no image",
        "5 paths were refused, the first three: 'dog' (symbolic link that leaves the folder), "
        "'emu/0.txt' (not an image file (.txt)), 'emu/1.txt' (not an image file (.txt))",
    )


def test_data_with_links_only_says_that_they_were_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cat").symlink_to(tmp_path)
    with pytest.raises(RequestError) as caught:
        list_images(str(tmp_path / "data"))
    assert caught.value.problems[1] == "1 path was refused: 'cat' (symbolic link that leaves the folder)"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_damaged_archives(kind, tmp_path):
    data = pack(kind, tmp_path, TWO_CLASSES)
    with open(data, "r+b") as file:
        file.truncate(os.path.getsize(data) // 2)
    with pytest.raises(RequestError, match=r"cannot be (read|unpacked)"):
        list_images(data)


def test_file_of_another_kind(tmp_path):
    (tmp_path / "data.pdf").write_text("%PDF")
    with pytest.raises(RequestError, match=r"is a file of another kind \(.pdf\): give a folder, a zip, a tar"):
        list_images(str(tmp_path / "data.pdf"))


def test_tar_with_a_damaged_header_is_not_read_in_part(tmp_path):
    data = pack("tar", tmp_path, TWO_CLASSES)
    content = bytearray((tmp_path / "data.tar").read_bytes())
    content[4 * 1024 : 4 * 1024 + 512] = os.urandom(512)
    (tmp_path / "data.tar").write_bytes(content)
    with pytest.raises(RequestError, match=r"cannot be unpacked \(it has no end\): give a whole archive"):
        list_images(data)


def test_zip_whose_names_begin_with_a_dot(tmp_path):
    listing = list_images(str(write_zip(tmp_path / "data.zip", ["./" + path for path in TWO_CLASSES])))
    assert [item.path for item in listing.items] == TWO_CLASSES
    assert listing.source.read("cat/0.png") == PNG

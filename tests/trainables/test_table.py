"""CSV files as DATA."""

import os

import pytest

from foundation import RequestError
from trainables.images import list_images

TWO_CLASSES = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)]


def write_csv(root, text):
    for path in TWO_CLASSES:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    (root / "data.csv").write_text(text, encoding="utf-8")
    return str(root / "data.csv")


def test_csv(tmp_path):
    splits = ("train", "Valid", "test")
    lines = [f"{path},{path[:3]},{splits[int(path[-5])]},g{path[-5]}" for path in TWO_CLASSES]
    data = write_csv(
        tmp_path,
        "\ufeffpath, Label,SPLIT,group\n"
        + "\n".join([*lines, "cat/7.png,cat,train,g0", lines[0], "dog/0.png,cat,train,g0"]),
    )
    listing = list_images(data)
    assert [(item.path, item.label, item.split) for item in listing.items] == [
        (path, path[:3], ("train", "val", "test")[int(path[-5])]) for path in TWO_CLASSES
    ]
    assert [item.group for item in listing.items] == ["g0", "g1", "g2"] * 2
    assert [refusal.reason for refusal in listing.refused] == [
        f"row 8 names a file that does not exist: {tmp_path / 'cat/7.png'} (paths are relative to the CSV's folder)",
        "row 9 names a file that an earlier row names",
        "row 10 labels 'cat' a file that an earlier row labels 'dog'; the earlier row counts",
    ]
    before = listing.key
    os.utime(tmp_path / "cat/0.png", ns=(1, 1))
    assert list_images(data).key != before


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("path,lable\ncat/0.png,cat", ["column 'lable' is not known: did you mean 'label'?", "has no column 'label'"]),
        ("path,path,label\na,b,c", ["has the column 'path' twice"]),
        ("label\ncat", ["has no column 'path': its columns are label"]),
        ("", ["has no header: the first row must be path,label[,split][,group], but is nothing"]),
        (
            "cat/0.png,cat\ndog/0.png,dog",
            ["has no header: the first row must be path,label[,split][,group], but is 'cat/0.png,cat'"],
        ),
        ("path,label\n\n", ["has no rows: one row for each image must follow its header"]),
        ("path;label\ncat/0.png;cat", ["the cells are separated by ';' and must be separated by ','"]),
        ('"Path";"Label"\r\n"cat/0.png";"cat"', ["the cells are separated by ';' and must be separated by ','"]),
        ("path\tlabel\ncat/0.png\tcat", ["the cells are separated by tabs and must be separated by ','"]),
        ("path,label,split\ncat/0.png,,trian", ["row 2: the label is empty", "row 2: split 'trian' is not known: did"]),
        ("path,label\ncat/0.png,cat,3", ["row 2 has more cells than there are columns"]),
        (
            "path,label,split,group\ncat/0.png,cat,train,a\ndog/0.png,dog,test,a",
            ["group 'a' is in test and train; a group belongs to one split"],
        ),
        (
            "path,label\nnone.png,cat",
            ["names no image that exists: 1 of its rows were refused, the first because row 2"],
        ),
        ('path,label\n"cat/0.png,cat', ["cannot be read as CSV"]),
    ],
)
def test_mistakes_in_a_csv(text, problems, tmp_path):
    with pytest.raises(RequestError) as caught:
        list_images(write_csv(tmp_path, text))
    for found, expected in zip(caught.value.problems, problems, strict=True):
        assert expected in found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_another_encoding_is_named(encoding, tmp_path):
    data = tmp_path / "data.csv"
    data.write_bytes("path,label\nk\u00e4se.png,k\u00e4se\n".encode(encoding))
    with pytest.raises(RequestError, match=r"data.csv' is not UTF-8 \(.*\): save it as UTF-8"):
        list_images(str(data))


def test_labels_may_hold_anything(tmp_path):
    labels = ["[red]cat/dog[/red]", "=1+1\ntwo\x1b[31m"]
    lines = [f'{label}/{number}.png,"{labels[label == "dog"]}"' for label in ("cat", "dog") for number in range(3)]
    listing = list_images(write_csv(tmp_path, "path,label\n" + "\n".join(lines)))
    assert listing.classes == ("=1+1\ntwo\x1b[31m", "[red]cat/dog[/red]")


def test_a_csv_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.files.MOST_FILE_BYTES", 50)
    with pytest.raises(RequestError, match=r"data.csv' cannot be read as CSV \(61 bytes: at most 50 are read\)"):
        list_images(write_csv(tmp_path, "path,label\n" + "x" * 50))


def test_many_mistakes_in_a_csv_are_summed_up(tmp_path):
    with pytest.raises(RequestError) as caught:
        list_images(write_csv(tmp_path, "path,label\n" + "a.png,\n" * 50))
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1].endswith("40 more rows like these")

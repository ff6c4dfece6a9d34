"""What is on disk -> a checked list of images with their classes.

DATA is one of
- a folder CLASS/image, or train|val|test/CLASS/image (`valid` and `validation` mean `val`; deeper folders belong
  to their class; one folder around it all is looked into),
- a zip or tar (.gz, .bz2, .xz) of either,
- a CSV with the columns path,label[,split][,group],
- a built-in name: digits, cifar10, mnist, fashion_mnist (for a folder of that name write ./digits).
"""

import difflib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundation import Problems, RequestError
from trainables.builtin import BUILTIN, BuiltinSource
from trainables.formats import IMAGE_SUFFIXES
from trainables.sources import FolderSource, Refused, Source, Tree, TreeSource, may_read, utf8
from trainables.table import SPLIT_WORDS, CsvSource, Item
from trainables.tarred import TarSource, is_tar
from trainables.zipped import ZipSource

__all__ = ["Item", "Listing", "Refused", "check_classes", "list_images", "open_source"]

_ALLOWED = f"a folder, a zip, a tar, a CSV, or one of {', '.join(BUILTIN)}"
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz")

# Hidden files and folders, and what systems leave behind; not "..", of which the path of a row in a CSV may be made.
_IGNORED = re.compile(r"(?:^|/)(?:\.(?!\.(?:/|\Z))|__MACOSX(?:/|\Z)|(?:Thumbs\.db|desktop\.ini)\Z)")


@dataclass(frozen=True)
class Listing:
    """The images of DATA, sorted by path, with sorted classes; splits are those that DATA itself gives.

    `key` identifies what DATA looks like from outside: it changes when a file is added, removed or changed.
    """

    data: str
    source: Source
    items: tuple[Item, ...]
    refused: tuple[Refused, ...]
    classes: tuple[str, ...]
    key: str


def open_source(data: str) -> TreeSource | CsvSource:
    """Return what `data` names, without reading its images; raises `RequestError` when it names nothing usable."""
    if not data.strip():
        raise RequestError(f"DATA is empty: give {_ALLOWED}")
    if data in BUILTIN:
        return BuiltinSource(data)
    if utf8(data) != data:
        raise RequestError(f"data {utf8(data)!r}: its name is not UTF-8; give it another name, or make a link to it")
    path = Path(os.path.expanduser(data))
    if not os.path.exists(path):
        raise RequestError(_missing(data, path))
    if not may_read(path):
        raise RequestError(f"data {data!r} cannot be read: permission is denied")
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():  # opening a pipe would wait for its writer
        raise RequestError(f"data {data!r} is neither a file nor a folder: give {_ALLOWED}")
    if path.suffix.lower() == ".csv":
        return CsvSource(path)
    if is_tar(path):  # asked first: a zip as a tar's last member makes it look like a zip
        return TarSource(path)
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        raise RequestError(f"data {data!r} is an archive that cannot be read: it is damaged or cut short")
    raise RequestError(f"data {data!r} is a file of another kind ({path.suffix or 'no suffix'}): give {_ALLOWED}")


def list_images(data: str, source: TreeSource | CsvSource | None = None) -> Listing:
    """Return the checked list of the images of `data`; pass `source` when it has been opened already.

    No image is decoded here. Raises `RequestError` with everything that makes the data unusable: no images, no
    class folders, fewer than two classes, a class without images in the training split, or with too few to
    make the splits that are missing. What was refused comes last: it may be what is missing.
    """
    source = source or open_source(data)
    if isinstance(source, CsvSource):
        items, refused = source.rows()
        if not items:
            raise RequestError(
                f"data {data!r} names no image that exists: {len(refused)} of its rows were refused"
                + (f", the first because {refused[0].reason}" if refused else "")
            )
        folders: set[str] = set()
    else:
        items, refused, folders = _from_tree(data, source.tree())
    items.sort(key=lambda item: item.path)
    problems = Problems()
    classes = tuple(sorted({item.label for item in items} | folders))
    check_classes(f"data {data!r}", items, classes, problems)
    _raise_with_refused(problems, refused)
    return Listing(data, source, tuple(items), tuple(refused), classes, source.key)


def check_classes(where: str, items: Sequence[Item], classes: Iterable[str], problems: Problems) -> None:
    """Note in `problems` whatever keeps these items from being trained on and split.

    `where` begins each sentence. The training split needs one image of each class, and one more for each
    split that is not given and so must be made from it.
    """
    classes = list(classes)
    if len(classes) < 2:
        problems.add(f"{where} holds one class only ({classes[0]!r}): at least two are needed")
    given = {item.split for item in items} - {None}
    if given and "train" not in given:
        problems.add(f"{where} has {' and '.join(sorted(map(str, given)))} but no train: training needs it")
        return
    for split in sorted(map(str, given - {"train"})):
        if sum(item.split == split for item in items) < 2:
            problems.add(f"{where} has 1 image in {split}: two or more are needed to say anything of others")
    to_make = [split for split in ("val", "test") if split not in given]
    in_train = Counter(item.label for item in items if item.split in (None, "train"))
    anywhere = Counter(item.label for item in items)
    for label in classes:
        if not anywhere[label]:
            problems.add(f"class folder {label!r} in {where} holds no image")
        elif not in_train[label]:
            other = next(item.split for item in items if item.label == label)
            problems.add(f"class {label!r} in {where} is in {other} but not in train")
        elif in_train[label] <= len(to_make):
            problems.add(
                f"class {label!r} in {where} holds {in_train[label]} of the {1 + len(to_make)} images it needs: "
                f"1 to train and {' and '.join(f'1 for {split}' for split in to_make)}, which must be made from them"
            )


def _missing(data: str, path: Path) -> str:
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        siblings = []
    close = difflib.get_close_matches(path.name, [*siblings, *BUILTIN], n=1, cutoff=0.5)
    hint = ""
    if close:
        named = close[0] if close[0] in BUILTIN else str(path.parent / close[0])
        hint = f"did you mean {named!r}? "
    return f"data {data!r} does not exist: {hint}give {_ALLOWED}"


def _raise_with_refused(problems: Problems, refused: Sequence[Refused]) -> None:
    """Raise the problems, if there are any, and add how many paths were refused and the first three of them."""
    if problems.found and refused:
        first = ", ".join(f"{refusal.path!r} ({refusal.reason})" for refusal in refused[:3])
        count = "1 path was" if len(refused) == 1 else f"{len(refused)} paths were"
        problems.add(f"{count} refused{', the first three' if len(refused) > 3 else ''}: {first}")
    problems.raise_if_any()


def _from_tree(data: str, tree: Tree) -> tuple[list[Item], list[Refused], set[str]]:
    """Return the items and refusals of a tree, and its classes by folder, empty ones too."""
    files = [path for path in tree.files if not _IGNORED.search(path)]
    folders = [path for path in tree.folders if not _IGNORED.search(path)]
    images = {path for path in files if _suffix(path).lower() in IMAGE_SUFFIXES}
    refused = [refusal for refusal in tree.refused if not _IGNORED.search(refusal.path)]
    problems = Problems()
    if not images:
        problems.add(
            f"data {data!r} holds no image ({len(files)} other files): "
            f"give {_ALLOWED}; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
        _raise_with_refused(problems, refused)
    around = _wrapping(images, folders)
    has_splits = _has_splits(data, images, around)
    depth = around + (2 if has_splits else 1)
    items = []
    for path in files:
        parts = path.split("/")
        if path not in images:
            if len(parts) > around + 1 or not _is_a_note(parts[-1]):
                refused.append(Refused(path, f"not an image file ({_suffix(path) or 'no suffix'})"))
        elif len(parts) <= depth:
            refused.append(Refused(path, "not in a class folder"))
        else:
            split = SPLIT_WORDS[parts[around].lower()] if has_splits else None
            items.append(Item(path, parts[depth - 1], split))
    if not items or (not has_splits and all(item.label.lower() in SPLIT_WORDS for item in items)):
        problems.add(
            f"data {data!r} holds {len(images)} images but no class folders: "
            f"put the images of each class into a folder named after it"
        )
    else:
        _check_filled(data, folders, items, depth, problems)
    _raise_with_refused(problems, refused)
    return items, refused, {path.split("/")[depth - 1] for path in folders if path.count("/") == depth - 1}


def _check_filled(data: str, folders: list[str], items: list[Item], depth: int, problems: Problems) -> None:
    filled = {"/".join(item.path.split("/")[:depth]) for item in items}
    for folder in folders:
        if folder.count("/") == depth - 1 and folder not in filled:
            above, _, name = folder.rpartition("/")
            where = f"{data}/{above}" if above else data
            problems.add(f"class folder {name!r} in data {where!r} holds no image")


def _wrapping(images: set[str], folders: list[str]) -> int:
    """Return how many folders lie around everything: single ones, not named as a split, with folders in them."""
    around = 0
    while True:
        tops = {tuple(path.split("/")[: around + 1]) for path in folders if path.count("/") >= around}
        if len(tops) != 1 or any(path.count("/") <= around + 1 for path in images):
            return around
        (top,) = tops
        if top[-1].lower() in SPLIT_WORDS:
            return around
        around += 1


def _has_splits(data: str, images: set[str], around: int) -> bool:
    """Say whether the top folders are splits; a class may be called `train` where no folder lies in it."""
    tops = {path.split("/")[around] for path in images if path.count("/") > around}
    with_folders = {path.split("/")[around] for path in images if path.count("/") > around + 1}
    splits = {top for top in with_folders if top.lower() in SPLIT_WORDS}
    others = {top for top in tops if top.lower() not in SPLIT_WORDS}
    if splits and others:
        raise RequestError(
            f"data {data!r} mixes splits ({', '.join(sorted(splits))}) with other folders "
            f"({', '.join(sorted(others))}): the top folders are either all splits or all classes"
        )
    return bool(splits)


def _suffix(path: str) -> str:
    """Return what stands behind the last point of a file's name, with the point; "" where that is nothing."""
    suffix = os.path.splitext(path)[1]
    return suffix if suffix != "." else ""


def _is_a_note(name: str) -> bool:
    return name.upper().startswith("README") or name.lower().endswith(".txt")

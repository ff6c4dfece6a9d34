"""What is said of a data set before anything is trained on it, in the terminal and on its page alike."""

from analysis.wording import joined, percent
from foundation import count
from trainables.overview import ClassRow, Overview

# Up to here the classes of a training split are called about equally large, and from here on some are called rare.
_EQUAL, _RARE = 1.5, 3.0
# Below this many images of a class, a share of them right moves in steps that hide any difference worth having.
_FEW_TRAIN, _FEW_VAL = 20, 5
_NAME_LENGTH = 40
_MEANING = {
    "train": "training images teach",
    "val": "validation images choose between configurations",
    "test": "test images judge the chosen one, once, at the end",
}


def summary(found: Overview) -> tuple[str, ...]:
    """Return what to know first: how many images, how large, how they are split, how even the classes are, copies."""
    return (images(found), sizes(found), split(found), *balance(found), copied(found))


def images(found: Overview) -> str:
    """Return how many images and classes there are, and where they go."""
    totals = {name: sum(getattr(row, name) for row in found.rows) for name in _MEANING}
    parts = joined([f"{totals[name]:,} {name}" for name in _MEANING])
    return f"{count(found.n_images, 'image')} in {count(len(found.rows), 'class')}: {parts}."


def sizes(found: Overview) -> str:
    """Return how large the files are and how large they are used."""
    channels, height, width = found.image_shape
    wide, high = found.width, found.height
    if wide["min"] == wide["max"] and high["min"] == high["max"]:
        files = f"{wide['min']:g} x {high['min']:g} pixels"
    else:
        files = f"{_range(wide)} pixels wide and {_range(high)} high "
        files += f"(medians {wide['median']:.0f} and {high['median']:.0f})"
    colour = "grey" if channels == 1 else "RGB"
    return f"Files are {files}; used as {width} x {height}, {colour} ({found.resize})."


def split(found: Overview) -> str:
    """Return where the split comes from and what each part of it is for."""
    given = [name for name in _MEANING if name in found.split["given"]]
    made = [name for name in ("test", "val") if name not in given]
    fractions = {name: percent(found.split[f"{name}_fraction"]).replace(".0 %", " %") for name in made}
    parts = [f"{joined(given)} {'is' if len(given) == 1 else 'are'} given by the data"] if given else []
    if made:
        how = "in whole groups" if found.split["by_group"] else "class by class"
        rest = {"test": "", "val": " of the rest" if "test" in made else " of train"}
        held = joined([f"{name} ({fractions[name]}{rest[name]})" for name in made])
        parts.append(f"{held} {'was' if len(made) == 1 else 'were'} held out here, {how}, the same every time")
    return f"Split: {'; '.join(parts)}. {joined(list(_MEANING.values())).capitalize()}."


def balance(found: Overview) -> tuple[str, ...]:
    """Return how even the classes are, what that means for training, and which classes have too few images."""
    most, least = largest_first(found)[0], largest_first(found)[-1]
    between = f"{short(most.name)} ({most.train:,}) and {short(least.name)} ({least.train:,})"
    times = f"{found.imbalance:.3g} times as many training images"
    if most.train == least.train:
        said = f"Every class has {count(most.train, 'training image')}."
    elif found.imbalance <= _EQUAL:
        said = f"The classes are about equally large: from {least.train:,} to {most.train:,} training images."
    elif found.imbalance < _RARE:
        said = f"The largest class has {times} as the smallest, {between}: look at the small ones' own figures too."
    else:
        said = (
            f"The largest class has {times} as the smallest, {between}: judge by `--metric val_balanced_accuracy`, in "
            "which every class counts alike. The search tries `class_weights: balanced`, which helps rare classes."
        )
    in_val = sorted((row.val for row in found.rows), reverse=True)
    name = "one and the same class"
    if in_val[0] > in_val[1]:
        name = short(max(found.rows, key=lambda row: row.val).name)
    share = percent(in_val[0] / sum(in_val))
    sentences = [said, f"To beat: always answering {name} is right for {share} of the validation images."]
    few = [row for row in found.rows if row.train < _FEW_TRAIN or row.val < _FEW_VAL]
    if few:
        fewest = min(few, key=lambda row: (row.train, row.val))
        have = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
        sentences.append(
            f"{have} fewer than {_FEW_TRAIN} training or {_FEW_VAL} validation images (the fewest: "
            f"{short(fewest.name)}, {fewest.train} and {fewest.val}): what is measured of such classes is rough."
        )
    return tuple(sentences)


def copied(found: Overview) -> str:
    """Return how many images are copies of others, and what was done about those on two sides of the split."""
    parts = [f"{number:,} within {name}" for name, number in found.duplicates_within.items() if number]
    if found.n_leaks:
        done = " (none left out)"
        if found.left_out:
            done = f" ({found.left_out:,} left out; `--duplicates keep` keeps them)"
        parts.append(f"{found.n_leaks:,} across splits{done}")
    if not parts:
        return "No image is a copy of another, exact or near."
    return f"Copies of other images, exact or near: {', '.join(parts)}."


def refused(found: Overview) -> str:
    """Return how many files are not used."""
    if not found.refused:
        return "No file was refused."
    return f"{count(len(found.refused), 'file')} {'was' if len(found.refused) == 1 else 'were'} refused."


def largest_first(found: Overview) -> list[ClassRow]:
    """Return the classes by falling number of training images; equally large ones stay in the order of their names."""
    return sorted(found.rows, key=lambda row: -row.train)


def short(name: str) -> str:
    """Return a class name in quotes, of a long one its beginning and end."""
    half = _NAME_LENGTH // 2
    return repr(name if len(name) <= _NAME_LENGTH else f"{name[:half]}…{name[1 - half :]}")


def _range(side: dict[str, float]) -> str:
    return f"{side['min']:g}" if side["min"] == side["max"] else f"{side['min']:g} to {side['max']:g}"

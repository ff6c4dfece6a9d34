"""Decoding into the cache against bare OpenCV, finding the cache again, and sharing it between processes."""

import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from measure import ZIP, Figures, interleaved, options, ratios, seconds_of, table, tell

from trainables.cache import ImageCache, open_cache, prepare

CORES = len(os.sched_getaffinity(0))
MOST_IN_CHUNK = 64
PROCESSES, ROUNDS = 8, 5
SMALL, PHOTOS, LARGE = 5000, 500, 30


@dataclass(frozen=True)
class _Kind:
    """Files to decode; how ours has OpenCV read and resize them, which bare OpenCV can do as well."""

    folder: Path
    pixels: str
    size: int
    reading: int
    resizing: int


def main() -> None:
    """Measure all three and tell."""
    parser = options(__doc__)
    parser.add_argument("--touch", type=Path, help="read all images of this cache, and wait for standard input to end")
    asked = parser.parse_args()
    if asked.touch:
        _touch(asked.touch)
        return
    with tempfile.TemporaryDirectory() as scratch:
        small, photos, large = (Path(scratch, name) for name in ("small", "photos", "large"))
        write_cifar(small, SMALL)
        _write_made(photos, PHOTOS, (240, 320))
        _write_made(large, LARGE, (3024, 4032))
        kinds = (
            _Kind(small, "32 x 32", 32, cv2.IMREAD_COLOR, cv2.INTER_AREA),
            _Kind(photos, "320 x 240", 224, cv2.IMREAD_COLOR, cv2.INTER_LINEAR),
            _Kind(large, "4032 x 3024", 224, cv2.IMREAD_REDUCED_COLOR_4, cv2.INTER_AREA),
        )
        text = _decoding(kinds, Path(scratch))
        text += "\n\n" + _found_again(ZIP if ZIP.exists() else small, small, Path(scratch))
    tell("decoding.py", "Decoding, once", text, asked.keep)


def write_cifar(folder: Path, count: int, skip: int = 0) -> None:
    """Write so many 32 x 32 JPEGs into ten class folders: of CIFAR-10's train images, or made where there is no zip."""
    if not ZIP.exists():
        _write_made(folder, count, (32, 32), first=skip)
        return
    with zipfile.ZipFile(ZIP) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        for label in classes:
            of_class = [name for name in names if name.split("/")[1] == label]
            for name in of_class[skip // len(classes) : (skip + count) // len(classes)]:
                target = folder / label / name.rsplit("/")[-1]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))


def _write_made(folder: Path, count: int, shape: tuple[int, int], first: int = 0) -> None:
    """Write smooth random images (height, width) with a little noise, which compress about as photographs do."""
    height, width = shape
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (max(height // 10, 4), max(width // 10, 4), 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        pixels = np.clip(smooth + 4 * rng.standard_normal(smooth.shape, np.float32), 0, 255).astype(np.uint8)
        target = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes())


def _decoding(kinds: Sequence[_Kind], scratch: Path) -> str:
    rows = []
    for kind in kinds:
        files = sorted(kind.folder.glob("*/*.jpg"))
        contenders = {
            "ours": _ours(kind.folder, kind.size, scratch, len(files)),
            "all": _bare(files, kind.size, CORES, kind.reading, kind.resizing),
            "one": _bare(files, kind.size, 1, kind.reading, kind.resizing),
            "plain": _bare(files, kind.size, CORES, cv2.IMREAD_COLOR, cv2.INTER_AREA),
        }
        found = interleaved(contenders, ROUNDS)
        faster = max(found["all"], found["one"], key=lambda figures: figures.median)
        of = "CIFAR-10" if kind.size == 32 and ZIP.exists() else "made"
        what = f"{len(files):,} {of} files of {kind.pixels} to {kind.size} x {kind.size}"
        rows.append((what, *found.values(), ratios(found["ours"], faster), ratios(found["ours"], found["plain"])))
    threads = f"OpenCV, {CORES} threads, images/s"
    columns = (
        "",
        "ours, images/s",
        threads,
        "OpenCV, 1 thread, images/s",
        f"OpenCV in full, {CORES} threads, images/s",
    )
    text = table((*columns, "ours / the faster", "ours / OpenCV in full"), rows)
    return text + (
        f"\n\nMedian (min–max) of {ROUNDS} in turn. Ours is `prepare` from the folder to the finished cache on disk: "
        "listing, checks, checksums, search for copies, split. OpenCV reads, decodes and resizes into an array, as "
        "ours does: from 12 megapixels to a quarter of the sides, which are then averaged, and interpolating from 320 "
        "x 240. In full is what one would write first: all pixels, averaged."
    )


def _ours(folder: Path, size: int, scratch: Path, count: int) -> Callable[[], float]:
    def measure() -> float:
        with _cache_in(scratch):
            return count / seconds_of(lambda: prepare(str(folder), image_size=size))

    return measure


@contextmanager
def _cache_in(scratch: Path) -> Iterator[None]:
    """Let `prepare` find an empty cache folder, which goes away at the end."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.environ["CONVSCOUT_CACHE"] = folder
        yield
        del os.environ["CONVSCOUT_CACHE"]


def _bare(files: Sequence[Path], size: int, threads: int, reading: int, resizing: int) -> Callable[[], float]:
    def decode(rows: range) -> None:
        for row in rows:
            pixels = cv2.imdecode(np.frombuffer(files[row].read_bytes(), np.uint8), reading)
            images[row] = cv2.resize(pixels, (size, size), interpolation=resizing)

    images = np.empty((len(files), size, size, 3), np.uint8)
    step = min(MOST_IN_CHUNK, -(-len(files) // (4 * threads)))  # few large files must be shared out, too
    chunks = [range(start, min(start + step, len(files))) for start in range(0, len(files), step)]

    def measure() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, chunks))
        return len(files) / (time.perf_counter() - start)

    return measure


def _found_again(data: Path, folder: Path, scratch: Path) -> str:
    """Return how long a second `prepare` takes, and what eight processes that read everything of `data` map."""
    with _cache_in(scratch):
        first = seconds_of(lambda: prepare(str(data), image_size=32))
        again = _again(data)
        cache = prepare(str(data), image_size=32)
        files = sum(sum(of_class.values()) for of_class in prepare(str(folder), image_size=32).counts.values())
        folder_again = _again(folder)
        images = sum(sum(of_class.values()) for of_class in cache.counts.values())
        file_mb = (cache.folder / "images.npy").stat().st_size / 1e6
        pss_mb = _pss_mb(cache)
    rows = [
        (f"{images:,} images decoded, s", f"{first:.1f}"),
        ("found again, s", again),
        (f"a folder of {files:,} files found again, s", folder_again),
        ("`images.npy`, MB", f"{file_mb:.1f}"),
        (f"mapped by {PROCESSES} processes, PSS in all, MB", f"{pss_mb:.1f}"),
        ("PSS / file", f"{pss_mb / file_mb:.3f}"),
    ]
    text = table(("the cache of " + ("CIFAR-10's zip" if data == ZIP else "the small files"), ""), rows)
    return (
        text + f"\n\nFound again: n = {ROUNDS}; the rest once. All processes have read every image when PSS is taken."
    )


def _again(data: Path) -> Figures:
    return Figures(tuple(seconds_of(lambda: prepare(str(data), image_size=32)) for _ in range(ROUNDS)))


def _pss_mb(cache: ImageCache) -> float:
    """Return the proportional set size of the images' mapping, over eight processes that have read all of it."""
    command = [sys.executable, __file__, "--touch", str(cache.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]  # type: ignore[call-overload]
    try:
        for process in processes:
            if process.stdout.readline() != "read\n":
                raise RuntimeError("a process could not read the cache")
        return sum(_mapped_kb(process.pid) for process in processes) * 1024 / 1e6
    finally:
        for process in processes:
            process.communicate()  # its standard input ends


def _mapped_kb(pid: int) -> int:
    blocks = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    of_images = [block for block in blocks if block.splitlines()[0].endswith("/images.npy")]
    return sum(int(line.split()[1]) for block in of_images for line in block.splitlines() if line.startswith("Pss:"))


def _touch(folder: Path) -> None:
    from trainables.batches import Dataset

    data = Dataset.from_cache(open_cache(folder))
    for start in range(0, len(data.images), 1000):
        data.images[start : start + 1000].max()
    print("read", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

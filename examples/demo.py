"""The whole way on scikit-learn's 1,797 scanned digits: search, analyse, predict. `make demo` runs it.

Every step is a command that can be typed; each is printed before it runs. The images to predict are of the test
split, which neither the search nor the training saw; they are written aside first.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from trainables.cache import prepare
from trainables.images import open_source

HERE = Path(__file__).parent
IMAGES = 6


def write_aside(folder: Path) -> None:
    """Write a few images of the test split as files, named by their class."""
    cache = prepare("digits")
    held_out = json.loads((cache.folder / "test_paths.json").read_text())
    source = open_source("digits")
    folder.mkdir(parents=True)
    for path in held_out[:: len(held_out) // IMAGES][:IMAGES]:
        (folder / path.replace("/", "-")).write_bytes(source.read(path))


def run(*arguments: str) -> None:
    """Print a command and run it; a failure ends the demo."""
    print(f"\n$ convscout {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, str(HERE.parent / "convscout.py"), *arguments], check=True)


def main(folder: Path) -> None:
    """Run the demo in `folder`, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    write_aside(folder / "new-images")
    began = time.monotonic()
    storage = ("--storage", str(folder))
    space = ("--space", str(HERE / "demo.yaml"))
    run(
        "search",
        "digits",
        "--arch",
        "cnn",
        "--arch",
        "alexnet",
        "--trials",
        "10",
        "--epochs",
        "5",
        "--image-size",
        "28",
        *space,
        *storage,
    )
    run("analyze", "digits", *storage)
    run("predict", str(folder / "digits"), str(folder / "new-images"))
    print(f"\nThe whole way took {time.monotonic() - began:.0f} s. The report: {folder / 'digits' / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo").resolve())

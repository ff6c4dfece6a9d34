"""The race: `convscout search` against what a user would otherwise pick, by the clock, on the same images and space.

In every repeat ours runs first, and the peers then start from its first eight configurations, in an order that rotates.
It needs CIFAR-10 as a zip of train|test/CLASS/*.jpg, which `CONVSCOUT_CIFAR10` or `--zip` names.
"""

import argparse
import compileall
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

from prepare import prepare
from table import FIRST, OURS, most_images, read_runs, table, whole_repeats, wins
from whereabouts import sentence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import ZIP, commit, tell

HERE = Path(__file__).resolve().parent
PEERS = ("ray_tutorial", "optuna_hyperband", "keras_random", "keras_hyperband")
VARIANTS = {"ours_grace": "`--grace-images 0.33` against without"}  # of ours, for those who ask
GRACE_SECONDS = 60.0  # to end in, after its time is over


def read_options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zip", type=Path, default=ZIP, help="CIFAR-10, as train|test/CLASS/*.jpg")
    parser.add_argument("--out", type=Path, required=True, help="the folder for images, logs and table")
    parser.add_argument("--repeats", type=int, default=3, help="beyond those in --out; 0 shows the table")
    parser.add_argument("--seconds", type=float, default=240.0, help="that each contestant has, by the clock")
    parser.add_argument("--seed", type=int, default=0, help="of repeat 0; each has one more")
    parser.add_argument(
        "--peers", nargs="+", choices=(*PEERS, *VARIANTS), default=list(PEERS), help="one alone has a table of its own"
    )
    parser.add_argument("--keep", action="store_true", help="put the table into benchmarks/RESULTS.md")
    return parser.parse_args()


def run(name: str, data: Path, repeat: Path, seed: int, seconds: float) -> None:
    """Run one contestant in a session of its own, and leave nothing of it behind."""
    folder = repeat / name
    folder.mkdir(parents=True)
    log = folder / "log.jsonl"
    command = [sys.executable, str(HERE / f"{name}.py"), "--data", str(data), "--seconds", f"{seconds:g}"]
    command += ["--seed", str(seed), "--first", str(repeat / "first.json"), "--log", str(log)]
    start = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | str = process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            status = "killed"
        end_group(process)
    shutil.rmtree(folder / "work", ignore_errors=True)
    (folder / "status").write_text(f"{status}\n")  # its absence says that a repeat is not whole
    log.touch()
    epochs = log.read_text(encoding="utf-8").count("\n")
    took = time.monotonic() - start
    print(f"{repeat.name} {name}: {epochs} epochs, {took:.0f} s, status {status}", flush=True)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a contestant's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_conditions(out: Path, seconds: float) -> None:
    """Write beside the repeats what everyone runs on; exit where those in `out` ran on something else."""
    pins = (HERE / "requirements.txt").read_text(encoding="utf-8").split()
    packages = {re.split(r"[\[=]", pin)[0] for pin in pins}
    found: dict[str, str | float | int | None] = {name: version(name) for name in sorted(packages)}
    found |= {"python": sys.version.split()[0], "cores": os.cpu_count(), "seconds": seconds, "convscout": commit()}
    path = out / "conditions.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    before: dict[str, str | float | int | None] = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{name} {before.get(name)}, now {value}" for name, value in found.items() if before.get(name) != value]
    if other:
        sys.exit(
            f"the repeats in {out} ran under other conditions ({'; '.join(other)}): give another folder as --out, "
            "which make takes as OUT=FOLDER"
        )


def main() -> None:
    """Prepare the images, run everyone, print the table and save it."""
    options = read_options()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.repeats:
        check_conditions(out, options.seconds)
        race(options, out)
    names = (OURS, *options.peers)
    repeats, failed = whole_repeats(out, names)
    if not repeats:
        sys.exit(f"no repeat in {out} is whole: {', '.join(names)} each leave a log.jsonl, and end without an error")
    runs = read_runs(repeats, names, options.seconds)
    text = table(runs, options.seconds)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    said = [f"Ours had the best validation accuracy in {wins(runs)} of {len(repeats)} repeats."]
    said.append(most_images(runs))
    said += [f"{name} failed in {count} more, which are left out." for name, count in failed.items()]
    said += [sentence(repeats, options.seconds), conditions(out, len(repeats), options.seconds)]
    alone = options.peers[0] if len(options.peers) == 1 else None
    name, title = ("", "The race") if alone is None else (f" --peers {alone}", f"The race against {alone} alone")
    tell(f"race/race.py{name}", VARIANTS.get(alone or "", title), f"{text}\n\n{' '.join(said)}", options.keep)


def race(options: argparse.Namespace, out: Path) -> None:
    """Run so many more repeats of all contestants."""
    data = out / "data"
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2)  # or every process of a peer may compile anew
    if not (data / "test_labels.npy").exists():  # the last file that prepare writes
        if not options.zip.exists():
            sys.exit(f"{options.zip} is not there: name a zip of CIFAR-10 (train|test/CLASS/*.jpg) by --zip")
        prepare(options.zip, data)
    before = len(list(out.glob("repeat-*")))
    for number in range(before, before + options.repeats):
        repeat, shift = out / f"repeat-{number:02}", number % len(options.peers)
        for name in (OURS, *options.peers[shift:], *options.peers[:shift]):
            run(name, data, repeat, options.seed + number, options.seconds)
            if not (repeat / "first.json").exists():
                sys.exit(f"{name} failed before it proposed anything: see {repeat / name / 'output.txt'}")


def conditions(out: Path, repeats: int, seconds: float) -> str:
    """Return what a reader must know to judge the table."""
    found = json.loads((out / "conditions.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {found[name]}" for name in sorted(found.keys() - {"python", "cores", "seconds"}))
    return (
        f"Median (range) of {repeats} repeats of {seconds:g} s by the clock, starts included: 5,000 training and 1,000 "
        "validation images of CIFAR-10, plain CNNs of three blocks, at most 10 epochs a trial. Ours ran first, in bf16 "
        f"where it measured that to be faster; the peers, in fp32, began with its first {FIRST} configurations. Ours, "
        "Optuna and Ray Tune train two trials at a time on a core each, Keras Tuner one on both cores. Ours knows when "
        "its time is over, and prefers networks that are cheap to train. The best accuracy is the highest of all "
        f"epochs, not corrected for how many there were. {versions}."
    )


if __name__ == "__main__":
    main()

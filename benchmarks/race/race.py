"""The race: `convscout search` against what a user would otherwise pick, by the clock, on the same images and space.

In every repeat ours runs first, and the peers then start from its first eight configurations, in an order that rotates.
"""

import argparse
import compileall
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

from prepare import prepare
from table import OURS, read_runs, table, whole_repeats, wins
from whereabouts import sentence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import tell

HERE = Path(__file__).resolve().parent
PEERS = ("ray_tutorial", "optuna_hyperband", "keras_random", "keras_hyperband")
VARIANTS = ("ours_grace",)  # of ours, for those who ask
GRACE_SECONDS = 60.0  # to end in, after its time is over


def read_options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zip", type=Path, default=HERE.parents[2] / "shared" / "data" / "cifar10.zip")
    parser.add_argument("--out", type=Path, required=True, help="the folder for images, logs and table")
    parser.add_argument("--repeats", type=int, default=3, help="beyond those in --out; 0 shows the table")
    parser.add_argument("--seconds", type=float, default=240.0, help="that each contestant has, by the clock")
    parser.add_argument("--seed", type=int, default=0, help="of repeat 0; each has one more")
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS + VARIANTS, default=list(PEERS), help="one alone has a table of its own"
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
    log.touch()  # its absence says that a repeat is not whole
    epochs = log.read_text(encoding="utf-8").count("\n")
    took = time.monotonic() - start
    print(f"{repeat.name} {name}: {epochs} epochs, {took:.0f} s, status {status}", flush=True)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a contestant's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_versions(path: Path) -> None:
    """Write what the peers ran on."""
    packages = {name.split("[")[0] for name in (HERE / "requirements.txt").read_text(encoding="utf-8").split()}
    versions: dict[str, str | int | None] = {name: version(name) for name in sorted(packages)}
    versions |= {"python": sys.version.split()[0], "cores": os.cpu_count()}
    path.write_text(json.dumps(versions, indent=1), encoding="utf-8")


def main() -> None:
    """Prepare the images, run everyone, print the table and save it."""
    options = read_options()
    out = options.out.resolve()
    data = out / "data"
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2)  # or every process of a peer may compile anew
    if not (data / "test_labels.npy").exists():  # the last file that prepare writes
        prepare(options.zip, data)
    before = len(list(out.glob("repeat-*")))
    for number in range(before, before + options.repeats):
        repeat, shift = out / f"repeat-{number:02}", number % len(options.peers)
        for name in (OURS, *options.peers[shift:], *options.peers[:shift]):
            run(name, data, repeat, options.seed + number, options.seconds)
            if not (repeat / "first.json").exists():
                sys.exit(f"{name} failed before it proposed anything: see {repeat / name / 'output.txt'}")
    write_versions(out / "versions.json")
    names = (OURS, *options.peers)
    repeats = whole_repeats(out, names)
    if not repeats:
        sys.exit(f"no repeat in {out} is whole: {', '.join(names)} each leave a log.jsonl")
    runs = read_runs(repeats, names, options.seconds)
    text = table(runs, options.seconds)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    versions = json.loads((out / "versions.json").read_text(encoding="utf-8"))
    said = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in ("python", "cores"))
    won = f"Ours had the best validation accuracy in {wins(runs)} of {len(repeats)} repeats."
    clock = f"Median (range) of repeats of {options.seconds:g} s by the clock, starts included"
    note = f"{won} {sentence(repeats, options.seconds)} {clock}; {said}."
    alone = options.peers[0] if len(options.peers) == 1 else None
    tell(f"race/{alone or 'race'}.py", f"The race{f' against {alone} alone' if alone else ''}", f"{text}\n\n{note}")


if __name__ == "__main__":
    main()

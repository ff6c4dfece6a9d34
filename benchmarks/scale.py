"""How many trials one driver can serve: 64 hosts of 8 slots and 10,000 trials, on paper (`docs/scale.md`).

Some half an hour on two cores; `--trials 500` is a quick look. `--once` runs one simulation and prints its figures.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from measure import options, table, tell
from parts import Parts, quarters
from plans import planner
from simulated import DIED, Clock, SimulatedRay

from cluster.connect import ENVIRONMENT
from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.ledger import LEDGER, Ledger, read_history, read_rows
from cluster.progress import Progress
from cluster.resources import Host, Place, Slot
from cluster.storage import TRIALS
from cluster.tensorboard import TensorBoardWriter
from search.run import Planner

BUSY_EPOCH_SECONDS = 1.0  # of a cluster that asks for more than a driver can do
KNOWN = (100, 300, 1_000, 3_000, 10_000)  # trials that a proposal knows


def main() -> None:
    """Measure and tell: a large search, one that asks for too much, and proposals as trials become more."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--slots", type=int, default=8, help="of each host")
    parser.add_argument("--method", default="asha")
    parser.add_argument("--epoch-seconds", type=float, default=60.0)
    parser.add_argument("--died", type=float, default=DIED, help="the share of epochs in which a worker dies")
    parser.add_argument("--once", type=Path, help="run one simulation in this folder, and print its figures as JSON")
    parser.add_argument("--replay", type=Path, help="read the ledger in this folder, and print figures as JSON")
    asked = parser.parse_args()
    if asked.once or asked.replay:
        print(json.dumps(simulated(asked, asked.once) if asked.once else replayed(asked, asked.replay)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        large = _apart("--once", f"{scratch}/large", asked)
        known = _apart("--replay", f"{scratch}/large", asked)
        few = min(asked.trials, 3 * asked.hosts * asked.slots)
        busy = _apart("--once", f"{scratch}/busy", asked, "--trials", few, "--epoch-seconds", BUSY_EPOCH_SECONDS)
    tell("scale.py", "Ten thousand trials on 64 hosts, on paper", told(asked, large, known, busy), asked.keep)


def _apart(what: str, folder: str, asked: Any, *more: object) -> dict[str, Any]:
    given = [f"--{name.replace('_', '-')}={getattr(asked, name)}" for name in SAME]
    done = subprocess.run(
        [sys.executable, __file__, what, folder, *given, *map(str, more)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


SAME = ("trials", "epochs", "hosts", "slots", "method", "epoch_seconds", "died")


def simulated(asked: Any, folder: Path) -> dict[str, Any]:
    """Run one search in a folder; return its figures."""
    os.environ |= ENVIRONMENT | {"TUNE_MAX_PENDING_TRIALS_PG": "1000000"}  # as `connect` and `launch` set them
    from controlled import fit
    from ray.exceptions import RayActorError

    hosts = [Host(asked.slots, 0.0)] * asked.hosts
    place, plans = Place(Slot(1, 0.0), hosts), planner(asked.trials, asked.epochs, asked.method)
    cluster = SimulatedRay(Clock(), asked.epoch_seconds, lambda said: RayActorError(error_msg=said), asked.died)
    parts = Parts(cluster)
    cluster.on_report = parts.mark
    (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere, Ledger(folder) as ledger:
        if ledger.history.experiment is None:
            ledger.append("experiment", name="scale", trials=asked.trials)
        dispatcher = _dispatcher(folder, ledger, plans, place, nowhere, parts)
        plans.next_work(ledger.history)  # torch is imported
        parts.seconds.clear()
        before = _now_mb()
        with parts.garbage_counts():
            fit(dispatcher, cluster, hosts, place, scratch)
        if dispatcher.halt:
            raise dispatcher.halt
        files = sum(1 for _ in (folder / TRIALS).rglob("events*"))
    return {
        "reports": cluster.reports,
        "workers": cluster.workers,
        "most_workers": cluster.most_workers,
        "trials": len(ledger.history.trials),
        "busy_seconds": cluster.clock.now - cluster.clock.idle,
        "seconds": cluster.clock.now,
        "parts": parts.seconds | {"waiting for the disk": cluster.clock.disk},
        "garbage_seconds": parts.garbage_seconds,
        "marks": parts.marks,
        "waits": cluster.waits,
        "before_mb": before,
        "after_mb": _now_mb(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "event_files": files,
    }


def _dispatcher(folder: Path, ledger: Ledger, plans: Planner, place: Place, screen: TextIO, parts: Parts) -> Any:
    """Return a dispatcher with the observers of a search, their time and the planner's counted in `parts`."""
    from rich.console import Console

    board = TensorBoardWriter(folder, {}, "val_accuracy")
    terminal = Console(file=screen, force_terminal=True)
    live = Progress(("search",), "scale", "val_accuracy", place.slots, console=terminal)
    parts.time(board, "observe", "TensorBoard's events")
    parts.time(live, "observe", "the live table")
    parts.time(ledger, "append", "the ledger")
    parts.time(plans, "next_work", "proposals")
    parts.time(plans, "decide", "decisions")
    return Dispatcher(ledger, ("search",), plans.next_work, plans.decide, [board, live])


def replayed(asked: Any, folder: Path) -> dict[str, Any]:
    """Return what reading the ledger takes, and what a proposal by TPE takes as the trials become more."""
    size, before, began = (folder / LEDGER).stat().st_size, _now_mb(), time.process_time()
    history = read_history(folder)
    figures: dict[str, Any] = {"bytes": size, "seconds": time.process_time() - began, "rows": history.last_seq}
    figures |= {"mb": _now_mb() - before, "tpe_seconds": {}}
    plans, known = planner(10**6, asked.epochs, "tpe_asha"), History()
    for row in read_rows(folder / LEDGER):
        if row["event"] == "proposed" and row["trial"] in KNOWN:
            figures["tpe_seconds"][row["trial"]] = _proposal_seconds(plans, known)
        known.apply(row)
    if len(known.trials) in KNOWN:
        figures["tpe_seconds"][len(known.trials)] = _proposal_seconds(plans, known)
    return figures


def _proposal_seconds(plans: Planner, history: History) -> float:
    history.trials_wanted = None
    found = []
    for _ in range(4):
        began = time.process_time()
        plans.next_work(history)
        found.append(time.process_time() - began)
    return statistics.median(found[1:])


def told(asked: Any, large: dict[str, Any], known: dict[str, Any], busy: dict[str, Any]) -> str:
    """Return the table and what was measured."""
    trials, seconds = large["trials"], large["busy_seconds"]
    rates, costs = zip(*quarters(large["marks"]), strict=True)
    garbage = large["garbage_seconds"]
    parts = large["parts"] | {"Ray's controller, and the rest": seconds - sum(large["parts"].values())}
    memory, history = 1024 * (large["after_mb"] - large["before_mb"]) / trials, 1024 * known["mb"] / trials
    busy_waits, busy_rate = [wait for _, wait, _ in busy["waits"]], busy["reports"] / busy["busy_seconds"]
    short = f"epochs of {BUSY_EPOCH_SECONDS:g} s, {busy['trials']:,} trials"
    rows = [
        ("reports, and the driver's seconds for them", f"{large['reports']:,}, {seconds:,.0f}"),
        ("reports a second that the driver can take", f"{large['reports'] / seconds:.0f}"),
        ("the same, of each quarter of the trials, disk left out", ", ".join(f"{each:.0f}" for each in rates)),
        ("driver's ms a trial", f"{1000 * seconds / trials:.1f}"),
        *((f"of which {name}", f"{1000 * part / trials:.1f}") for name, part in parts.items()),
        ("the same, of each quarter of the trials, disk left out", ", ".join(f"{each:.1f}" for each in costs)),
        (
            "of the driver's time, collecting garbage: ms a trial; the longest time, ms",
            f"{1000 * sum(garbage) / trials:.1f}; {1000 * max(garbage):.0f}",
        ),
        (f"busy, % of the time (epochs of {asked.epoch_seconds:g} s)", f"{100 * seconds / large['seconds']:.0f}"),
        *(
            (f"from a free slot to a new trial, ms (trials {first:,} to {last:,})", _median_and_p99(waits))
            for first, last, waits in _by_trials(large["waits"])
        ),
        (f"the same, in s ({short})", _median_and_p99(busy_waits, 1)),
        (f"reports a second ({short})", f"{busy_rate:.0f}"),
        ("memory of the driver at its peak, MB", f"{large['peak_mb']:,.0f}"),
        ("memory a trial, KB; of which the ledger's history", f"{memory:.0f}; {history:.0f}"),
        (
            "ledger, MB; rows; seconds to replay",
            f"{known['bytes'] / 1e6:.1f}; {known['rows']:,}; {known['seconds']:.1f}",
        ),
        ("TensorBoard's files", f"{large['event_files']:,}"),
        *(
            (f"a proposal by TPE that knows {int(n):,} trials, ms", f"{1000 * each:.0f}")
            for n, each in known["tpe_seconds"].items()
        ),
    ]
    said = f"One run of {trials:,} trials of {asked.method}, at most {asked.epochs} epochs, of one architecture, on "
    said += (
        f"{asked.hosts} hosts of {asked.slots} slots, TensorBoard and live table on. Ray's controller, our driver and "
    )
    said += (
        "its files are real, workers and the network are not. The driver's times are its main thread's and waiting for "
    )
    said += "the disk. Waits: median, 99th percentile."
    return f"{table(('', ''), rows)}\n\n{said}"


def _by_trials(waits: Sequence[tuple[int, float, float]]) -> Iterator[tuple[int, int, list[float]]]:
    ordered = sorted(waits)
    for part in range(4):
        some = ordered[part * len(ordered) // 4 : (part + 1) * len(ordered) // 4]
        if some:
            yield some[0][0], some[-1][0], [wait for _, wait, _ in some]


def _median_and_p99(values: Sequence[float], unit: float = 1000) -> str:
    ordered = sorted(values)
    found = (ordered[len(ordered) // 2], ordered[int(0.99 * len(ordered))]) if ordered else (0.0, 0.0)
    return ", ".join(f"{unit * value:.3g}" for value in found)


def _now_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()

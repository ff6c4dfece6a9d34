"""How many trials and hosts one driver can serve: 64 hosts of 8 slots and 10,000 trials, of simulated epochs."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launches import HOUSE as HOUSE
from simulated import Clock, SimulatedRay, fit

import spaces
from cluster.connect import ENVIRONMENT
from cluster.dispatch import Dispatcher
from cluster.ledger import LEDGER, Ledger, read_history
from cluster.progress import Progress
from cluster.resources import Host, Place, Slot
from cluster.storage import TRIALS
from cluster.tensorboard import TensorBoardWriter
from search.request import Request
from search.run import Planner
from search.spec import checked_spec


def planner(trials: int, epochs: int, method: str) -> Planner:
    """Return who plans a search over the plain CNN, of images that are not there: only their shape is looked at."""
    asked = {"data": "made", "name": "scale", "arch": ["cnn"], "trials": trials, "epochs": epochs, "method": method}
    cache: Any = SimpleNamespace(image_shape=(3, 32, 32), classes=tuple("abcdefghij"), counts={"train": {"a": 5000}})
    return Planner(Request(checked_spec(asked), cache, {"cnn": spaces.load("cnn")}, {}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--method", default="asha")
    parser.add_argument("--epoch-seconds", type=float, default=60.0)
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--folder")
    parser.add_argument("--profile")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked.folder or f"{scratch}/experiment")
        (folder / TRIALS).mkdir(parents=True)
        if asked.profile:
            import cProfile
            p=cProfile.Profile()
            p.enable()
        try:
            print(json.dumps(once(asked, folder, scratch)))
        finally:
            if asked.profile:
                p.disable()
                p.dump_stats(asked.profile)


def once(asked: Any, folder: Path, scratch: str) -> dict[str, Any]:
    os.environ |= ENVIRONMENT | {"TUNE_MAX_PENDING_TRIALS_PG": "1000000"}
    import ray.tune
    from ray.exceptions import RayActorError

    ray.tune.Trainable
    import torch
    hosts = [Host(asked.slots, 0.0)] * asked.hosts
    place = Place(Slot(1, 0.0), hosts)
    plans = planner(asked.trials, asked.epochs, asked.method)
    before = peak()
    with Ledger(folder) as ledger:
        ledger.append("experiment", name="scale", trials=asked.trials)
        watching: list[Any] = []
        if asked.tensorboard:
            watching.append(TensorBoardWriter(folder, {}, "val_accuracy"))
        if asked.table:
            from rich.console import Console
            watching.append(Progress(("search",), "scale", "val_accuracy", place.slots, console=Console(file=open(os.devnull, "w"), force_terminal=True)))
        dispatcher = Dispatcher(ledger, ("search",), plans.next_work, plans.decide, watching)
        clock = Clock()
        cluster = SimulatedRay(clock, asked.epoch_seconds, lambda said: RayActorError(error_msg=said))
        marks = []

        def mark() -> None:
            if cluster.reports % 1000 == 0:
                marks.append((cluster.begun, cluster.reports, clock.now - clock.idle))
                print(marks[-1], peak(), file=sys.stderr)

        cluster.on_report = mark
        wall = time.perf_counter()
        fit(dispatcher, cluster, hosts, place, scratch)
        if dispatcher.halt: raise dispatcher.halt
    waits = sorted(w for _, w, _ in cluster.waits)
    own = sorted(w for _, _, w in cluster.waits)
    return {"reports": cluster.reports, "busy": clock.now - clock.idle, "now": clock.now, "wall": time.perf_counter() - wall, "peak": peak(), "before": before,
     "wait": (waits[len(waits)//2], waits[int(len(waits)*.99)]), "own": (own[len(own)//2], own[int(len(own)*.99)]), "ledger": (folder/LEDGER).stat().st_size}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if __name__ == "__main__":
    main()

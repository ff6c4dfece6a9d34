"""Two workers of one core each that train one model together, against one worker with one core, and with two."""

import multiprocessing
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from cifar import dataset
from measure import interleaved, options, ratios, table, tell
from torch import distributed

import spaces
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.together import Team
from trainables.training import Training

IMAGES = {"cnn": 960, "alexnet": 256, "vgg11": 256}
ROUNDS = 5


def main() -> None:
    """Measure the three architectures at 32 x 32; fp32, channels-last, batches of 32 images in all."""
    keep = options(__doc__).parse_args().keep
    rows = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    other = context.Process(target=_second, args=(port, far), daemon=True)
    other.start()
    _join(0, port)
    for architecture, images in IMAGES.items():
        data = dataset(images, 32)
        near.send((architecture, images))
        shared = _training(architecture, data, Settings(), Team(0, 2))

        def together(shared: Training = shared) -> float:
            near.send(())
            return shared.epoch().images_per_second

        contenders = {
            "one core": _epochs(_training(architecture, data, Settings())),
            "two cores": _epochs(_training(architecture, data, Settings(threads=2))),
            "two workers": together,
        }
        found = interleaved(contenders, ROUNDS)
        gains = [ratios(found[name], found["one core"]) for name in ("two cores", "two workers")]
        rows.append((architecture, *found.values(), *gains))
    near.send(None)
    other.join()
    columns = ("architecture", "one worker, one core, images/s", "one worker, two cores", "two workers, a core each")
    text = table((*columns, "two cores against one, times", "two workers against one, times"), rows)
    text += (
        f"\n\nMedian (min–max) of {ROUNDS} in turn, batches of 32 images in all, baselines, gloo, without validation."
    )
    tell("together.py", "Two workers that train one model together", text, keep)


def _join(rank: int, port: int) -> None:
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)


def _training(architecture: str, data: Dataset, settings: Settings, team: Team | None = None) -> Training:
    training = Training(data, settings)
    config: dict[str, Any] = spaces.load(architecture).baseline | {"batch_size": 32}
    training.begin(architecture, config, seed=1, epochs=100, train_on_val=True, team=team)
    return training


def _epochs(training: Training) -> Callable[[], float]:
    def epoch() -> float:
        torch.set_num_threads(training.settings.threads)
        figure = training.epoch().images_per_second
        torch.set_num_threads(1)
        time.sleep(0.3)  # threads that spin for more work take the next contender's core
        return figure

    return epoch


def _second(port: int, asked: Connection) -> None:
    """Be the second worker: an architecture and a number of images begin a training, () is an epoch, None ends."""
    _join(1, port)
    training = None
    while (what := asked.recv()) is not None:
        if what:
            architecture, images = what
            training = _training(architecture, dataset(images, 32), Settings(), Team(1, 2))
        elif training:
            training.epoch()


if __name__ == "__main__":
    main()

"""Measures how much several trials on one device train together: in processes of their own, as trials are."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from trainables.samples import Sample, lengthen, noise
from trainables.settings import Settings
from trainables.training import Training

SECONDS = 1.0  # of each architecture, at each number of processes
STARTED_SECONDS = 300.0  # by then a process has said that it is ready, or it never will
BATCHES = 8  # in an epoch
# On a GPU the host's part of so short an epoch is a large one: so many seconds, and times as many batches at most.
ON_GPU = (0.5, 16)


def measure_rates(
    samples: Sequence[Sample],
    settings: Mapping[str, Settings],
    image_shape: tuple[int, int, int],
    n_classes: int,
    *,
    counts: Sequence[int],
    gain_needed: float,
    cores: int,
    seconds: float = SECONDS,
) -> dict[int, float]:
    """Return the images a second of so many processes together, for each number in `counts` until more do not gain.

    `counts` rise from 1. Every architecture counts alike: the figure is the harmonic mean over `samples`, each trained
    by all processes at the same time with the batches of its configuration, on `cores` that the processes share.
    `settings` are by architecture. Numbers beyond the first that did not bring `gain_needed` times as much are left
    out, and so is one at which a process died, most likely for want of memory.
    """
    found: dict[int, float] = {}
    workers: list[tuple[BaseProcess, Connection]] = []
    context = get_context("spawn")
    try:
        for number in counts:
            threads = max(1, cores // number)
            while len(workers) < number:
                here, there = context.Pipe()
                process: BaseProcess = context.Process(target=_work, args=(there, image_shape, n_classes), daemon=True)
                process.start()
                there.close()
                workers.append((process, here))
            at_work = [connection for _, connection in workers]
            try:
                ways = [(each, replace(settings[each.architecture], threads=threads)) for each in samples]
                speeds = [_together(at_work, *way, seconds) for way in ways]
            except (EOFError, OSError, TimeoutError):
                break
            found[number] = len(speeds) / sum(1 / speed for speed in speeds)
            if number > 1 and found[number] < gain_needed * max(found[each] for each in found if each < number):
                break
    finally:
        for process, connection in workers:
            connection.close()
            process.kill()
            process.join()
    if not found:
        raise RuntimeError("a process that was to train for a measurement died before it had trained")
    return found


def _together(workers: Sequence[Connection], sample: Sample, settings: Settings, seconds: float) -> float:
    """Return the images a second of all workers, which begin at the same time when all are ready."""
    for worker in workers:
        worker.send((sample, settings))
    for worker in workers:
        _answer(worker, STARTED_SECONDS)
    for worker in workers:
        worker.send(seconds)
    return sum(_answer(worker, STARTED_SECONDS) for worker in workers)


def _answer(worker: Connection, seconds: float) -> float:
    if not worker.poll(seconds):
        raise TimeoutError(f"no answer within {seconds:g} s")
    said: float = worker.recv()
    return said


def _work(parent: Connection, image_shape: tuple[int, int, int], n_classes: int) -> None:
    """Train what the parent sends, and answer with the images a second, until it closes the pipe."""
    while True:
        try:
            sample, settings = parent.recv()
        except EOFError:
            return
        batch = int(sample.config["batch_size"])
        training = Training(noise(image_shape, n_classes, BATCHES * batch, batch), settings)
        training.begin(sample.architecture, sample.config, seed=0, epochs=10**6, source=sample.source, pretrained=False)
        training.epoch()
        if settings.device == "cuda":
            lengthen(training, *ON_GPU)
        parent.send(0.0)
        seconds = parent.recv()
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            training.epoch()
            images += len(training.train_indices)
        parent.send(images / (time.perf_counter() - start))

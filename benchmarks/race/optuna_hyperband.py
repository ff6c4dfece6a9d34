"""Optuna with TPE and Hyperband, two processes on a journal file, training as in its example pytorch_simple."""

import shared

# isort: split
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch.utils.data import DataLoader, TensorDataset
from torch_parts import Net, accuracy, make_optimizer, train_epoch

NAME = "race"
PROCESSES = 2


def dataset(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    """Return images in memory as tensors, scaled to 0..1 as ToTensor does it."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    return TensorDataset(pixels, torch.from_numpy(labels).long())


def suggest(trial: optuna.Trial, name: str, description: Any) -> Any:
    """Return Optuna's value for a knob of the space file."""
    if isinstance(description, list):
        return trial.suggest_categorical(name, description)
    return trial.suggest_float(name, description["low"], description["high"], log=description.get("log", False))


class Objective:
    """Train one configuration; give its accuracy to the pruner after every epoch."""

    def __init__(self, options: shared.Options, log: shared.Log) -> None:
        self.train_images = dataset(*shared.read_images(options.data, "train"))
        self.val_images = dataset(*shared.read_images(options.data, "val"))
        self.space, self.log = shared.read_space(), log

    def __call__(self, trial: optuna.Trial) -> float:
        """Return the validation accuracy after the last epoch."""
        config = {name: suggest(trial, name, description) for name, description in self.space.items()}
        net = Net(config)
        optimizer = make_optimizer(config, net)
        train_loader = DataLoader(self.train_images, config["batch_size"], shuffle=True)
        val_loader = DataLoader(self.val_images, config["batch_size"], shuffle=False)
        val_accuracy = 0.0
        for epoch in range(1, shared.EPOCHS + 1):
            images = train_epoch(net, train_loader, optimizer)
            val_accuracy = accuracy(net, val_loader)
            self.log.epoch(trial.number, epoch, images, val_accuracy)
            trial.report(val_accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return val_accuracy


def journal(options: shared.Options) -> Path:
    """Return the file that the processes share."""
    return options.work / "journal.log"


def open_study(options: shared.Options, worker: int) -> optuna.Study:
    """Return the study, which the processes share by its file."""
    return optuna.create_study(
        study_name=NAME,
        storage=JournalStorage(JournalFileBackend(str(journal(options)))),
        load_if_exists=True,
        direction="maximize",
        sampler=TPESampler(seed=options.seed * PROCESSES + worker),
        pruner=HyperbandPruner(min_resource=1, max_resource=shared.EPOCHS, reduction_factor=3),
    )


def work(options: shared.Options, log: shared.Log, worker: int) -> None:
    """Train trials with one thread until the time is over."""
    torch.set_num_threads(1)
    shared.end_in_time(log)
    open_study(options, worker).optimize(Objective(options, log))


def main() -> None:
    """Run two processes until the time is over."""
    options = shared.read_options(__doc__)
    log = shared.open_log(options)
    journal(options).unlink(missing_ok=True)
    study = open_study(options, 0)
    for config in shared.read_first(options):
        study.enqueue_trial(config)
    workers = [multiprocessing.Process(target=work, args=(options, log, worker)) for worker in range(PROCESSES)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()


if __name__ == "__main__":
    main()

"""Ray Tune as in PyTorch's tutorial "Hyperparameter tuning with Ray Tune": a function, a DataLoader and ASHA.

What differs from the tutorial: two trials side by side with one core and one thread each, loading in the trial's own
process (the tutorial's 8 loading processes are for larger machines), and accuracy as the metric.
"""

import shared

# isort: split
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from ray import tune
from ray.tune import Checkpoint
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from torch.utils.data import DataLoader, Dataset
from torch_parts import Net, accuracy, make_optimizer, train_epoch
from torchvision import transforms


class Images(Dataset):
    """Images in memory, turned into tensors one by one, as torchvision's CIFAR10 does it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def train_cifar(config: dict[str, Any], data: Path, log: shared.Log) -> None:
    """Train one configuration, and report and checkpoint every epoch."""
    torch.set_num_threads(1)
    net = Net(config)
    optimizer = make_optimizer(config, net)
    train_loader = DataLoader(Images(*shared.read_images(data, "train")), config["batch_size"], shuffle=True)
    val_loader = DataLoader(Images(*shared.read_images(data, "val")), config["batch_size"], shuffle=False)
    trial = tune.get_context().get_trial_id()
    for epoch in range(1, shared.EPOCHS + 1):
        images = train_epoch(net, train_loader, optimizer)
        val_accuracy = accuracy(net, val_loader)
        log.epoch(trial, epoch, images, val_accuracy)
        with tempfile.TemporaryDirectory() as folder:
            state = {"epoch": epoch, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "checkpoint.pt")
            tune.report({"accuracy": val_accuracy}, checkpoint=Checkpoint.from_directory(folder))


def domain(description: Any) -> Any:
    """Return Ray's domain for a knob of the space file."""
    if isinstance(description, list):
        return tune.choice(description)
    draw = tune.loguniform if description.get("log") else tune.uniform
    return draw(description["low"], description["high"])


def main() -> None:
    """Run Ray Tune until the time is over."""
    options = shared.read_options(__doc__)
    log = shared.open_log(options)
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")  # nothing in the home folder, nothing sent
    ray.init(num_cpus=2)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_cifar, data=options.data, log=log), {"cpu": 1}),
        param_space={name: domain(description) for name, description in shared.read_space().items()},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=BasicVariantGenerator(
                points_to_evaluate=shared.read_first(options), max_concurrent=2, random_state=options.seed
            ),
            scheduler=ASHAScheduler(max_t=shared.EPOCHS, grace_period=1, reduction_factor=2),
            num_samples=1000,
            time_budget_s=max(log.seconds_left(), 1.0),
        ),
        run_config=tune.RunConfig(name="race", storage_path=str(options.work)),
    )
    tuner.fit()
    ray.shutdown()


if __name__ == "__main__":
    main()

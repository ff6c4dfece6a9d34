"""The network and the optimizer of the race in PyTorch, as `convscout`'s cnn of three blocks."""

from collections.abc import Callable

import torch
from shared import CLASSES, Config, fixed
from torch import nn
from torch.utils.data import DataLoader

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Net(nn.Module):
    """Three blocks of convolution, batch norm (if wanted), activation and pooling; one dense layer; the logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, outputs, kernel = 3, config["filters"], config["kernel"]
        for _ in range(3):
            layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not config["batch_norm"]))
            if config["batch_norm"]:
                layers.append(nn.BatchNorm2d(outputs))
            layers += [ACTIVATIONS[config["activation"]](), nn.MaxPool2d(2)]
            inputs, outputs = outputs, 2 * outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(config["dropout"]),
            nn.Linear(inputs * 4 * 4, config["dense_units"]),
            ACTIVATIONS[config["activation"]](),
            nn.Dropout(config["dropout"]),
            nn.Linear(config["dense_units"], CLASSES),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.classifier(self.features(images))
        return logits


def make_optimizer(config: Config, net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a configuration."""
    rate, momentum = config["learning_rate"], fixed("momentum")
    match config["optimizer"]:
        case "sgd":
            return torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, nesterov=True)
        case "adam":
            return torch.optim.Adam(net.parameters(), lr=rate)
        case "adamw":
            return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
        case "rmsprop":
            return torch.optim.RMSprop(net.parameters(), lr=rate, momentum=momentum)
    raise ValueError(f"unknown optimizer {config['optimizer']}")


def train_epoch(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> int:
    """Train for one epoch; return how many images there were."""
    criterion = nn.CrossEntropyLoss()
    images_seen = 0
    net.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        images_seen += len(labels)
    return images_seen


def accuracy(net: nn.Module, loader: DataLoader) -> float:
    """Return the share of the images that the network classifies correctly."""
    correct = total = 0
    net.eval()
    with torch.no_grad():
        for images, labels in loader:
            correct += int((net(images).argmax(dim=1) == labels).sum())
            total += len(labels)
    return correct / total

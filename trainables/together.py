"""Several processes that train one model together: each computes its share of every batch, gradients are added up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from foundation import seed_from


class PeerLost(Exception):
    """Another process of the team is gone: nothing is wrong with the model, and the team must begin again."""


class Alone:
    """One process that trains by itself: what `Training` asks its team for, with nobody to share with."""

    rank, size = 0, 1

    def join(self, model: nn.Module, seed: int) -> None:
        """Take a new model up."""

    def shares(
        self, parts: Sequence[Tensor], step: tuple[int, ...], generator: torch.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        """Yield this process's share of each micro-batch of a step, and by how many processes it is computed."""
        for part in parts:
            yield part, 1

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor its sum over all processes; those of one kind of numbers at a time."""

    def agree(self, model: nn.Module) -> None:
        """Make one model of those of all processes after an epoch: only what batch norm keeps may differ."""

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process makes; the others make nothing."""
        return make()


class Team(Alone):
    """One of `size` processes that train one model together; their `torch.distributed` group must have been made.

    A micro-batch is cut into as many shares as there are processes, and a step adds up the gradients of all shares of
    all its micro-batches, as one process does that accumulates so many times as often. Random numbers depend on the
    seed, the epoch, the step, the micro-batch and the share, and not on who computes it. Batch norm sees one
    share on a CPU; on GPUs it is synchronised, and sees the whole micro-batch as in a process that trains alone.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.seed = 0

    def join(self, model: nn.Module, seed: int) -> None:
        """Take a new model up, with the weights of the first process."""
        self.seed = seed
        tensors = list(model.state_dict().values())
        if tensors[0].device.type == "cuda":
            synchronise_batch_norm(model)
        with torch.no_grad():
            for kind in {tensor.dtype for tensor in tensors}:
                self._all(lambda flat: distributed.broadcast(flat, 0), [each for each in tensors if each.dtype == kind])

    def shares(
        self, parts: Sequence[Tensor], step: tuple[int, ...], generator: torch.Generator
    ) -> Iterator[tuple[Tensor, int]]:
        """Yield as `Alone` does, with the random numbers of each share set.

        What is too small to be cut (fewer than two images a process) all compute, each counting for its part: so every
        process passes the model as often, which synchronised batch norm needs.
        """
        for number, part in enumerate(parts):
            for whose, share, copies in self.deal(part):
                seed = seed_from(self.seed, *step, number, whose)
                torch.manual_seed(seed)
                generator.manual_seed(seed_from(seed, "batches"))
                yield share, copies

    def deal(self, part: Tensor) -> list[tuple[int, Tensor, int]]:
        """Return what this process computes of a micro-batch: whose share, which images, and how many compute them."""
        if len(part) < 2 * self.size:
            return [(0, part, self.size)]
        return [(self.rank, part.tensor_split(self.size)[self.rank], 1)]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor its sum over all processes; those of one kind of numbers at a time."""
        self._all(distributed.all_reduce, tensors)

    def agree(self, model: nn.Module) -> None:
        """Average what batch norm keeps of its shares for later; synchronised, it is the same everywhere."""
        norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        kept = [
            tensor
            for norm in norms
            if norm.training and not isinstance(norm, nn.SyncBatchNorm)
            for tensor in (norm.running_mean, norm.running_var)
            if tensor is not None
        ]
        if kept:
            self.add_up(kept)
            for tensor in kept:
                tensor /= self.size

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return what the first process makes; the others make nothing."""
        made = [make() if self.rank == 0 else None]
        with _peers():
            distributed.broadcast_object_list(made)
        return made[0]

    def _all(self, operation: Callable[[Tensor], Any], tensors: Sequence[Tensor]) -> None:
        """Do something to the numbers of all tensors at once: one message, however many there are."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _peers():
            operation(flat)
        numbers = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, its in zip(tensors, numbers, strict=True):
            tensor.copy_(its.view(tensor.shape))


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make every batch norm of a model one that takes its statistics over all processes (`SyncBatchNorm`; GPUs only).

    In place: torch's own conversion makes other modules, and models keep lists of theirs.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = nn.SyncBatchNorm
            module.process_group = None  # type: ignore[assignment]


@contextmanager
def _peers() -> Iterator[None]:
    """Turn what a lost process does to a message into `PeerLost`: gloo says so by a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"another process of the team is gone: {error}") from error

"""Training steps recorded once and replayed: on a GPU a small model waits for the host, which starts each of a step's
hundred kernels by itself. A CUDA graph starts all of them at once (PyTorch, `torch.cuda.CUDAGraph`)."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP = 3  # steps before a recording: in them the optimizer, cuDNN and the allocator make what they keep

Work = Callable[[Sequence[Tensor]], None]


class Recorder(Protocol):
    """Records what a device does."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work as it will be recorded, once."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what does the same on the device, on the same tensors, each time it is called; do nothing now."""


class CudaGraphs:
    """Records CUDA graphs, all of one training in one pool of memory; torch itself notes what the work draws from."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work in a stream of its own, as CUDA wants it before a recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record a graph; raises what torch raises where the work cannot be one, such as a wait for the device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            work()
        return graph.replay


class CapturedSteps:
    """The steps of one training: what `work` does to some indices is recorded for each kind of step, and replayed.

    A kind is a key and the lengths of the indices. All that the work reads and writes besides them must stay where it
    is: parameters, the optimizer's state, a learning rate that is a tensor. A kind that cannot be recorded is done
    directly ever after, and `refused` says why.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.refused: str | None = None
        self.replayed = 0
        self._seen: Counter[Hashable] = Counter()
        self._kept: dict[Hashable, tuple[list[Tensor], Callable[[], None]]] = {}

    def take(self, key: Hashable, parts: Sequence[Tensor], work: Work) -> None:
        """Take one step: `work(parts)`, or its recording on these indices."""
        kind = key, tuple(len(part) for part in parts)
        if kind not in self._kept and self.refused is None and self._seen[kind] >= WARM_UP:
            self._record(kind, parts, work)
        if kind not in self._kept:
            self._seen[kind] += 1
            if self.refused is None:
                self.recorder.warm_up(lambda: work(parts))
            else:
                work(parts)
            return
        places, replay = self._kept[kind]
        for place, part in zip(places, parts, strict=True):
            place.copy_(part)
        replay()
        self.replayed += 1

    def _record(self, kind: Hashable, parts: Sequence[Tensor], work: Work) -> None:
        places = [part.clone() for part in parts]
        try:
            self._kept[kind] = places, self.recorder.record(lambda: work(places))
        except torch.OutOfMemoryError:  # the trial's, which has an answer to it
            raise
        except RuntimeError as error:
            self.refused = " ".join(str(error).split())[:300]


def rate_on_device(optimizer: Any, device: torch.device) -> None:
    """Let an optimizer read its learning rate, and count its steps, on the device, where a recording can."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"
    for state in optimizer.state.values():  # a kept one was counted on the host where nothing was recorded
        if "step" in state:
            state["step"] = state["step"].to(device)


def rate_as_number(optimizer: Any) -> None:
    """Let an optimizer read its learning rate from the host, whatever a kept state says."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False


def set_rate(optimizer: Any, learning_rate: float) -> None:
    """Set an optimizer's learning rate, in its place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate

"""A model as one file for other programs: ONNX, or PyTorch's .pt2; kept only if it is proven equal to the original.

What is inside the network: everything from the pixels of a decoded image of the model's size (uint8, in the order in
which decoders give them) to probabilities; beside it the names of the classes. What stays outside: decoding a file and
scaling it to that size.
"""

import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.deploy import Model
from analysis.wording import resizing
from foundation import HaltError, RequestError, unknown_word, written_beside
from trainables.decode import fit

IMAGES, LOGITS, PROBABILITIES = "images", "logits", "probabilities"

PROOF_IMAGES = 64
# Of the largest logit, or of 1 where that is smaller. The order of additions is another in the file: trained models
# differed by 1e-6 of it. The worst were random weights in a deep net, whose float32 is itself 6e-5 from its float64
# (resnet50): 7e-5 (efficientnet_b0).
ALLOWED_DIFFERENCE = 1e-3
TIMED_IMAGES = 16
TIMED_ROUNDS, TIMED_SECONDS = 5, 2.0

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Runner = Callable[[Pixels], Logits]


class Deployed(nn.Module):
    """The network in the file: uint8 images (N, height, width, channels) to logits and probabilities (N, classes)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and their softmax."""
        logits: Tensor = self.classifier(images.permute(0, 3, 1, 2).to(torch.float32))
        return logits, logits.softmax(dim=1)


@dataclass(frozen=True)
class Proof:
    """How the exported file compares to the original on the same images.

    `largest_difference` is of logits, `allowed_difference` what would still be accepted. `same_class` of `n_images`
    have the same likeliest class in both; `classes_seen` classes came first somewhere.
    """

    n_images: int
    largest_difference: float
    allowed_difference: float
    same_class: int
    classes_seen: int

    @property
    def holds(self) -> bool:
        """Whether the file may be kept. Written so that a difference of NaN fails."""
        return self.largest_difference <= self.allowed_difference and self.same_class == self.n_images


@dataclass(frozen=True)
class Exported:
    """A file that was written and proven. Speeds are on one CPU core, in batches of 16 images."""

    file: str
    format: str
    n_bytes: int
    about: Mapping[str, str]
    proof: Proof
    original_images_per_second: float
    exported_images_per_second: float


def export(model: Model, kind: str, file: Path) -> Exported:
    """Write the model as `kind` ("onnx" or "torch") to `file`, prove it equal to the original, and time both.

    A file that is not equal is removed, and `HaltError` says by how much it differs; so it does for a model that no
    graph can hold. What was at `file` before stays in both cases. Raises `RequestError` like `check_format`.
    """
    check_format(kind)
    format_ = FORMATS[kind]
    network = Deployed(model.classifier).eval()
    about = about_model(model)
    images = proof_images(model.description["image_shape"])
    try:
        save = format_.convert(_graph(network, images), about)
    except Exception as error:  # of many types: a user's own architecture may do what no graph can hold
        first = next(iter(str(error).strip().splitlines()), "")
        name = model.description["architecture"]
        raise HaltError(f"{name} cannot be exported as {kind}: {type(error).__name__}: {first}") from error
    with written_beside(file) as beside:
        save(beside)
        original, exported = _eager(network), format_.open(beside)
        proof = _prove(original, exported, images)
        if not proof.holds:
            raise HaltError(
                f"the {kind} file is not equal to the model, and was removed: on {proof.n_images} images its logits "
                f"differ by up to {proof.largest_difference:.2g} (allowed are {proof.allowed_difference:.2g}), and the "
                f"likeliest class is the same on {proof.same_class}"
            )
        speeds = _images_per_second(original, exported, images[:TIMED_IMAGES])
        n_bytes = beside.stat().st_size
    return Exported(str(file), kind, n_bytes, about, proof, *speeds)


def check_format(kind: str) -> None:
    """Raise `RequestError`, before any work is done, for an unknown format or one whose packages are missing."""
    if kind not in FORMATS:
        raise RequestError(unknown_word("--format", kind, FORMATS))
    needs = FORMATS[kind].needs
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        raise RequestError(
            f"--format {kind} needs packages that are not installed: {', '.join(missing)}. Install them with: "
            f"pip install {' '.join(needs)}"
        )


def about_model(model: Model) -> dict[str, str]:
    """Return what stands inside the file, by name: the classes as JSON, and what goes in and comes out."""
    channels, height, width = model.description["image_shape"]
    colour = "grey" if channels == 1 else "RGB"
    return {
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "architecture": model.description["architecture"],
        "input": f"{IMAGES}: uint8 (batch, {height}, {width}, {channels}), {colour}, 0 to 255, not normalised",
        "preprocessing": resizing(model.description),
        "output": f"{LOGITS}, {PROBABILITIES}: float32 (batch, {len(model.classes)}), in the order of the classes",
    }


def proof_images(image_shape: Sequence[int]) -> Pixels:
    """Return 64 images (64, height, width, channels), always the same for a shape (channels, height, width).

    Black, white, and random patterns, from one colour to single pixels. They are made and not stored, so that a model
    folder of any age can be exported, and nobody's photographs travel with it.
    """
    channels, size, _ = image_shape
    random = np.random.default_rng(0)
    images = [np.full((size, size, channels), value, np.uint8) for value in (0, 255)]
    while len(images) < PROOF_IMAGES:
        cells = (1, 2, 4, 8, 16, size)[len(images) % 6]
        images.append(fit(random.integers(0, 256, (cells, cells, channels), np.uint8), size, "squash"))
    return np.stack(images)


def _graph(network: nn.Module, images: Pixels) -> torch.export.ExportedProgram:
    """Return the network as a graph for any number of images, without the paths and source lines it was made from."""
    example = torch.from_numpy(images[:2])
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        for private in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(private, None)
    return program


def _to_onnx(program: torch.export.ExportedProgram, about: Mapping[str, str]) -> Callable[[Path], None]:
    made = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[IMAGES],
        output_names=[LOGITS, PROBABILITIES],
        dynamic_shapes={IMAGES: {0: "batch"}},
        verbose=False,
    )
    assert made is not None
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()
    made.model.metadata_props.update(about)
    return made.save


def _open_onnx(file: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([LOGITS], {IMAGES: images})[0])


def _to_torch(program: torch.export.ExportedProgram, about: Mapping[str, str]) -> Callable[[Path], None]:
    def save(file: Path) -> None:
        with open(file, "wb") as opened:  # by its name torch wants it to end in .pt2
            torch.export.save(program, opened, extra_files=dict(about))

    return save


def _open_torch(file: Path) -> Runner:
    with open(file, "rb") as opened:
        return _eager(torch.export.load(opened).module())


def _eager(network: nn.Module) -> Runner:
    def run(images: Pixels) -> Logits:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(images))[0])

    return run


@dataclass(frozen=True)
class Format:
    """A kind of file: how its name ends, which packages it needs, how it is made of a graph, and how it is opened."""

    suffix: str
    needs: tuple[str, ...]
    convert: Callable[[torch.export.ExportedProgram, Mapping[str, str]], Callable[[Path], None]]
    open: Callable[[Path], Runner]


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxruntime", "onnxscript"), _to_onnx, _open_onnx),
    "torch": Format(".pt2", (), _to_torch, _open_torch),
}


def _prove(original: Runner, exported: Runner, images: Pixels) -> Proof:
    """Compare both, in a batch of one and in one of all the rest."""
    batches = (images[:1], images[1:])
    expected = np.concatenate([original(batch) for batch in batches])
    found = np.concatenate([exported(batch) for batch in batches])
    best = expected.argmax(axis=1)
    return Proof(
        n_images=len(images),
        largest_difference=float(np.abs(found - expected).max()),
        allowed_difference=ALLOWED_DIFFERENCE * max(1.0, float(np.abs(expected).max())),
        same_class=int((found.argmax(axis=1) == best).sum()),
        classes_seen=len(np.unique(best)),
    )


def _images_per_second(original: Runner, exported: Runner, images: Pixels) -> tuple[float, float]:
    """Return the speeds of both on one core, in the fastest of their rounds, which other programs disturbed least.

    They take turns, and the proof has warmed them up. On several threads, which wait for one another, a busy machine
    made PyTorch look 25 times slower.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        while len(seconds[0]) < TIMED_ROUNDS or time.perf_counter() - began < TIMED_SECONDS:
            for run, taken in zip((original, exported), seconds, strict=True):
                start = time.perf_counter()
                run(images)
                taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return len(images) / min(seconds[0]), len(images) / min(seconds[1])

"""One trial's training: begin a configuration, run epochs, keep and restore its state. Knows no Ray."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from foundation import seed_from
from trainables.batches import Batches, Dataset, Grace, augment, balanced_weights, micro_batches
from trainables.captured import CapturedSteps, CudaGraphs, rate_as_number, rate_on_device, set_rate
from trainables.compiler import leave_compiler_out
from trainables.device import (
    PeakMemory,
    autocast,
    evaluation_batch,
    give_freed_memory_back,
    make_ready,
    sub_normals_flushed,
)
from trainables.epoch_result import EpochResult, scores
from trainables.frozen import Augment, Frozen, FrozenLayers
from trainables.models import Classifier, build_classifier, count_parameters
from trainables.optim import LearningRateCurve, make_optimizer
from trainables.recipe import split
from trainables.settings import Settings
from trainables.together import Alone
from trainables.validated import Validated


class Training:
    """Trains one configuration after the other on one data set in one process.

    `begin` leaves nothing of the configuration before: on a CPU the same configuration and seed give bit-equal
    results whatever ran in the process before.
    """

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.dataset = dataset
        self.device = torch.device(settings.device)
        make_ready(self.device)
        leave_compiler_out()
        self.batches = Batches(dataset, self.device)
        self.use(settings)
        self.mean = torch.tensor(dataset.mean, device=self.device)
        self.model: Classifier

    def use(self, settings: Settings) -> None:
        """Train with other settings of the same device from now on: each architecture has its own."""
        self.settings = settings
        torch.set_num_threads(settings.threads)
        self.memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format

    def begin(
        self,
        architecture: str,
        config: Mapping[str, Any],
        *,
        seed: int,
        epochs: int,
        source: str | None = None,
        train_on_val: bool = False,
        fold: tuple[int, int] | None = None,
        grace: Grace | None = None,
        learning_rates: list[float] | None = None,
        pretrained: bool = True,
        micro_batch_divisor: int = 1,
        team: Alone | None = None,
    ) -> None:
        """Build the model and everything around it, as in a fresh process.

        `source` is the text of a user's architecture. `train_on_val` trains on train and validation images
        together, and validates on none; `fold` (i, n) trains on all but the i-th of n parts, counted from 0, and
        validates on that; `grace`: the first epochs train on fewer. `learning_rates`, one per epoch of an earlier run,
        are replayed where the schedule depends on validation. `pretrained=False` skips weights that a restored state
        replaces anyway. `micro_batch_divisor` computes every batch in so many parts, with the same images in a step:
        less memory, and the same result but for batch norm. A `team` of several needs `train_on_val` (ValueError).
        """
        self._let_go()
        self.team = team or Alone()
        self.recipe, knobs = split(config)
        torch.manual_seed(seed)
        self.order_seed = seed_from(seed, "batches")
        self.generator = torch.Generator(self.device).manual_seed(self.order_seed)
        self.model = build_classifier(
            architecture,
            self.dataset.image_shape,
            self.dataset.n_classes,
            knobs,
            mean=self.dataset.mean,
            deviation=self.dataset.deviation,
            source=source,
            weights=pretrained,
        )
        self.model.to(self.device).to(memory_format=self.memory_format)
        self.team.join(self.model, seed)
        self.parameters = list(self.model.parameters())  # going through the model takes 100 us, each step
        self.optimizer = make_optimizer(self.recipe, self.model)
        self.curve = LearningRateCurve(self.recipe, epochs, learning_rates)
        self.micro_batch_divisor, self.grace = micro_batch_divisor, grace or Grace()
        self._use_images(train_on_val, fold)
        self._begin_counting()

    def _let_go(self) -> None:
        """Drop the configuration before: two may not fit into memory where one does."""
        for name in {"model", "parameters", "optimizer", "frozen", "captured"} & vars(self).keys():
            delattr(self, name)

    def _begin_counting(self) -> None:
        """Forget what the configuration before has gathered."""
        self.epochs_done = 0
        self.validated: Validated | None = None
        self.frozen = FrozenLayers(self.dataset.features, self.model, self.batches)
        numbers = torch.float32 if self.device.type == "mps" else torch.float64
        self.totals = torch.zeros(2, dtype=numbers, device=self.device)
        self.captured = self._captured_steps()
        give_freed_memory_back()
        self.peak_memory = PeakMemory(self.device)

    def _use_images(self, train_on_val: bool, fold: tuple[int, int] | None) -> None:
        """Decide which images train and which validate."""
        if self.team.size > 1 and not train_on_val:
            raise ValueError("processes that train together have no images to validate on: train_on_val is needed")
        data = self.dataset.fold(*fold) if fold else self.dataset
        train = np.concatenate([data.train, data.val]) if train_on_val else data.train
        self.train_on_val = train_on_val
        self.train_indices = torch.from_numpy(train)
        self.val_indices = torch.from_numpy(data.val).to(self.batches.images.device)
        self.val_labels = self.dataset.labels[data.val]
        labels, weighted = self.dataset.labels[train], self.recipe.class_weights != "none"
        self.class_weights = balanced_weights(labels, self.dataset.n_classes, self.device) if weighted else None

    @property
    def n_params(self) -> int:
        """How many parameters the model has, frozen ones included."""
        return count_parameters(self.model)

    @sub_normals_flushed()
    def epoch(self) -> EpochResult:
        """Train one epoch and validate; the host waits for the device only at the end."""
        start = time.perf_counter()
        self.model.train()
        self.model.begin_epoch(self.epochs_done)
        frozen = self._frozen_features(self.recipe.augmentation)
        began = time.perf_counter()
        order = self.grace.order(self.train_indices, self.order_seed, self.epochs_done)
        order = order.to(self.batches.images.device)  # all at once: each copy makes the host wait
        in_steps = self.recipe.batch_size, self.recipe.accumulation_steps, self.micro_batch_divisor
        steps = list(micro_batches(order, *in_steps))
        self.totals.zero_()
        for number, parts in enumerate(steps):
            learning_rate = self.curve.at(self.epochs_done, number / len(steps))
            self._step(number, parts, learning_rate, frozen)
        self.team.add_up([self.totals])
        self.team.agree(self.model)
        images = sum(len(part) for parts in steps for part in parts)
        train_loss, train_accuracy = (self.totals / images).tolist()
        train_seconds = time.perf_counter() - began
        validation = self._validate()
        if validation["val_loss"] is not None:
            self.curve.observe(validation["val_loss"])
        self.epochs_done += 1
        return EpochResult(
            epoch=self.epochs_done,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **validation,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
            images_per_second=images / train_seconds,
            peak_memory_mb=self.peak_memory.megabytes(),
            reads_features=frozen is not None,
            features_not_kept=self.frozen.not_kept,
            layers_change=self.model.layers_change(self.epochs_done - 1),
        )

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on, as tensors and plain values."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": self.curve.state(),
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "epochs_done": self.epochs_done,
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a kept state of the configuration that `begin` was given."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.captured is None:
            rate_as_number(self.optimizer)
        else:
            rate_on_device(self.optimizer, self.device)
        self.curve.restore(state["curve"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.epochs_done = state["epochs_done"]

    def _captured_steps(self) -> CapturedSteps | None:
        """Return who records this training's steps, None where they are not to be, or cannot: what the host holds, or
        other processes compute, no graph of this GPU can read."""
        if not self.settings.captured or self.team.size > 1 or self.batches.images.device.type != self.device.type:
            return None
        rate_on_device(self.optimizer, self.device)
        return CapturedSteps(CudaGraphs())

    def _step(self, number: int, parts: Sequence[Tensor], learning_rate: float, frozen: Frozen | None) -> None:
        """Take one optimizer step over its micro-batches; what is kept of frozen layers is read on the host."""
        set_rate(self.optimizer, learning_rate)
        if self.captured is None or frozen:
            self._compute(number, parts, frozen)
        else:
            layers = tuple(parameter.requires_grad for parameter in self.parameters)
            self.captured.take(layers, parts, lambda these: self._compute(0, these, None))

    def _compute(self, number: int, parts: Sequence[Tensor], frozen: Frozen | None) -> None:
        """Compute and apply the gradients of a step; add its summed loss and hits to `totals`."""
        images_in_step = sum(len(part) for part in parts)
        self.optimizer.zero_grad(set_to_none=True)
        for share, copies in self.team.shares(parts, (self.epochs_done, number), self.generator):
            logits, labels = self._forward(share, frozen, self._augment)
            loss = functional.cross_entropy(
                logits,
                labels,
                weight=self.class_weights,
                label_smoothing=self.recipe.label_smoothing,
                reduction="sum",
            )
            (loss / (images_in_step * copies)).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.totals[0] += functional.cross_entropy(logits, labels, reduction="sum") / copies
                self.totals[1] += (logits.argmax(1) == labels).sum() / copies
        self.team.add_up([each.grad for each in self.parameters if each.grad is not None])
        self.optimizer.step()

    def _forward(self, part: Tensor, frozen: Frozen | None, augmented: Augment | None = None) -> tuple[Tensor, Tensor]:
        """Return logits and labels of some images, from what frozen layers made of them where that is kept."""
        if frozen:
            features = frozen.take(part, self.device)
            with self._autocast():
                return frozen.rest(features).float(), self.batches.labels_of(part)
        images, labels = self.batches.take(part, self.memory_format)
        if augmented:
            images = augmented(images)
        with self._autocast():
            return self.model(images).float(), labels

    def _augment(self, images: Tensor) -> Tensor:
        return augment(images, self.recipe, self.mean, self.generator)

    def _frozen_features(self, augmentation: tuple[float, ...]) -> Frozen | None:
        """Return what the frozen layers make of every image, augmented so strongly; None where that is not kept."""
        views = self.model.augmented_views
        if augmentation and not views:
            return None
        view = self.epochs_done % views if augmentation else 0
        generator = torch.Generator(self.device).manual_seed(seed_from(view, "view"))
        return self.frozen.features(
            (augmentation, view, self.settings.precision, self.device.type),
            self._autocast,
            (lambda images: augment(images, self.recipe, self.mean, generator)) if augmentation else None,
        )

    def _validate(self) -> dict[str, float | None]:
        """Return the figures of the validation images, and keep in `validated` what each of them gave."""
        if self.train_on_val:
            self.validated = None
            return dict.fromkeys(("val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1"))
        losses, guesses = [], []
        self.model.eval()
        frozen = self._frozen_features(())
        _, height, width = self.dataset.image_shape
        at_once = evaluation_batch(self.device.type, height, width, self.model.input_size)
        for part in torch.split(self.val_indices, at_once):
            with torch.inference_mode():
                logits, labels = self._forward(part, frozen)
                losses.append(functional.cross_entropy(logits, labels, reduction="none"))
                guesses.append(logits.argmax(1))
        truth, classes = self.val_labels, self.dataset.n_classes
        guessed = torch.cat(guesses).cpu().numpy()
        self.validated = Validated(guessed == truth, torch.cat(losses).cpu().numpy())
        cells = truth * classes + guessed
        return {
            "val_loss": float(self.validated.losses.mean(dtype=np.float64)),
            **scores(np.bincount(cells, minlength=classes**2).reshape(classes, classes)),
        }

    def _autocast(self) -> Any:
        return autocast(self.device, self.settings.precision)

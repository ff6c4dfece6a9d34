"""The largest configurations of a space: what disk and memory must suffice for."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search.request import Request
from spaces import Space
from spaces.domains import active, grid
from spaces.training import TRAINING

DRAWS = 16

Config = Mapping[str, Any]


def candidates(space: Space) -> list[Config]:
    """Return the baseline of a space, the configuration with every number at its largest, and 16 drawn ones."""
    rng = random.Random(0)
    return [space.baseline, _every_number_largest(space), *(space.draw(rng) for _ in range(DRAWS))]


@dataclass(frozen=True)
class Largest:
    """The configuration of an architecture whose training takes the most memory: `trial_bytes` by the shapes of its
    tensors, beside those of a process that trains nothing; of each image `kept_bytes` for the way back, and the largest
    tensor has `largest_bytes`."""

    architecture: str
    config: Config
    trial_bytes: int
    kept_bytes: int
    largest_bytes: int


def largest(request: Request, *, thorough: bool = True) -> list[Largest]:
    """Return the largest configuration of each space, where any can be built.

    Of the candidates, which the disk is reckoned from too, so that it costs next to nothing; and if `thorough` of the
    one with every number at its largest with each option of what is no number.
    """
    found = []
    for space in request.spaces.values():
        configs = [*candidates(space), *(_other_options(space) if thorough else ())]
        tried = [each for config in configs if (each := _reckoned(request, space, config))]
        found += sorted(tried, key=lambda each: each.trial_bytes)[-1:]
    return found


def _reckoned(request: Request, space: Space, config: Config) -> Largest | None:
    """Return a configuration with the memory that its training takes at the most, as counted from its shapes.

    That are six values a parameter (itself, its gradient, two of the optimizer, what a step computes with), and of each
    image what is kept and two of the largest tensors, or in an evaluation three of them. With the 0.4 GB of a process
    that was 0.96 to 1.3 times what it took (the largest cnn, alexnet and vgg11 at 64 x 64).
    """
    from trainables.device import best_device, evaluation_batch

    found = request.preflight(space.architecture, config)
    if found.impossible:
        return None
    _, height, width = request.cache.image_shape
    side = None if space.architecture in request.sources else config.get("input_size")
    at_once = evaluation_batch(best_device(gpus=0).type, height, width, side)
    evaluated = min(request.n_val, at_once)
    training = int(config["batch_size"]) * (found.kept_bytes + 2 * found.largest_bytes)
    of_images = max(training, 3 * evaluated * found.largest_bytes)
    return Largest(space.architecture, config, 2 * found.state_bytes + of_images, found.kept_bytes, found.largest_bytes)


def _other_options(space: Space) -> Iterator[Config]:
    for name, knob in space.knobs.items():
        options = grid(knob.domain)
        if name not in TRAINING and not _are_numbers(options):  # those of the training change no shape
            yield from (_every_number_largest(space, {name: option}) for option in options[1:])


def _every_number_largest(space: Space, fixed: Config | None = None) -> Config:
    """Return the configuration with every number at its largest, the first option else, but for what is fixed."""
    config: dict[str, Any] = {}
    for name, knob in space.knobs.items():
        if active(knob.domain, config):
            options = grid(knob.domain)
            config[name] = max(options) if _are_numbers(options) else options[0]
            config |= {name: fixed[name]} if fixed and name in fixed else {}
    return config


def _are_numbers(options: list[Any]) -> bool:
    return all(isinstance(option, int | float) for option in options)

"""A checked request with all that it names at hand: the decoded images, the spaces, the users' own architectures."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import spaces
from cluster.access import default_address
from cluster.asking import helpers
from cluster.session import Tell
from cluster.storage import FORMAT, versions, write_experiment
from foundation import Problems, RequestError
from search.methods import METHODS
from search.preflight import Preflight, preflight
from search.spec import SearchSpec, differences
from spaces import Space
from spaces.domains import grid
from trainables.cache import ImageCache, open_cache, prepare
from trainables.learned import Needs, needs
from trainables.sent import Send
from trainables.shared_out import AT_ONCE, MOST_HOSTS, Helpers

OnDecoded = Callable[[int, int], None]
KEPT = ("time_budget", "max_concurrent", "checkpoint_every", "epoch_timeout")  # of what was asked last
MOST_KNOWN = 512  # configurations; a search of 10,000 trials asks for each once
DEFAULT_ARCHITECTURES = ("cnn", "alexnet", "vgg11")


@dataclass(frozen=True)
class Request:
    """What a search needs to know: the request, the images, a space per architecture, and the users' source texts."""

    spec: SearchSpec
    cache: ImageCache
    spaces: Mapping[str, Space]
    sources: Mapping[str, str]
    _known: dict[str, Preflight] = field(default_factory=dict, compare=False, repr=False)

    @property
    def val_share(self) -> float:
        """The number of validation images over that of training images."""
        return self.n_val / self.n_train

    @property
    def n_train(self) -> int:
        """The number of training images."""
        return sum(self.cache.counts["train"].values())

    @property
    def n_val(self) -> int:
        """The number of validation images."""
        return sum(self.cache.counts["val"].values())

    def preflight(self, architecture: str, config: Mapping[str, Any]) -> Preflight:
        """Return whether a configuration can be built for these images, and how large it is; what was asked for lately
        is known."""
        key = json.dumps([architecture, config], sort_keys=True)
        if key not in self._known:
            shape, n_classes = self.cache.image_shape, len(self.cache.classes)
            source = self.sources.get(architecture)
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = preflight(architecture, config, shape, n_classes, source)
        return self._known[key]


def prepare_request(spec: SearchSpec, on_decoded: OnDecoded | None, tell: Tell) -> Request:
    """Return the request with its spaces checked and its images decoded; raises `RequestError` with all mistakes."""
    loaded, sources = load_spaces(spec)
    _check_weights({name: space for name, space in loaded.items() if name not in sources})
    trials = possible(spec.trials, spec, loaded, tell)
    bounded = spec.model_copy(update={"trials": trials})
    return Request(bounded, decoded(spec, on_decoded, tell), loaded, sources)


def possible(trials: int, spec: SearchSpec, loaded: Mapping[str, Space], tell: Tell) -> int:
    """Return how many of so many trials the method can propose, so that no forecast waits for others; say if fewer."""
    points = METHODS[spec.method]().points
    most = trials if points is None else sum(1 + points(space) for space in loaded.values())
    if most < trials:
        tell(f"The {spec.method} has {most} trials in all, baselines counted: no more are to come.")
    return min(trials, most)


def load_spaces(spec: SearchSpec) -> tuple[dict[str, Space], dict[str, str]]:
    """Return a space per architecture, as `--space` and `--weights` leave it, and the users' source texts."""
    problems = Problems()
    loaded: dict[str, Space] = {}
    sources: dict[str, str] = {}
    for name in spec.arch or default_architectures()[0]:
        try:
            space = spaces.load(name)
        except RequestError as error:
            problems.found += error.problems
            continue
        if space.architecture in loaded:
            problems.add(f"--arch {name}: the architecture {space.architecture!r} is there twice")
        loaded[space.architecture] = space
        if name.endswith(".py"):
            sources[space.architecture] = Path(name).read_text(encoding="utf-8")
    problems.raise_if_any()
    if spec.weights:
        transfer = [name for name, space in loaded.items() if "weights" in space.knobs and name not in sources]
        if not transfer:
            raise RequestError(f"--weights {spec.weights}: none of {', '.join(loaded)} takes pretrained weights")
        for name in transfer:
            loaded[name] = spaces.narrowed(loaded[name], {"weights": spec.weights}, "--weights")
    if spec.space:
        changed = spaces.read_space_file(Path(spec.space), tuple(loaded.values()))
        loaded = {space.architecture: space for space in changed}
    return loaded, sources


def default_architectures() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the architectures searched when none is asked for, and those left out for want of their weights."""
    from trainables.models import weights_at_hand

    transfer = [name for name in spaces.names() if "weights" in spaces.load(name).knobs]
    at_hand = tuple(name for name in transfer if weights_at_hand(name))
    return DEFAULT_ARCHITECTURES + at_hand, tuple(name for name in transfer if name not in at_hand)


def needs_of(request: Request, send: Send) -> Needs:
    """Return what trials of a request read from their host's disk; `send` brings it to hosts that have it not."""
    rows = {name: space.rows() for name, space in request.spaces.items()}
    return needs(request.cache.folder, rows, request.sources, send)


def describe_experiment(request: Request, command_line: str) -> dict[str, Any]:
    """Return what `experiment.json` keeps of a request."""
    cache = request.cache
    return {
        "format": FORMAT,
        "name": request.spec.name,
        "spec": request.spec.model_dump(mode="json"),
        "spaces": {name: space.rows() for name, space in request.spaces.items()},
        "sources": dict(request.sources),
        "data": {"cache": str(cache.folder), "fingerprint": cache.fingerprint},
        "versions": versions(),
        "command_line": command_line,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def keep_asked(folder: Path, experiment: dict[str, Any], request: Request) -> None:
    """Let an experiment go on as it was asked to last, whichever command does: how long, how many at a time.

    And with the images where they are now: decoded again, on another host they lie in another folder.
    """
    asked = request.spec.model_dump(mode="json")
    data = experiment["data"] | {"cache": str(request.cache.folder)}
    kept = experiment | {"spec": experiment["spec"] | {name: asked[name] for name in KEPT}, "data": data}
    if kept != experiment:
        write_experiment(folder, kept)


def reopen(spec: SearchSpec, experiment: dict[str, Any], cache: ImageCache) -> Request:
    """Return the request of an experiment that is there, its spaces as recorded; `RequestError` if its data is not."""
    if cache.fingerprint != experiment["data"]["fingerprint"]:
        raise RequestError(
            f"{spec.data} is no longer what this experiment was searched on: its fingerprint was "
            f"{experiment['data']['fingerprint'][:12]} and is {cache.fingerprint[:12]}. Put the data back, or start a "
            "new experiment with another --name. (Another version of convscout may decode otherwise, too)"
        )
    loaded = {name: Space.from_rows(rows) for name, rows in experiment["spaces"].items()}
    return Request(spec, cache, loaded, experiment["sources"])


def decoded_before(
    spec: SearchSpec, experiment: dict[str, Any], on_decoded: OnDecoded | None, tell: Tell
) -> ImageCache:
    """Return the images an experiment was searched on, without a look at DATA; where they are gone, it is decoded."""
    try:
        return open_cache(Path(experiment["data"]["cache"]))
    except RequestError:
        return decoded(spec, on_decoded, tell)


def changes(spec: SearchSpec, experiment: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that a new request asks for otherwise than the experiment that is there.

    Files that the request names count by what they hold.
    """
    found = differences(experiment["spec"], spec)
    if not found:
        # what is searched by default depends on the weights at hand: what counts is what it was at the beginning
        loaded, sources = load_spaces(spec.model_copy(update={"arch": spec.arch or tuple(experiment["spaces"])}))
        recorded = {name: json.dumps(rows) for name, rows in experiment["spaces"].items()}
        for name, space in loaded.items():
            if json.dumps(space.rows()) != recorded.get(name):
                found.append(f"space: what may vary for {name} is no longer what it was")
            changed = [name for name, text in sources.items() if text != experiment["sources"].get(name)]
        found += [f"arch: the file of {name} has changed" for name in changed]
    return found


def decoded(spec: SearchSpec, on_decoded: OnDecoded | None, tell: Tell) -> ImageCache:
    """Return the images of DATA, decoded first where that has not been done.

    On a cluster of others its hosts decode a part where that takes long and they see DATA; it is connected to for that.
    """
    address = spec.address or default_address()
    hosts = partial(helpers, address, most=MOST_HOSTS, at_once=AT_ONCE)
    return prepare(
        spec.data,
        image_size=spec.image_size,
        resize=spec.resize,
        val_fraction=spec.val_fraction,
        test_fraction=spec.test_fraction,
        duplicates=spec.duplicates,
        on_progress=on_decoded,
        helpers=None if address == "local" else Helpers(hosts, tell),
    )


def _check_weights(loaded: Mapping[str, Space]) -> None:
    """Read all pretrained weights once, in the driver and now, not after an hour in a worker."""
    for name, space in loaded.items():
        if "weights" not in space.knobs:
            continue
        from trainables.models import build_classifier
        from trainables.recipe import split

        _, knobs = split(space.baseline)
        for weights in grid(space.knobs["weights"].domain):
            build_classifier(name, (3, 32, 32), 2, knobs | {"weights": weights}, mean=(0.0,) * 3, deviation=(1.0,) * 3)

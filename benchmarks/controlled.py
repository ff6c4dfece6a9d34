"""Ray's own trial controller on a simulated cluster: what it asks of Ray is answered by `simulated.SimulatedRay`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.air.execution._internal import actor_manager, event_manager
from ray.air.execution.resources import AcquiredResources, ResourceManager
from ray.train._internal import storage as ray_storage
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment
from ray.tune.search.search_generator import SearchGenerator
from simulated import SimulatedRay, Worker

from cluster import tune_hooks
from cluster.garbage import what_is_kept_is_passed_over
from cluster.watchdog import Watchdog


class Untrained(ray.tune.Trainable):  # type: ignore[misc]
    """What Ray is told to run; the simulated workers answer in its place."""


class Starts:
    """What Ray takes for the class of a worker: it starts one on the simulated cluster."""

    def __init__(self, cluster: SimulatedRay) -> None:
        self.cluster = cluster

    def remote(self, config: dict[str, Any], **_: Any) -> Worker:
        """Start a worker; it answers after simulated time."""
        return Worker(self.cluster, config)


class Acquired(AcquiredResources):  # type: ignore[misc]
    """A slot that has been given out."""

    def __init__(self, resource_request: Any, cluster: SimulatedRay) -> None:
        super().__init__(resource_request)
        self.cluster = cluster

    def _annotate_remote_entity(self, entity: Any, bundle: dict[str, float], bundle_index: int) -> Any:
        return Starts(self.cluster)


class Slots(ResourceManager):  # type: ignore[misc]
    """Gives out so many slots, in place of Ray's placement groups."""

    def __init__(self, cluster: SimulatedRay, number: int) -> None:
        self.cluster, self.number = cluster, number
        self.used = self.requested = 0

    def request_resources(self, resource_request: Any) -> None:
        """Note that one more is wanted."""
        self.requested += 1

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Note that one is no longer wanted."""
        self.requested -= 1

    def has_resources_ready(self, resource_request: Any) -> bool:
        """Whether one that is wanted is free."""
        return self.requested > 0 and self.used < self.number

    def acquire_resources(self, resource_request: Any) -> Any:
        """Give one out."""
        self.used, self.requested = self.used + 1, self.requested - 1
        self.cluster.most_workers = max(self.cluster.most_workers, self.used)
        return Acquired(resource_request, self.cluster)

    def free_resources(self, acquired_resource: Any) -> None:
        """Take one back."""
        self.used -= 1

    def clear(self) -> None:
        """Take all back."""
        self.used = self.requested = 0


def fit(dispatcher: Any, cluster: SimulatedRay, hosts: Sequence[Any], place: Any, scratch: str) -> None:
    """Run the dispatcher's trials as `cluster.launch` does, through Ray's controller, on the simulated cluster."""
    experiment = Experiment(
        "trials", Untrained, num_samples=10**9, storage_path=scratch, resources_per_trial={"cpu": 1}
    )
    search = SearchGenerator(tune_hooks.SearcherHook(dispatcher, tune_hooks.Room(place)))
    controller = TuneController(
        search_alg=search,
        scheduler=tune_hooks.SchedulerHook(dispatcher),
        checkpoint_period=10**9,
        trial_checkpoint_config=experiment.checkpoint_config,
        storage=experiment.storage,
        reuse_actors=True,
        resource_manager_factory=lambda: Slots(cluster, place.slots),
    )
    search.add_configurations([experiment])
    try:
        with (
            _in_place_of_ray(cluster, hosts, scratch),
            tune_hooks.patched_tune(),
            Watchdog(dispatcher, lambda *_: None),
            what_is_kept_is_passed_over(),
            cluster.clock.disk_counts(),
        ):
            cluster.clock.rest(0.0)
            while not controller.is_finished():
                controller.step()
            controller.cleanup()
    finally:
        dispatcher.close()


@contextmanager
def _in_place_of_ray(cluster: SimulatedRay, hosts: Sequence[Any], scratch: str) -> Iterator[None]:
    """Let the actor manager call the simulated cluster, Ray's session lie in `scratch`, and these hosts be alive."""
    session_folder, hosts_of = ray_storage._get_ray_train_session_dir, tune_hooks.hosts_of
    actor_manager.ray = event_manager.ray = cluster
    ray_storage._get_ray_train_session_dir = lambda: scratch
    tune_hooks.hosts_of = lambda _: list(hosts)
    try:
        yield
    finally:
        actor_manager.ray = event_manager.ray = ray
        ray_storage._get_ray_train_session_dir, tune_hooks.hosts_of = session_folder, hosts_of

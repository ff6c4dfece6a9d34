"""The glue between Ray Tune and `Training`: reports go up as JSON text, everything else is handed in."""

import faulthandler
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import get_runtime_context
from ray.tune import Trainable

from foundation import RequestError, fault
from trainables.learned import Needs

RETIRE_AFTER = 3  # bad outcomes in a row: the next trial gets a process that nothing can have broken
BEGIN_SECONDS = 900.0  # building a model takes seconds; a process that takes this long has hung, and ends itself


class WorkerRetired(Exception):
    """This worker does not take another trial; the one it was given has not begun."""


class StoreUnreachable(Exception):
    """What the trial is to go on from cannot be fetched here; another process, on another host maybe, can."""


@contextmanager
def _ends_if_it_hangs(seconds: float) -> Iterator[None]:
    """End this process, with a traceback in its log, if what is inside takes longer; even where it holds the GIL."""
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class TrialWorker:
    """Runs one trial after another in one worker process; the first report of each says that it has started.

    It never sets `done`: the dispatcher decides. `reset_config` only stores what it got, since Ray takes a failing
    reset as an error of the trial; the model is built in the first `step`. What a model does wrong is an outcome, and
    is reported; what memory or the device does wrong is raised, so that this process ends and its memory with it.
    """

    def setup(
        self,
        config: dict[str, Any],
        folder: str = "",
        needs: Needs | None = None,
        sources: dict[str, str] | None = None,
        settings: dict[str, dict[str, Any]] | None = None,
        checkpoint_seconds: float = 30.0,
        team: Any = None,
        store: Any = None,
    ) -> None:
        """Keep what is the same for all trials; called once per process. `team` is whom it trains together with."""
        from trainables.checkpoint import Writer
        from trainables.together import Alone

        assert needs is not None
        self.folder, self.needs = Path(folder), needs
        self.sources, self.settings = sources or {}, settings or {}
        self.checkpoint_seconds = checkpoint_seconds
        self.team: Alone = team or Alone()
        self.training: Any = None
        self.store = store
        self.dataset: Any = None
        self.writer = Writer(store.keep_checkpoint if store else None)
        self.bad_outcomes = 0
        self.unfit = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial; always possible."""
        self.handed_out = json.loads(new_config["handed_out"])
        self.begun = False
        return True

    def cleanup(self) -> None:
        """End with nothing half written."""
        self.writer.drop()
        if self.store:
            self.store.clear()

    def step(self) -> dict[str, Any]:
        """Begin the trial, or train one epoch of it, and report."""
        from trainables.device import is_device_error
        from trainables.together import PeerLost

        if self.unfit:  # a trial that was handed out before that was known
            raise WorkerRetired("its host could not get what trials need")
        if self.bad_outcomes >= RETIRE_AFTER:
            raise WorkerRetired(f"{RETIRE_AFTER} bad outcomes in a row")
        try:
            if self.begun:
                report = self._epoch()
            elif (unfit := self._fetch()) is not None:  # its waits have limits of their own: it may be large
                self.unfit = True
                return {"report": json.dumps(unfit)}
            else:
                with _ends_if_it_hangs(BEGIN_SECONDS):
                    report = self._begin()
        except StoreUnreachable:
            raise
        except (OSError, RequestError) as error:
            report = {"kind": "failed", "status": "data_error", "error": str(error)}
        except PeerLost:
            raise
        except Exception as error:
            if is_device_error(error):
                raise
            report = {"kind": "failed", "status": "infeasible", "error": f"{type(error).__name__}: {error}"}
        self.bad_outcomes = self.bad_outcomes + 1 if "failed" in (report["kind"], *report) else 0
        return {"report": json.dumps(report)}

    def _fetch(self) -> dict[str, Any] | None:
        """Open the images, once per process, and find the trial's weights; on a cluster, those that this host gets.

        Where another host may do better, return the report of one that cannot get them: that is no trial's outcome.
        """
        from trainables.batches import Dataset

        try:
            if self.dataset is None:
                there = None if self.store or self.team.rank else self.folder
                self.dataset = Dataset.from_cache(self.needs.cache(there))
            self.config = self.needs.config(self.handed_out["config"])
        except (OSError, RequestError) as error:
            if self.needs.images is None or self.team.size > 1:  # one host only, or processes on several
                raise
            return {"kind": "unfit", "node": get_runtime_context().get_node_id(), "error": str(error)}
        return None

    def _begin(self) -> dict[str, Any]:
        from trainables.batches import Grace
        from trainables.device import name_of
        from trainables.settings import Settings
        from trainables.training import Training

        self.writer.drop()
        fault("trial.begin")
        given, work = self.handed_out, self.handed_out["work"]
        settings = Settings(**self.settings[given["architecture"]])
        if self.training is None:
            self.training = Training(self.dataset, settings)
        self.training.use(settings)
        kept = self._kept()
        self.training.begin(
            given["architecture"],
            self.config,
            seed=given["seed"],
            epochs=work["schedule_epochs"],
            source=self.sources.get(given["architecture"]),
            train_on_val=work.get("train_on_val", False),
            fold=tuple(work["fold"]) if "fold" in work else None,
            grace=Grace(*work["grace"]) if "grace" in work else None,
            learning_rates=work.get("learning_rates"),
            pretrained=kept.state is None,
            micro_batch_divisor=given["micro_batch_divisor"],
            team=self.team,
        )
        self.epochs: list[dict[str, Any]] = []
        if kept.state is not None:
            self.training.restore(kept.state["training"])
            self.epochs = json.loads(kept.state["epochs"])
        self.writer.begin(self.checkpoints, given["attempt"], self._identity())
        self.begun, self.snapshot_time, self.write_seconds = True, time.monotonic(), 0.0
        return {
            "kind": "started",
            "attempt": given["attempt"],
            "host": socket.gethostname(),
            "node": get_runtime_context().get_node_id(),
            "pid": os.getpid(),
            "device": name_of(self.training.device),
            **({"workers": self.team.size} if self.team.size > 1 else {}),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES") if self.training.device.type == "cuda" else None,
            "micro_batch_divisor": given["micro_batch_divisor"],
            "start_from": kept.path and kept.path.name,
            "damaged": list(kept.damaged),
            "n_params": self.training.n_params,
            "trains": self.training.model.describe_trainable(),
            "epochs": self.epochs,
        }

    def _kept(self) -> Any:
        """Return the state that the trial goes on from; of a team the first process reads it for all."""
        from trainables import checkpoint

        self.here, self.checkpoints = self.folder, Path(self.handed_out["checkpoints"])
        if self.store:  # before its latest checkpoint is looked for
            self.here = self.store.folder
            self.checkpoints = self._fetched() / self.checkpoints.name
        return self.team.from_first(lambda: checkpoint.load(self.checkpoints, self._identity()))

    def _epoch(self) -> dict[str, Any]:
        fault("trial.epoch")
        result = self.training.epoch()
        report = {"kind": "epoch", "attempt": self.handed_out["attempt"], "epoch": result.to_json()}
        if result.diverged:
            losses = f"train_loss {result.train_loss:g}, val_loss {result.val_loss}"
            return report | {"failed": {"status": "diverged", "error": f"epoch {result.epoch}: {losses}"}}
        try:
            self._keep_validated(result.epoch)
        except OSError as error:  # the epoch is not reported: when there is room again, it is trained again
            return {"kind": "unwritten", "unwritten": self._unwritten(error)}
        self.epochs.append(report["epoch"])
        try:
            report["checkpoints"] = self._checkpoint(
                result.epoch, result.seconds / self.training.grace.share(result.epoch)
            )
        except OSError as error:
            if self._weights_are_wanted(result.epoch):  # without them the trial would have ended in vain
                return {"kind": "unwritten", "unwritten": self._unwritten(error)}
            report["unwritten"] = self._unwritten(error)
        fault("trial.before_report")
        return report

    def _keep_validated(self, epoch: int) -> None:
        """Keep which validation images were right, and each one's loss where the work asks for it."""
        from trainables.validated import write_validated

        if self.training.validated is not None:
            losses = self.handed_out["work"].get("keep_losses", False)
            files = write_validated(self.checkpoints.parent, epoch, self.training.validated, losses=losses)
            for file in files if self.store else ():
                self.store.keep_file(file)

    def _unwritten(self, error: OSError) -> dict[str, Any]:
        path = error.filename or self.checkpoints
        return {"errno": error.errno, "strerror": error.strerror, "path": str(path)}

    def _checkpoint(self, epoch: int, seconds: float) -> list[dict[str, Any]]:
        """Keep the state if the next epoch, of so many seconds, may end too late for that; return what was written
        meanwhile.

        Counting the epoch to come and the time to write bounds what a kill repeats: an epoch or
        `checkpoint_seconds`, whichever is longer. The last state of a trial whose weights are wanted is waited for. Of
        a team the first process keeps it for all.
        """
        if self.team.rank:
            return []
        wanted = self._weights_are_wanted(epoch)
        next_end = time.monotonic() - self.snapshot_time + seconds + self.write_seconds
        if wanted or (epoch < self.handed_out["work"]["epochs"] and next_end > self.checkpoint_seconds):
            state = {"training": self.training.state(), "epochs": json.dumps(self.epochs)}
            self.writer.submit(epoch, state)
            self.snapshot_time = time.monotonic()
        written = self.writer.finish() if wanted else self.writer.collect()
        self.write_seconds = max([self.write_seconds, *(saved.seconds for saved in written)])
        return [
            {"epoch": saved.epoch, "path": str(saved.path.relative_to(self.here)), "sha256": saved.sha256}
            for saved in written
        ]

    def _weights_are_wanted(self, epoch: int) -> bool:
        work = self.handed_out["work"]
        return bool(work.get("keep_checkpoint") and epoch == work["epochs"])

    def _fetched(self) -> Path:
        """Return the trial's folder in this process, with what the store has of it."""
        name = Path(self.handed_out["checkpoints"]).parent.relative_to(self.folder).as_posix()  # trials/0007
        try:
            return Path(self.store.begin(name))
        except OSError as error:
            raise StoreUnreachable(f"{error.filename}: {error.strerror or error}") from error

    def _identity(self) -> str:
        """Return, as text, all that a kept state must agree with before this trial may go on from it."""
        given, work = self.handed_out, self.handed_out["work"]
        parts = {name: given[name] for name in ("architecture", "config", "seed")}
        parts |= {"schedule_epochs": work["schedule_epochs"], "train_on_val": work.get("train_on_val", False)}
        parts |= {name: work[name] for name in ("fold", "grace", "workers") if name in work}
        return json.dumps(parts, sort_keys=True)


class ImageTrainable(TrialWorker, Trainable):
    """A worker of Ray Tune, which trains by itself."""

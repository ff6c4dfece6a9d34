"""The glue between Ray Tune and `Training`: reports go up as JSON text, everything else is handed in."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from foundation import RequestError


def worker_parameters(folder: Path, experiment: dict[str, Any], calibrated: dict[str, Any]) -> dict[str, Any]:
    """Return what every worker's `setup` needs, from `experiment.json` and the ledger's `calibrated` row."""
    return {
        "folder": str(folder),
        "cache_folder": experiment["data"]["cache"],
        "sources": experiment["sources"],
        "settings": calibrated["settings"],
        "checkpoint_seconds": 30.0,
    }


class ImageTrainable(Trainable):
    """Runs one trial after another in one worker process; the first report of each says that it has started.

    It never sets `done`: the dispatcher decides. `reset_config` only stores what it got, since Ray takes a failing
    reset as an error of the trial; the model is built in the first `step`.
    """

    def setup(
        self,
        config: dict[str, Any],
        folder: str = "",
        cache_folder: str = "",
        sources: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        checkpoint_seconds: float = 30.0,
    ) -> None:
        """Keep what is the same for all trials; called once per process."""
        self.folder, self.cache_folder = Path(folder), Path(cache_folder)
        self.sources, self.settings = sources or {}, settings or {}
        self.checkpoint_seconds = checkpoint_seconds
        self.training: Any = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial; always possible."""
        self.handed_out = json.loads(new_config["handed_out"])
        self.begun = False
        return True

    def step(self) -> dict[str, Any]:
        """Begin the trial, or train one epoch of it, and report."""
        report = self._epoch() if self.begun else self._begin()
        return {"report": json.dumps(report)}

    def _begin(self) -> dict[str, Any]:
        from trainables import checkpoint
        from trainables.batches import Dataset
        from trainables.cache import open_cache
        from trainables.training import Settings, Training

        given, work = self.handed_out, self.handed_out["work"]
        try:
            if self.training is None:
                self.training = Training(Dataset.from_cache(open_cache(self.cache_folder)), Settings(**self.settings))
        except (OSError, RequestError) as error:
            return {"kind": "failed", "status": "data_error", "error": str(error)}
        self.checkpoints = Path(given["checkpoints"])
        kept = checkpoint.load(self.checkpoints, self._identity())
        self.training.begin(
            given["architecture"],
            given["config"],
            seed=given["seed"],
            epochs=work["schedule_epochs"],
            source=self.sources.get(given["architecture"]),
            train_on_val=work.get("train_on_val", False),
            learning_rates=work.get("learning_rates"),
            pretrained=kept.state is None,
        )
        self.epochs: list[dict[str, Any]] = []
        if kept.state is not None:
            self.training.restore(kept.state["training"])
            self.epochs = json.loads(kept.state["epochs"])
        self.begun, self.checkpointed = True, time.monotonic()
        return {
            "kind": "started",
            "attempt": given["attempt"],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start_from": kept.path and kept.path.name,
            "damaged": list(kept.damaged),
            "n_params": self.training.n_params,
            "trains": self.training.model.describe_trainable(),
            "epochs": self.epochs,
        }

    def _epoch(self) -> dict[str, Any]:
        result = self.training.epoch()
        report = {"kind": "epoch", "attempt": self.handed_out["attempt"], "epoch": result.to_json()}
        if result.diverged:
            losses = f"train_loss {result.train_loss:g}, val_loss {result.val_loss}"
            return report | {"failed": {"status": "diverged", "error": f"epoch {result.epoch}: {losses}"}}
        self.epochs.append(report["epoch"])
        if saved := self._checkpoint(result.epoch):
            report["checkpoint"] = saved
        return report

    def _checkpoint(self, epoch: int) -> dict[str, Any] | None:
        """Save if it is time to, or if this is the last epoch of a trial whose weights are wanted."""
        from trainables import checkpoint

        work = self.handed_out["work"]
        wanted = work.get("keep_checkpoint") and epoch == work["epochs"]
        if not wanted and time.monotonic() - self.checkpointed < self.checkpoint_seconds:
            return None
        state = {"training": self.training.state(), "epochs": json.dumps(self.epochs)}
        saved = checkpoint.save(self.checkpoints, self.handed_out["attempt"], epoch, state, self._identity())
        self.checkpointed = time.monotonic()
        return {"epoch": epoch, "path": str(saved.path.relative_to(self.folder)), "sha256": saved.sha256}

    def _identity(self) -> str:
        """Return, as text, all that a kept state must agree with before this trial may go on from it."""
        given, work = self.handed_out, self.handed_out["work"]
        parts = {name: given[name] for name in ("architecture", "config", "seed")}
        parts |= {"schedule_epochs": work["schedule_epochs"], "train_on_val": work.get("train_on_val", False)}
        return json.dumps(parts, sort_keys=True)

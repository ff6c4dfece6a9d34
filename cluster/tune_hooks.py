"""The searcher and the scheduler that Ray Tune asks: they only pass the questions on to the dispatcher.

Ray calls the scheduler first, then the searcher. The trainable never sets `done`, or Ray would skip the
scheduler's `on_trial_result` and the last epoch with it.
"""

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.dispatch import Dispatcher


class SearcherHook(Searcher):
    """Hands out what the dispatcher hands out."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        """Give Ray's files nothing to keep: the dispatcher holds open files and a terminal."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial for Ray; None while others run, and FINISHED, for good, when none does.

        None with nothing running would block Ray's controller for ten minutes.
        """
        work = self.dispatcher.hand_out(trial_id)
        if work is not None:
            return {"handed_out": json.dumps(work)}  # as text: Ray would walk and rename a nested configuration
        return None if self.dispatcher.running else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let go of a trial; one that ended in an error has been passed on by the scheduler's hook."""
        self.dispatcher.finished(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing back, ever."""
        raise NotImplementedError("an experiment goes on from its ledger, never from Ray's files")


class SchedulerHook(FIFOScheduler):
    """Folds every report in and stops the trials that the dispatcher stops."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        """Give Ray's files nothing to keep."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass one report on; the answer is the dispatcher's."""
        goes_on = self.dispatcher.report(trial.trial_id, json.loads(result["report"]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Pass a lost trial on, with what Ray knows of the reason."""
        lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
        self.dispatcher.lost(trial.trial_id, lines[-1] if lines else "the worker process died")

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the choice to Ray's controller, which starts pending trials itself.

        The inherited method scans all trials twice at every step: quadratic at 10,000 trials.
        """

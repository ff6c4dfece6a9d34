"""How long the processes of a team have been silent: one that was stopped, or hangs, says nothing and does not end."""

from collections.abc import Mapping

from foundation import count, duration

BEAT_SECONDS = 5.0  # how often each process says that it lives
SILENT_SECONDS = 120.0  # a busy machine is no hang
START_SECONDS = 900.0  # torch may come from a slow disk, and hosts may be busy
LONGEST_TICK_SECONDS = 10.0


class Silence:
    """Counts the silence of a team's `workers` processes, and of the desk through which they are heard.

    Time is counted in ticks, none longer than `LONGEST_TICK_SECONDS`: where all stood still together, a terminal's
    Ctrl-Z or a machine that slept, none was silent.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._beats: dict[int, int] = {}
        self._seconds = dict.fromkeys(range(workers), 0.0)
        self._desk_seconds, self._desk_spoke = 0.0, False

    def after(self, seconds: float, beats: Mapping[int, int] | None) -> str | None:
        """Let so much time pass; return who has been silent for too long, in a sentence, or None.

        `beats` is how often each process has said that it lives; None while the desk has not answered.
        """
        seconds = min(seconds, LONGEST_TICK_SECONDS)
        if beats is None:
            self._desk_seconds += seconds
            if self._desk_seconds <= (SILENT_SECONDS if self._desk_spoke else START_SECONDS):
                return None
            return f"the process that leads its workers has not answered for {duration(self._desk_seconds)}"
        self._desk_seconds, self._desk_spoke = 0.0, True
        for rank in range(self.workers):
            heard = beats.get(rank, 0) != self._beats.get(rank, 0)
            self._seconds[rank] = 0.0 if heard else self._seconds[rank] + seconds
        self._beats = dict(beats)
        away = [rank for rank in range(self.workers) if rank not in beats]
        if away and self._seconds[away[0]] > START_SECONDS:
            came = f"{len(away)} of {count(self.workers, 'process')} that train it together did not start"
            return f"{came} within {duration(START_SECONDS)}"
        silent = [rank for rank in beats if self._seconds[rank] > SILENT_SECONDS]
        if not silent:
            return None
        who = f"process {silent[0] + 1} of {self.workers} that train it together"
        return f"{who} has not answered for {duration(self._seconds[silent[0]])}"

"""How long a team's processes have been silent, with the clock turned by hand."""

from cluster.silence import LONGEST_TICK_SECONDS, SILENT_SECONDS, START_SECONDS, Silence


class Team:
    """A team whose processes beat, or not."""

    def __init__(self, *ranks: int, workers: int = 2) -> None:
        self.silence = Silence(workers)
        self.beats = dict.fromkeys(ranks, 1)
        self.silence.after(0.0, self.beats)

    def wait(self, seconds: float, *beating: int, desk: bool = True) -> str | None:
        """Let time pass in ticks of 5 s until something is said."""
        for _ in range(int(seconds / 5)):
            for rank in beating:
                self.beats[rank] = self.beats.get(rank, 0) + 1
            if said := self.silence.after(5.0, self.beats if desk else None):
                return said
        return None


def test_who_beats_is_never_silent() -> None:
    assert Team(0, 1).wait(10 * START_SECONDS, 0, 1) is None


def test_a_process_that_stops_is_named_after_two_minutes() -> None:
    team = Team(0, 1)
    assert team.wait(SILENT_SECONDS, 0) is None
    assert team.wait(5, 0) == "process 2 of 2 that train it together has not answered for 2 min"
    team.wait(5, 0, 1)
    assert team.wait(SILENT_SECONDS, 0) is None  # it had spoken again


def test_processes_that_never_start_are_waited_for_for_a_quarter_of_an_hour() -> None:
    team = Team(0, workers=3)
    assert team.wait(START_SECONDS, 0) is None
    assert team.wait(5, 0) == "2 of 3 processes that train it together did not start within 15 min"


def test_a_desk_that_stops_is_said_and_one_that_starts_may_take_longer() -> None:
    team = Team(0, 1)
    assert team.wait(SILENT_SECONDS, desk=False) is None
    assert team.wait(5, desk=False) == "the process that leads its workers has not answered for 2 min"
    starting = Silence(2)
    for _ in range(int(START_SECONDS / 5)):
        assert starting.after(5.0, None) is None
    assert starting.after(5.0, None) == "the process that leads its workers has not answered for 15 min"


def test_where_all_stood_still_none_was_silent() -> None:
    team = Team(0, 1)
    assert team.silence.after(8 * 3600.0, team.beats) is None
    assert team.wait(SILENT_SECONDS - LONGEST_TICK_SECONDS) is None
    assert team.wait(5) is not None

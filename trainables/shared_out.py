"""Work on the rows of a listing that this host's threads and other hosts take from one list, each when it is free.

Nobody waits for another host: when nothing else is left, this one does what others still have, and their answers come
too late. So a host that is slow or dies costs no more than what it was given last.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from foundation import count
from trainables.files import CannotHelp

# What a host makes travels to this one through the network, which carries no more than some twenty hosts' pixels.
MOST_HOSTS = 16
AT_ONCE = 2  # that a host works on: what one made travels while it works on the other
_REFUSALS = 3  # in a row, after which a host is asked no more
_LONGEST_REASON = 300  # characters: what Ray says of a process that died can be a page
T = TypeVar("T")
A = TypeVar("A")


class Host(Protocol):
    """Another host, some cores of which are ours; `run` may be called from many threads at once."""

    @property
    def name(self) -> str:
        """Return what users call it."""

    @property
    def cores(self) -> int:
        """Return how many threads it may use."""

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function of a module gives there; raises what it raises, or `ConnectionError`."""


@dataclass(frozen=True)
class Helpers:
    """Who may help: `hosts()` gives the other hosts for as long as its context lasts, `tell` takes a sentence."""

    hosts: Callable[[], AbstractContextManager[Sequence[Host]]]
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Pace:
    """How this host works: `step` rows at a time on so many threads; `threaded` where several are worth it."""

    step: int
    threads: int
    threaded: bool


@dataclass(frozen=True)
class Share(Generic[A]):
    """How other hosts do a part of the work, at most `most_rows` rows at a time.

    `prove(host)` raises `CannotHelp` unless a host does exactly what this one would; `ask(host, rows, pace)` returns
    what it makes of some rows, or raises `CannotHelp`.
    """

    helpers: Helpers
    most_rows: int
    prove: Callable[[Host], None]
    ask: Callable[[Host, range, Pace], A]


class Work(Generic[T]):
    """Which rows are to be done yet, who has which, and what was made of the others; for many threads."""

    def __init__(self, rows: range) -> None:
        self.results: dict[range, tuple[str, list[T]]] = {}  # with the name of the host that made them, "" for this one
        self.reasons: dict[str, str] = {}  # why a host did not do something, the first of each, by its name
        self._left = [rows]  # that nobody has, in the order of their rows but for those given back
        self._only_here: list[range] = []
        self._out: dict[int, range] = {}  # by the first row, in the order in which they were given out
        self._n_to_do = self._n_rows = len(rows)
        self._failed: BaseException | None = None
        self._turn = threading.Condition()

    def take(self, most: int) -> range | None:
        """Return up to so many rows for this host, None when all is done; waits where others are at the last rows.

        When all is given out, what another host has had longest is taken back.
        """
        with self._turn:
            while self._n_to_do:
                if not (self._only_here or self._left) and self._out:
                    self._only_here.append(self._out.pop(next(iter(self._out))))
                for rows in (self._only_here, self._left):
                    if rows:
                        return _cut(rows, 0, most)
                self._turn.wait()
            return None

    def give_out(self, most: int) -> range | None:
        """Return up to so many rows for another host, None when none are left."""
        with self._turn:
            if not (self._n_to_do and self._left):
                return None
            rows = _cut(self._left, -1, most)
            self._out[rows.start] = rows
            return rows

    def give_back(self, rows: range, *, only_here: bool) -> None:
        """Let others have rows that another host did not do, or this one alone."""
        with self._turn:
            if self._out.pop(rows.start, None):
                (self._only_here if only_here else self._left).append(rows)
                self._turn.notify_all()

    def came_in_time(self, rows: range) -> bool:
        """Whether what another host has made of rows is wanted: nobody else does them from now on."""
        with self._turn:
            return self._out.pop(rows.start, None) is not None

    def done(self, rows: range, results: list[T], by: str = "") -> None:
        """Note what was made of rows, and by which other host."""
        with self._turn:
            self.results[rows] = by, results
            self._n_to_do = max(0, self._n_to_do - len(rows))
            self._turn.notify_all()

    def not_done(self, by: str, reason: str) -> None:
        """Note why a host did not do something, unless a reason is known, or nothing is to be done any more."""
        with self._turn:
            if self._n_to_do:
                self.reasons.setdefault(by, " ".join(reason.split())[:_LONGEST_REASON])

    def stop(self, error: BaseException | None = None) -> None:
        """Let everyone find that nothing is to be done any more; an error is raised where the work is waited for."""
        with self._turn:
            self._failed = self._failed or error
            self._n_to_do = 0
            self._turn.notify_all()

    def progress(self) -> Iterator[int]:
        """Yield how many rows are done, again and again until all are; raises the error with which it was stopped."""
        while True:
            with self._turn:
                n_to_do = self._n_to_do
                if self._failed:
                    raise self._failed
            yield self._n_rows - n_to_do
            if not n_to_do:
                return
            with self._turn:
                while self._n_to_do == n_to_do:
                    self._turn.wait()


def _cut(ranges: list[range], at: int, most: int) -> range:
    """Take up to so many rows from the start of the first range, or from the end of the last (`at` -1)."""
    rows = ranges.pop(at)
    taken, rest = (rows[:most], rows[most:]) if at == 0 else (rows[-most:], rows[:-most])
    if rest:
        ranges.insert(0, rest) if at == 0 else ranges.append(rest)
    return taken


def share_out(
    rows: range,
    pace: Pace,
    report: Callable[[int], None],
    here: Callable[[range], T],
    share: Share[A],
    keep: Callable[[A], list[T]],
) -> list[T]:
    """Return what is made of all rows, in their order: `here` by this host's threads, and by the hosts that help.

    `keep` makes results of what a host has made. `report` is called with the row up to which it would be done, had it
    been done in order. Raises what `here`, `keep` and `hosts` raise. The user is told which hosts did how much, and why
    others did not.
    """
    work = Work[T](rows)

    def ours() -> None:
        try:
            while taken := work.take(pace.step):
                work.done(taken, [here(taken)])
        except BaseException as error:
            work.stop(error)

    with ThreadPoolExecutor(pace.threads + MOST_HOSTS * AT_ONCE) as pool:
        try:
            for _ in range(pace.threads):
                pool.submit(ours)
            with share.helpers.hosts() as hosts:
                for host in hosts[:MOST_HOSTS]:
                    for _ in range(AT_ONCE):
                        pool.submit(_theirs, host, work, pace, share, keep)
                for n_done in work.progress():
                    report(rows.start + n_done)
        finally:
            work.stop()
    for sentence in _sentences(work, rows.stop):
        share.helpers.tell(sentence)
    return [result for taken in sorted(work.results, key=lambda rows: rows.start) for result in work.results[taken][1]]


def _sentences(work: Work[T], n_images: int) -> Iterator[str]:
    """Yield what is to be said of other hosts; those with the same reason are named together."""
    done = Counter[str]()
    for rows, (by, _) in work.results.items():
        done[by] += len(rows)
    if shares := [f"{number:,} on host {name}" for name, number in sorted(done.items()) if name]:
        yield f"Of {count(n_images, 'image')}, {', '.join(shares)} were decoded, the others on this one."
    names = defaultdict(list)
    for name, reason in sorted(work.reasons.items()):
        names[reason].append(name)
    for reason, of in names.items():
        yield (
            f"{'Host' if len(of) == 1 else 'Hosts'} {', '.join(of)} did not decode all that was asked for ({reason}); "
            "it was done on this one. Hosts help where DATA has the same files under the same name."
        )


def _theirs(host: Host, work: Work[T], pace: Pace, share: Share[A], keep: Callable[[A], list[T]]) -> None:
    """Have a host do rows as long as there are any and it does them well."""
    refusals, rows = 0, None
    try:
        share.prove(host)
        while refusals < _REFUSALS and (rows := work.give_out(share.most_rows)):
            try:
                answer = share.ask(host, rows, pace)
            except CannotHelp as why:
                work.give_back(rows, only_here=True)
                work.not_done(host.name, str(why))
                refusals += 1
                continue
            refusals = 0
            if work.came_in_time(rows):
                _keep(work, rows, partial(keep, answer), host.name)
            del answer  # or it would stay in memory until the next one has come
    except Exception as error:  # whatever a host dies of, or has another version of
        if rows:
            work.give_back(rows, only_here=False)
        work.not_done(host.name, str(error) or type(error).__name__)


def _keep(work: Work[T], rows: range, kept: Callable[[], list[T]], by: str) -> None:
    try:
        work.done(rows, kept(), by)
    except BaseException as error:  # this host's own: its disk is full
        work.stop(error)

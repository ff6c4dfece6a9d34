"""The sections of the report on how the search went: the best so far, who was stopped and why, options compared."""

from collections import Counter
from typing import Any

from analysis.page import Analysis, Line, NotYet, Plot, Points, Section, Table
from analysis.scored import Scored, best, median, said, scored
from analysis.wording import MISSING, joined
from cluster.arrivals import METRICS
from foundation import count
from spaces.domains import Choice, bare, plain, same
from spaces.space import Space

# Longer tables are in trials.csv.
STOPPED_ROWS = 100
# Below so many hours, minutes are said.
FEWEST_HOURS = 2
SIDE_BY_SIDE = ("optimizer", "activation", "schedule", "batch_norm")
# `TrialRecord.ended_by`, and how people say it.
ENDINGS = {
    "epochs": "after all epochs",
    "patience": "out of patience",
    "rung": "at a rung",
    "budget": "out of time",
    "failed": "failed",
}


def best_so_far(analysis: Analysis) -> Section | NotYet:
    """The best score so far against the number of trials and against the time of the search, and every trial."""
    trials, sound = scored(analysis), scored(analysis, "completed", "stopped")
    if not sound:
        return NotYet("no trial of the search has a score: none finished an epoch, or those that did failed")
    winner = best(sound)
    later = sum(trial.row["trial"] > winner.row["trial"] for trial in sound)
    sentences = [
        f"The best {winner.metric} is {said(winner.metric, winner.score)}, that of {winner.name} "
        f"({winner.row['architecture']}, {winner.group}); {count(later, 'trial')} after it found nothing better."
    ]
    if unscored := len(analysis["search"]["trials"]) - len(trials):
        sentences.append(f"Not drawn: {count(unscored, 'trial')} without a finished epoch.")
    figures = [_course(trials, [float(trial.row["trial"]) for trial in trials], "trial")]
    seconds = [trial.row["ended_after"] for trial in trials]
    hours = max(seconds) >= 3600 * FEWEST_HOURS
    unit, name = (3600, "hours of search") if hours else (60, "minutes of search")
    figures.append(_course(trials, [each / unit for each in seconds], name))
    return Section(tuple(sentences), figures=tuple(figures))


def _course(trials: list[Scored], x: list[float], x_title: str) -> Plot:
    """Return the trials at their places `x`, in the same order, under the best of them so far."""
    steps: list[tuple[float, Scored]] = []
    for at, trial in sorted(zip(x, trials, strict=True), key=lambda pair: pair[0]):
        if trial.group != "failed" and (not steps or trial.rank > steps[-1][1].rank):
            steps.append((at, trial))
    ends = [at for at, _ in steps] + [max(x)]
    scores = [trial.score for _, trial in steps]
    points = []
    for group in ("completed", "stopped", "failed"):
        of_group = [(at, trial) for at, trial in zip(x, trials, strict=True) if trial.group == group]
        if of_group:
            places, found = zip(*of_group, strict=True)
            points.append(_points(group, group, places, found))
    order = "in the order of their numbers" if x_title == "trial" else "when they ended, pauses left out"
    return Plot(
        title="",
        x_title=x_title,
        y_title=trials[0].metric,
        lines=(Line("best so far", "best", tuple(ends), (*scores, scores[-1]), stepped=True),),
        points=tuple(points),
        sentence=f"Trials {order}: each dot is one (1 run) at its best epoch, the line the best of them so far, failed "
        "ones left out.",
    )


def _points(name: str, group: str, x: tuple[float | str, ...], trials: tuple[Scored, ...]) -> Points:
    return Points(name, group, x, tuple(trial.score for trial in trials), tuple(trial.text for trial in trials))


def stopped_trials(analysis: Analysis) -> Section | NotYet:
    """How many trials each rung judged and stopped, what ended the others, and why each one was stopped."""
    search = analysis.get("search") or {}
    ended = [trial for trial in search.get("trials") or [] if trial["ended_by"]]
    if not ended:
        return NotYet("no trial of the search has ended yet")
    causes = Counter(_ending(trial) for trial in ended)
    endings = [f"{causes[cause]} {words}" for cause, words in ENDINGS.items() if causes[cause]]
    sentences = [f"How {count(len(ended), 'trial')} ended: {joined(endings)}."]
    tables = []
    if search["rungs"]:
        sentences.append(
            "A rung compares trials of one architecture after so many epochs: one goes on if it is at or above the "
            "cutoff, the top third of those that got there before it (Li et al., 2020). The first always goes on."
        )
        if share := analysis["experiment"].get("grace_images"):
            sentences.append(
                f"Up to the first rung each epoch was trained on {100 * share:.0f} % of the training images "
                "(--grace-images); what was retrained for the comparison saw all of them in every epoch."
            )
        tables.append(_rungs(search["rungs"]))
    else:
        sentences.append(f"{analysis['experiment']['method']} has judged no trial at a rung.")
    tables.append(_endings(ended))
    stopped = sorted((trial for trial in ended if trial["status"] == "stopped"), key=lambda trial: trial["trial"])
    if len(stopped) > STOPPED_ROWS:
        sentences.append(f"The first {STOPPED_ROWS} of {len(stopped):,} stopped trials; trials.csv has all of them.")
    if stopped:
        tables.append(_stopped(stopped[:STOPPED_ROWS]))
    return Section(tuple(sentences), tables=tuple(tables))


def _rungs(rows: list[dict[str, Any]]) -> Table:
    header = ("architecture", "rung (epoch)", "judged", "went on", "stopped", "last decision there")
    columns = ("architecture", "epoch", "judged", "went_on", "stopped", "sentence")
    return Table("Rungs", header, tuple(tuple(str(row[column]) for column in columns) for row in rows))


def _endings(ended: list[dict[str, Any]]) -> Table:
    architectures = sorted({trial["architecture"] for trial in ended})
    counts = Counter((trial["architecture"], _ending(trial)) for trial in ended)
    rows = tuple(
        (name, *(str(counts[name, cause]) for cause in ENDINGS), str(sum(t["architecture"] == name for t in ended)))
        for name in architectures
    )
    header = ("architecture", *ENDINGS.values(), "all")
    return Table("How trials ended", header, rows)


def _stopped(trials: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (str(trial["trial"]), trial["architecture"], _at(trial), trial["stop_reason"] or "") for trial in trials
    )
    return Table("Stopped trials", ("trial", "architecture", "stopped", "why"), rows)


def _at(trial: dict[str, Any]) -> str:
    return f"at rung {trial['rung']}" if trial["ended_by"] == "rung" else f"after {count(trial['epochs_run'], 'epoch')}"


def _ending(trial: dict[str, Any]) -> str:
    return trial["ended_by"] if trial["ended_by"] in ENDINGS else "failed"


def side_by_side(analysis: Analysis) -> Section | NotYet:
    """The scores of the trials by optimizer, activation and the like: how many, the median, the best, the spread."""
    trials = scored(analysis, "completed", "stopped")
    rows: list[tuple[str, ...]] = []
    figures = []
    for architecture, knobs in analysis["experiment"]["spaces"].items():
        space = Space.from_rows(knobs)
        own = [trial for trial in trials if trial.row["architecture"] == architecture]
        for knob in (knob for knob in SIDE_BY_SIDE if knob in space.knobs):
            options = _by_option(space, knob, own)
            if sum(map(bool, options.values())) > 1:
                figures.append(_strips(architecture, knob, {option: of for option, of in options.items() if of}))
                rows += [(architecture, knob, *_option_row(option, of)) for option, of in options.items()]
    if not figures:
        return NotYet("not enough trials: of no architecture were two optimizers, activations or schedules tried")
    tpe = str(analysis["experiment"]["method"]).startswith("tpe")
    uneven = "TPE does not sample evenly: what looked good was tried more often, beside other good values. "
    sentences = (
        f"{trials[0].metric} of each trial (1 run) at its best epoch, of those that were stopped too.",
        f"{uneven if tpe else ''}All other hyperparameters differ as well, so these are no controlled comparisons: "
        "`convscout analyze RUN --ablate optimizer` makes one.",
    )
    header = ("architecture", "hyperparameter", "option", "trials", "to the end", "median", "best", "best trial")
    return Section(sentences, figures=tuple(figures), tables=(Table("", header, tuple(rows)),))


def _by_option(space: Space, knob: str, trials: list[Scored]) -> dict[str, list[Scored]]:
    domain = bare(space.knobs[knob].domain)
    options = domain.options if isinstance(domain, Choice) else ()
    having = [trial for trial in trials if knob in trial.config]
    return {plain(option): [each for each in having if same(each.config[knob], option)] for option in options}


def _strips(architecture: str, knob: str, options: dict[str, list[Scored]]) -> Plot:
    """Return the trials of each option beside one another, and the medians."""
    points = []
    for group, name in (("completed", "ran to the end"), ("stopped", "stopped")):
        found = [(option, trial) for option, trials in options.items() for trial in trials if trial.group == group]
        if found:
            points.append(_points(name, group, *zip(*found, strict=True)))
    medians = {option: median(trials) for option, trials in options.items()}
    winner = best([trial for trials in options.values() for trial in trials])
    leading = max(medians, key=lambda option: METRICS[winner.metric] * medians[option])
    texts = tuple(f"median of {option}: {said(winner.metric, value)}" for option, value in medians.items())
    points.append(Points("median", "median", tuple(medians), tuple(medians.values()), texts))
    score = said(winner.metric, medians[leading])
    return Plot(
        title=f"{architecture}: {knob}",
        x_title="",
        y_title=winner.metric,
        points=tuple(points),
        categories=tuple(options),
        sentence=f"Dots are trials, bars the medians of the options. {leading} has the best median, {score} "
        f"(n = {len(options[leading])}); {plain(winner.config[knob])} the best trial, "
        f"{said(winner.metric, winner.score)}.",
    )


def _option_row(option: str, trials: list[Scored]) -> tuple[str, ...]:
    if not trials:
        return (option, "0", "0", MISSING, MISSING, MISSING)
    winner, to_the_end = best(trials), sum(trial.group == "completed" for trial in trials)
    figures = (said(winner.metric, median(trials)), said(winner.metric, winner.score), str(winner.row["trial"]))
    return (option, str(len(trials)), str(to_the_end), *figures)

"""One row that did not stick, in words: what the first page shows as plain HTML and the script fills in for the rest.

Rows that could not be asked are put into words too; they are shown where they are asked for.

Everything is put into words here, once. The script of the page only sets texts, so that a row reads the same whether
the template or the script wrote it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whatstuck.report.causes import NAMES, ORDER, numeral, titled
from whatstuck.report.metrics import Stat, known
from whatstuck.report.reading_rows import NOT_ASKED, Moment, Record, RowsRun
from whatstuck.report.sparkline import Sparkline
from whatstuck.report.words import counted, listed, measured, number, percent

SORTS = (
    "the most severe first",
    "order in the file",
    "largest loss",
    "least often right",
    "trained on longest ago",
    "cause",
)
STATUS = {"present": "speaks for it", "absent": "no", "not_measured": "not measured"}


@dataclass(frozen=True, slots=True)
class Item:
    """A line inside a row: a piece of evidence, or a neighbour in conflict."""

    style: str
    slots: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """A row in words.

    Attributes:
        cause: Its primary cause, which is also its CSS class; `not_asked` where it could not be asked.
        verdict: `unlearned`, `unstable` or `not_asked`.
        slots: Texts by the name of their place; an empty one is not shown.
        paths: Path data of the sparkline, by the name of the path.
        items: Lists inside the row: `evidence` and `neighbours`.
        sorts: For each of `SORTS`, the number that the row is sorted by, ascending; None goes last.
    """

    cause: str
    verdict: str
    slots: Mapping[str, str]
    paths: Mapping[str, str]
    items: Mapping[str, Sequence[Item]]
    sorts: tuple[float | None, ...]


def views(run: RowsRun, *, text: bool, longest: int) -> list[View]:
    """Put every row into words: those that did not stick, then those that could not be asked.

    Args:
        run: The run.
        text: Whether to show texts; without, the row is known by its place in the file only.
        longest: Characters of a text that are shown.
    """
    sparkline = Sparkline(run.steps)
    rows = (*run.found, *run.not_asked)
    return [_view(run, row, rank, sparkline, text=text, longest=longest) for rank, row in enumerate(rows)]


def _view(run: RowsRun, row: Record, rank: int, sparkline: Sparkline, *, text: bool, longest: int) -> View:
    moments = run.moments.get(row["row_id"], ())
    cause, place = str(row["cause"] or NOT_ASKED), row["source_index"]
    nll, rate, seen = known(row["nll"]), known(row["rate"]), row["last_exposure_step"]
    said = {
        "place": _place(place),
        "numeral": "–" if cause == NOT_ASKED else numeral(cause),
        "cause": "could not be asked" if cause == NOT_ASKED else NAMES.get(cause, cause),
        "verdict": str(row["verdict"]).replace("_", " "),
        "short": _short(row),
        "outcome": _outcome(row),
        "doubt": _doubt(row),
        "history": _history(run.steps, moments, row),
    }
    if text:
        said |= {
            "prompt": cut(row["prompt"], longest),
            "gold": cut(row["gold"], longest),
            "answer": cut(row["greedy"], longest),
            "wrong": _wrong(row, longest),
            "advice": str(row["advice"] or ""),
        }
    return View(
        cause=cause,
        verdict=str(row["verdict"]),
        slots=said,
        paths=sparkline.paths(moments, seen),
        items={"evidence": _evidence(row, text=text), "neighbours": _neighbours(run, row, longest, text=text)},
        sorts=(
            rank,
            place,
            None if nll is None else -round(nll, 4),
            None if rate is None else round(rate, 4),
            seen,
            ORDER.index(cause) if cause in ORDER else len(ORDER),
        ),
    )


def cut(text: str | None, longest: int) -> str:
    """A text, shortened where it is too long to be shown.

    >>> cut("a long text", 6), cut(None, 6)
    ('a long…', '')
    """
    text = text or ""
    return text if len(text) <= longest else f"{text[:longest]}…"


def _place(index: int | None) -> str:
    return "Row" if index is None else f"Row {index + 1}"


def _outcome(row: Record) -> str:
    """What the finished model answers."""
    if row["verdict"] == NOT_ASKED:
        return f"It could not be asked: {row['not_asked'] or 'no reason is given'}."
    rate = Stat(known(row["rate"]), known(row["rate_low"]), known(row["rate_high"]))
    likeliest = {True: " The likeliest answer is right.", False: " The likeliest answer is wrong."}
    greedy = likeliest.get(row["greedy_right"], "")
    if row["form"] == "choices":
        letters = known(row["letters"])
        said = f"Of the answers put before it, the right one has a probability of {measured(rate, share=True)}.{greedy}"
        return said if letters is None else f"{said} Asked for its letter, {percent(letters)}."
    if not row["samples"]:
        return "It was not asked."
    return f"{row['right']} of {counted(row['samples'], 'answer')} right: {measured(rate, share=True)}.{greedy}"


def _short(row: Record) -> str:
    if row["verdict"] == NOT_ASKED:
        return ""
    if row["form"] == "choices":
        return percent(known(row["rate"]))
    return f"{row['right']} of {row['samples']}" if row["samples"] else ""


def _wrong(row: Record, longest: int) -> str:
    if not row["top_wrong"]:
        return ""
    return f"{cut(row['top_wrong'], longest)} ({percent(known(row['top_wrong_share']))} of its answers)"


def _doubt(row: Record) -> str:
    """What speaks against the cause that is named, or against the verdict."""
    parts = []
    if row["secondary"]:
        parts.append(f"Also: {listed(titled(cause) for cause in row['secondary'])}.")
    if row["ambiguous"]:
        parts.append("The first two causes are close; which one is primary is not clear.")
    if row["paper_cause"] and row["paper_cause"] != row["cause"]:
        parts.append(f"In the order that the paper prints: {titled(row['paper_cause'])}.")
    if row["verdict"] == "unlearned" and row["paper_unlearned"] is False:
        parts.append("By the paper's rule it is learned.")
    return " ".join(parts)


def _history(steps: Sequence[int], moments: Sequence[Moment | None], row: Record) -> str:
    """The trajectory in words, for those who do not see the picture."""
    seen = [(step, moment) for step, moment in zip(steps, moments, strict=False) if moment is not None]
    losses = [(moment.nll, step) for step, moment in seen if moment.nll is not None]
    parts = []
    if losses:
        parts.append(f"Loss {listed(_turns(losses), last='and then')} (nats per token)")
        right = [step for step, moment in seen if moment.right]
        when = f", last at step {right[-1]}" if right else ""
        parts.append(f"right at {len(right)} of {counted(len(seen), 'checkpoint')}{when}")
    if row["exposures"] is not None:
        last = row["last_exposure_step"]
        times = f"trained on {counted(row['exposures'], 'time')}" if row["exposures"] else "never trained on"
        parts.append(times + (f", last at step {last}" if last is not None else ""))
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}." if parts else ""


def _turns(losses: Sequence[tuple[float, int]]) -> list[str]:
    """First, least and last loss with their steps, each once."""
    picked = {step: loss for loss, step in (losses[0], min(losses), losses[-1])}
    return [f"{number(loss)} at step {step}" for step, loss in sorted(picked.items())]


def _evidence(row: Record, *, text: bool) -> list[Item]:
    order = {cause: place for place, cause in enumerate(ORDER)}
    entries = sorted(row["evidence"] or (), key=lambda entry: order.get(entry["cause"], len(order)))
    return [
        Item(
            str(entry["status"]),
            {
                "name": titled(entry["cause"]),
                "status": STATUS.get(entry["status"], str(entry["status"])),
                "sentence": str(entry["sentence"] or "") if text else "",
            },
        )
        for entry in entries
    ]


def _neighbours(run: RowsRun, row: Record, longest: int, *, text: bool) -> list[Item]:
    return [
        Item(
            "neighbour",
            {
                "name": _place(run.places.get(neighbour["row_id"])),
                "gold": cut(neighbour["gold"], longest) if text else "",
                "similarity": f"similarity {number(known(neighbour['similarity']))}",
            },
        )
        for neighbour in row["neighbours"] or ()
    ]

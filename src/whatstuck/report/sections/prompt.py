"""One prompt taken apart: its words, and what they do together before and after."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from whatstuck.report.bars import Span, before_after
from whatstuck.report.metrics import MAIN_TAU
from whatstuck.report.reading import Effect, Row, Run
from whatstuck.report.words import NEXT_TO_NOTHING, PLAIN_NAMES, counted, number, pushes

MOST_ROWS = 3
MOST_EFFECTS = 8
WIDEST = 2.0  # ranges are cut where they are this many times as long as the longest bar
LONGEST = 600  # characters of a stretch without players that are shown

Effects = Mapping[tuple[str, int], Effect]


def build(run: Run, *, text: bool) -> dict[str, Any]:
    """The rows that changed most; empty where no interactions are there to show."""
    base = run.metrics.series("scale").get(run.before)
    later = run.metrics.series("scale").get(run.after)
    if base is None or base.value is None or run.before == run.after:
        return {"rows": [], "single": run.before == run.after}
    taus = (MAIN_TAU * base.value, MAIN_TAU * base.value, MAIN_TAU * (later or base).value)  # type: ignore[operator] # known
    chosen = _changed_most(run)
    return {
        "single": False,
        "before": run.before,
        "after": run.after,
        "kept": run.after == run.kept,
        "tau": number(taus[0]),
        "text": text,
        "ranged": {run.before, run.after} <= run.range_floors.keys(),
        "rows": [_taken_apart(run, row, rank, taus, text=text) for rank, row in enumerate(chosen)],
    }


def _of(run: Run, step: int, row: Row) -> dict[tuple[str, int], Effect]:
    effects = run.effects.get(step, {}).get(row.row_id, ())
    return {(effect.kind, effect.mask): effect for effect in effects}


def _change(run: Run, row: Row) -> float:
    """Sum of |I_after - I_before|: how much of this row's inference is another one now, in log-odds."""
    before, after = _of(run, run.before, row), _of(run, run.after, row)
    return sum(abs(_value(after, key) - _value(before, key)) for key in sorted(before.keys() | after.keys()))


def _value(effects: Effects, key: tuple[str, int]) -> float:
    return effects[key].value if key in effects else 0.0


def _changed_most(run: Run) -> list[Row]:
    changes = [(-_change(run, row), row.source_index, index) for index, row in enumerate(run.rows)]
    return [run.rows[index] for change, _, index in sorted(changes)[:MOST_ROWS] if change < 0]


def _taken_apart(run: Run, row: Row, rank: int, taus: tuple[float, float, float], *, text: bool) -> dict[str, Any]:
    before, after = _of(run, run.before, row), _of(run, run.after, row)
    fixed, _, relative = taus
    sorted_keys = sorted(
        before.keys() | after.keys(), key=lambda key: (-max(abs(_value(before, key)), abs(_value(after, key))), key)
    )
    found, others = [], 0
    for key in sorted_keys:
        old, new = _value(before, key), _value(after, key)
        spans = _span(run, run.before, before.get(key)), _span(run, run.after, after.get(key))
        category = categorize(old, new, fixed, fixed)
        if category:
            found.append((key, old, new, category, categorize(old, new, fixed, relative), spans))
        elif any(span and reaches(span, fixed) != "no" for span in spans):
            others += 1
    shown = found[:MOST_EFFECTS]
    top = max((max(abs(old), abs(new)) for _, old, new, *_ in found), default=1.0)
    ends = [abs(end) for *_, spans in shown for span in spans if span for end in span]
    top = max([top, *(min(end, WIDEST * top) for end in ends)])
    words = [player[2] if text else "word" for player in row.players]
    return {
        # a row id may be a user's own text
        "title": f"Row {row.source_index + 1} of the data",
        "change": number(_change(run, row)),
        "prompt": highlighted(row) if text else None,
        "target": row.target if text else None,
        "players": len(row.players),
        "left_out": max(0, len(found) - MOST_EFFECTS),
        "others": counted(others, "more interaction") if others else "",
        "effects": [
            {
                "sentence": pushes(_named(words, mask), kind, old, new, category),
                "category": category,
                "label": PLAIN_NAMES[category],
                "kind": "one word" if mask.bit_count() == 1 else kind.upper(),
                "certain": certainty(spans, fixed),
                "range": _ranges(spans),
                "otherwise": _otherwise(category, relatively),
                "figure": before_after(old, new, category=category, top=top, name=f"row-{rank}-{index}", ranges=spans),
            }
            for index, ((kind, mask), old, new, category, relatively, spans) in enumerate(shown)
        ],
    }


def _span(run: Run, step: int, effect: Effect | None) -> Span | None:
    """The range of an interaction; what is not listed is 0 within the floor. None where no range is known."""
    if step not in run.range_floors:
        return None
    if effect is None:
        return (-run.range_floors[step], run.range_floors[step])
    return (effect.low, effect.high) if effect.low is not None and effect.high is not None else None


def reaches(span: Span, tau: float) -> str:
    """Whether a range lies beyond the threshold: `yes`, `no` or `unknown`.

    >>> reaches((0.2, 0.3), 0.1), reaches((-0.1, 0.1), 0.1), reaches((0.0, 0.3), 0.1)
    ('yes', 'no', 'unknown')
    """
    low, high = span
    if low > tau or high < -tau:
        return "yes"
    return "no" if -tau <= low and high <= tau else "unknown"


def certainty(spans: tuple[Span | None, Span | None], tau: float) -> str:
    """Whether a category, which rests on both steps, holds for the whole ranges: `certain`, `possible`, or empty."""
    before, after = spans
    if before is None or after is None:
        return ""
    return "possible" if "unknown" in (reaches(before, tau), reaches(after, tau)) else "certain"


def _ranges(spans: tuple[Span | None, Span | None]) -> str:
    said = []
    for when, span in zip(("before", "now"), spans, strict=True):
        if span is not None:
            tiny = max(map(abs, span)) < NEXT_TO_NOTHING
            ends = f"{number(span[0], signed=True)} to {number(span[1], signed=True)}"
            said.append(f"{when} {'next to nothing' if tiny else ends}")
    return f"Range {', '.join(said)}." if said else ""


def categorize(before: float, after: float, tau_before: float, tau_after: float) -> str:
    """Membership of one interaction, from two checkpoints alone; empty if it is salient at neither.

    >>> categorize(1.0, 0.0, 0.1, 0.1), categorize(1.0, -1.0, 0.1, 0.1), categorize(0.05, 0.05, 0.1, 0.1)
    ('removed', 'sign_changed', '')
    """
    was, is_now = abs(before) > tau_before, abs(after) > tau_after
    if was and is_now:
        return "preserved" if (before > 0) == (after > 0) else "sign_changed"
    return "removed" if was else "emerged" if is_now else ""


def _otherwise(category: str, relatively: str) -> str:
    """What the relative threshold says, where it says something else."""
    if relatively == category:
        return ""
    return f"relative rule: {PLAIN_NAMES.get(relatively, 'below the threshold')}"


def _named(words: list[str], mask: int) -> list[tuple[str, int]]:
    return [(word, index + 1) for index, word in enumerate(words) if mask >> index & 1]


def highlighted(row: Row) -> Markup:
    """The prompt with its players marked; spans that do not fit it are passed over, long stretches shortened."""
    parts, position = [], 0
    for index, (start, end, _) in sorted(enumerate(row.players), key=lambda entry: entry[1][0]):
        if position <= start < end <= len(row.prompt):
            parts.append(_background(row.prompt[position:start]))
            mark = Markup("<mark><bdi>{}</bdi><sup>{}</sup></mark>")
            parts.append(mark.format(row.prompt[start:end], index + 1))
            position = end
    parts.append(_background(row.prompt[position:]))
    return Markup("").join(parts)


def _background(stretch: str) -> Markup:
    if len(stretch) <= LONGEST:
        return Markup("{}").format(stretch)
    half = LONGEST // 2
    gap = Markup("<i> … {} characters … </i>").format(f"{len(stretch) - 2 * half:,}")
    return Markup("{}{}{}").format(stretch[:half], gap, stretch[-half:])

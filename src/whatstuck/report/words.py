"""Numbers and sentences for people: two or three digits, real minus signs, never "nan"."""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from whatstuck.report.metrics import Stat

UNKNOWN = "not known"
PLAIN_NAMES = {
    "all": "all",
    "removed": "removed",
    "preserved": "preserved",
    "emerged": "emerged",
    "sign_changed": "sign changed",
}
RULES = {"relative": "relative threshold", "fixed": "fixed threshold"}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NEXT_TO_NOTHING = 0.005  # log-odds

_TINY, _HUGE = 1e-3, 1e6


def number(value: float | None, *, signed: bool = False) -> str:
    """A number with two or three digits that count.

    >>> [number(x) for x in (0, 0.0421, 1.234, 56.78, 1234.5, -0.5, 3.2e-7, None)]
    ['0', '0.042', '1.23', '56.8', '1,234', '−0.5', '3.2 × 10⁻⁷', 'not known']
    >>> number(0.5, signed=True)
    '+0.5'
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    size = abs(value)
    if size == 0:
        return "0"
    if size < _TINY or size >= _HUGE:
        digits, exponent = f"{size:.1e}".split("e")
        return f"{sign}{digits.removesuffix('.0')} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    decimals = max(0, 2 - math.floor(math.log10(size))) if size >= 1 else 1 - math.floor(math.log10(size))
    text = f"{size:,.{decimals}f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def percent(value: float | None) -> str:
    """A share in percent.

    >>> [percent(x) for x in (0.0, 0.0042, 0.021, 0.49, 1.0, None)]
    ['0 %', '0.42 %', '2.1 %', '49 %', '100 %', 'not known']
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value) * 100
    text = f"{size:.0f}" if size >= 10 else f"{size:.1f}".removesuffix(".0") if size >= 1 else number(size)  # noqa: PLR2004 - two digits
    return ("−" if value < 0 and text != "0" else "") + f"{text} %"


def measured(stat: Stat | None, unit: str = "", *, share: bool = False) -> str:
    """A value with its interval.

    >>> measured(Stat(1.5, 1.2, 1.9), "nats")
    '1.5 nats (1.2 to 1.9)'
    >>> measured(Stat(0.5, None, None), share=True)
    '50 % (no interval)'
    """
    if stat is None or stat.value is None:
        return UNKNOWN
    show = percent if share else number
    value = f"{show(stat.value)} {unit}".strip()
    if stat.low is None or stat.high is None:
        return f"{value} (no interval)"
    return f"{value} ({show(stat.low).removesuffix(' %')} to {show(stat.high).removesuffix(' %')})"


def difference(stat: Stat) -> str:
    """A difference with its interval; every number says its direction.

    >>> difference(Stat(0.18, -0.02, 0.38))
    '+0.18 (−0.02 to +0.38)'
    """
    value = number(stat.value, signed=True)
    if stat.low is None or stat.high is None:
        return f"{value} (no interval)"
    return f"{value} ({number(stat.low, signed=True)} to {number(stat.high, signed=True)})"


def listed(items: Iterable[object], *, last: str = "and") -> str:
    """Items in a sentence.

    >>> listed([1, 2, 3]), listed(["a"]), listed([])
    ('1, 2 and 3', 'a', '')
    """
    words = [str(item) for item in items]
    if len(words) < 2:  # noqa: PLR2004 - nothing to join
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(20, "row")
    ('1 row', '20 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def mass_changes(changes: Mapping[int, Stat], steps: Sequence[int], subset: str) -> str:
    """Whether a mass changes outside its interval from one checkpoint to the next.

    Args:
        changes: By step, the change since the checkpoint before, with its paired interval.
        steps: All steps, ascending.
        subset: `removed` or `emerged`.
    """
    before = dict(zip(steps[1:], steps, strict=False))
    known = {step: stat for step, stat in changes.items() if step in before and stat.low is not None}
    if not known:
        return f"{subset.capitalize()} mass: no interval for its changes (it takes two checkpoints and two rows)."
    rises = [(before[step], step) for step, stat in known.items() if stat.low is not None and stat.low > 0]
    falls = [(before[step], step) for step, stat in known.items() if stat.high is not None and stat.high < 0]
    moves = (("rises", rises), ("falls", falls))
    parts = [f"{verb} over steps {listed(_chained(pairs))}" for verb, pairs in moves if pairs]
    if not parts:
        return f"Changes of {subset} mass outside their interval, between any two checkpoints: none seen."
    rest = "" if len(rises) + len(falls) == len(known) else "; elsewhere none seen"
    return f"{subset.capitalize()} mass {listed(parts)}, each time outside its interval{rest}."


def _chained(pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Steps that follow each other, written as one chain; an arrow stays on the line of the step before it.

    >>> [" ".join(chain.split()) for chain in _chained([(0, 1), (1, 2), (8, 16)])]
    ['0 → 1 → 2', '8 → 16']
    """
    chains: list[list[int]] = []
    for start, end in pairs:
        if chains and chains[-1][-1] == start:
            chains[-1].append(end)
        else:
            chains.append([start, end])
    return ["\xa0→ ".join(str(step) for step in chain) for chain in chains]


def larger(removed: Stat | None, emerged: Stat | None) -> str:
    """Which of two means is larger, as far as their intervals tell: `removed`, `emerged`, `unclear` or ``."""
    if removed is None or emerged is None or removed.value is None or emerged.value is None:
        return ""
    if None in (removed.low, removed.high, emerged.low, emerged.high):
        return "unclear"
    if removed.low > emerged.high:  # type: ignore[operator] # None is excluded above
        return "removed"
    if emerged.low > removed.high:  # type: ignore[operator] # None is excluded above
        return "emerged"
    return "unclear"


def rules_agree(relations: Mapping[str, str]) -> str:
    """What removed against emerged looks like under the relative rule, the fixed rule and without a threshold.

    Args:
        relations: For `relative`, `fixed` and `none` what `larger` says.
    """
    relative, fixed, free = (relations.get(rule, "") for rule in ("relative", "fixed", "none"))
    if not relative or not fixed:
        return "Removed and emerged cannot be compared under both threshold rules here."
    names = {"removed": "more is removed than emerges", "emerged": "more emerges than is removed"}
    without = {
        "removed": "Without a threshold the removed mass is larger.",
        "emerged": "Without a threshold the emerged mass is larger.",
        "unclear": "Without a threshold the intervals of the two masses overlap.",
        "": "",
    }[free]
    if relative == fixed == "unclear":
        text = "Under both rules the intervals of removed and emerged overlap: neither is seen to be larger."
    elif relative == fixed:
        text = f"Under both rules {names[relative]}."
    elif "unclear" in (relative, fixed):
        rule, other = ("relative", "fixed") if fixed == "unclear" else ("fixed", "relative")
        text = f"Under the {rule} rule only, {names[relations[rule]]}; under the {other} rule the intervals overlap."
    else:
        text = (
            f"The two rules say opposite things: under the relative rule {names[relative]}, under the fixed rule "
            f"{names[fixed]}. Neither is a finding on its own."
        )
    return f"{text} {without}".strip()


def against_null(stat: Stat | None) -> str:
    """Where a value lies beside its null: `above`, `below`, `inside`, or `` where one of them is not known."""
    if stat is None or stat.value is None or stat.null_low is None or stat.null_high is None:
        return ""
    return "above" if stat.value > stat.null_high else "below" if stat.value < stat.null_low else "inside"


RHO_WORDS = {
    "above": "cancels less than random signs would",
    "below": "cancels more than random signs would",
    "inside": "cancels as random signs would",
    "": "has no null to compare with",
}
MASS_WORDS = {
    "above": "more than beside another row's step 0",
    "below": "less than beside another row's step 0: something of its own is left",
    "inside": "no less than beside another row's step 0: nothing of its own is seen to be left",
    "": "no null to compare with",
}
GAMMA_WORDS = {
    "above": "more is shared than by chance",
    "below": "less is shared than by chance",
    "inside": "no more is shared than by chance",
    "": "no null to compare with",
}


def quoted(words: Sequence[tuple[str, int]], *, last: str) -> Markup:
    """Words of a prompt and their numbers in a sentence, escaped, each in its own direction of writing."""
    marked = [Markup("<b class='word' dir='auto'>{}</b><sup>{}</sup>").format(word, place) for word, place in words]
    if len(marked) == 1:
        return marked[0]
    return Markup(", ").join(marked[:-1]) + Markup(" {} ").format(last) + marked[-1]


def pushes(words: Sequence[tuple[str, int]], kind: str, before: float, after: float, category: str) -> Markup:
    """One interaction in plain language.

    Args:
        words: The words of its coalition, each with its number in the prompt (a word may stand there twice).
        kind: `and` or `or`.
        before: The interaction at the first checkpoint, in log-odds; 0 where it is not there.
        after: The interaction at the checkpoint compared.
        category: `removed`, `preserved`, `emerged` or `sign_changed`.
    """
    subject, verb = _subject(words, kind)
    now = _pushed(f"{verb} {_towards(after)}", after)
    past = _pushed(f"pushed {_towards(before)}", before)
    if category == "removed":
        text = Markup("before training, {} {}; now {}").format(subject, past, _little(after))
    elif category == "emerged":
        text = Markup("{} {}; before training {}").format(subject, now, _little(before))
    elif category == "sign_changed":
        text = Markup("{} {}; before training {}").format(subject, now, past)
    else:
        text = Markup("{} {}; before training {}").format(subject, now, number(before, signed=True))
    return text[:1].upper() + text[1:] + "."


def _subject(words: Sequence[tuple[str, int]], kind: str) -> tuple[Markup, str]:
    if len(words) == 1:
        return quoted(words, last="") + " alone", "pushes"
    if kind == "and":
        return quoted(words, last="and") + " together", "push"
    return Markup("any one of ") + quoted(words, last="or"), "pushes"


def _pushed(what: str, value: float) -> str:
    return f"{what} ({number(value, signed=True)} log-odds)"


def _towards(value: float) -> str:
    return "towards the answer" if value > 0 else "away from the answer"


def _little(value: float) -> str:
    if abs(value) < NEXT_TO_NOTHING:
        return "nothing" if value == 0 else "next to nothing"
    return f"{number(value, signed=True)}, below the threshold"

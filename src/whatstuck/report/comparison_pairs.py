"""One pair of compared runs in words, in two bars and in tables: what both kept, what only one, what emerged."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from whatstuck.report.comparison_bars import mass_bars
from whatstuck.report.metrics import Stat
from whatstuck.report.words import UNKNOWN, against_null, counted, listed, measured, number, percent, quoted

STYLES = 6  # colours and dashes of runs; a seventh run looks like the first
ROUNDING = 1e-3  # two explanations of one model that differ by less are one

Json = Mapping[str, Any]


def letter(index: int) -> str:
    """The short name of a run on the page.

    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', 'R27')
    """
    return chr(ord("A") + index) if index < 26 else f"R{index + 1}"  # noqa: PLR2004 - the alphabet


def style_of(index: int) -> str:
    """CSS class of a run's colour and dash."""
    return f"run-{index % STYLES}"


def stat(record: Json | None) -> Stat:
    """A number as the figures and words take it; None is nothing known."""
    known = record or {}
    return Stat(
        known.get("value"),
        known.get("low"),
        known.get("high"),
        null_mean=known.get("null_mean"),
        null_low=known.get("null_low"),
        null_high=known.get("null_high"),
    )


def heldout_findings(pairs: Sequence[Json]) -> list[str]:
    """Which run is better on held-out rows, as far as paired intervals tell; of many pairs only those that differ."""
    said = [finding for pair in pairs for finding in _heldout_findings(pair)]
    doubts = list(dict.fromkeys(doubt for pair in pairs for doubt in _doubts(pair)))
    if len(pairs) == 1:
        return [text for text, _ in said] + doubts
    unknown = [pair for pair in pairs if pair["heldout"]["loss"] is None]
    apart = [text for text, differs in said if differs]
    if not apart and len(unknown) < len(pairs):
        apart = [f"On held-out rows{'' if doubts else ' that had no say in any choice'} no two runs can be told apart."]
    apart += doubts
    if unknown:
        count = f"{len(unknown)} of {len(pairs)}" if len(unknown) < len(pairs) else "all"
        apart.append(f"Held-out loss cannot be compared in {count} pairs: no rows that both held out.")
    return apart


def _heldout_findings(pair: Json) -> list[tuple[str, bool]]:
    """Sentences about a pair, and whether each says that the two differ."""
    a, b, heldout = letter(pair["a"]), letter(pair["b"]), pair["heldout"]
    if heldout["loss"] is None:
        return [(heldout["note"], False)]
    where = f"on {counted(heldout['rows'], 'held-out row')}" + (
        "" if _doubts(pair) else " that had no say in either choice"
    )
    found = []
    for name, unit, share in (("loss", heldout["unit"], False), ("accuracy", "", True)):
        difference = stat(heldout[name]["difference"])
        side = _outside(difference)
        if side:
            higher, lower = (a, b) if side > 0 else (b, a)
            text = f"Held-out {name} of {higher} is higher than that of {lower} {where}"
        else:
            text = f"Held-out {name} of {a} and {b} cannot be told apart {where}"
        text += f": {a} less {b} is {_signed(difference, unit, share=share)}. {heldout['note']}"
        found.append((text.strip(), bool(side)))
    return found


def _doubts(pair: Json) -> list[str]:
    """Sentences on the steps that the held-out rows of the comparison chose, or may have chosen."""
    if pair["heldout"]["loss"] is None:
        return []
    words = {
        "yes": "The step of {} was chosen by these very rows, which flatters it.",
        "perhaps": "The step of {} was chosen by the trainer's eval_loss; whether that was measured on these rows too "
        "is not known.",
    }
    say = zip((pair["a"], pair["b"]), pair["heldout"]["say"], strict=True)
    return [words[known].format(letter(index)) for index, known in say if known in words]


def _outside(known: Stat, least: float = 0.0) -> int:
    """1 or −1 where a difference is above or below 0 with its whole interval, and beyond `least`; else 0."""
    if known.value is None or known.low is None or known.high is None or abs(known.value) <= least:
        return 0
    return 1 if known.low > 0 else -1 if known.high < 0 else 0


def _beyond(known: Stat, least: float) -> str:
    """A difference whose interval speaks for it but which is no larger than step 0 differs by."""
    if not least or not _outside(known) or _outside(known, least):
        return ""
    return f", no more than the two explanations of step 0 differ by ({number(least)})"


def _signed(known: Stat, unit: str = "", *, share: bool = False) -> str:
    text = measured(known, unit, share=share)
    return f"+{text}" if known.value is not None and known.value > 0 else text


def show_pair(pair: Json, runs: Sequence[Json], *, top: float, text: bool) -> dict[str, Any]:
    """What the template shows of one pair.

    Args:
        pair: An entry of `pairs`.
        runs: All runs.
        top: Mass at the end of the bars, the same for pairs that stand together.
        text: Whether to show words of rows.
    """
    a, b = letter(pair["a"]), letter(pair["b"])
    shown: dict[str, Any] = {
        "name": f"pair-{pair['a']}-{pair['b']}",
        "sides": [
            (letter(pair[side]), style_of(pair[side]), runs[pair[side]]["name"], runs[pair[side]]["step"])
            for side in ("a", "b")
        ],
        "obstacle": pair["obstacle"],
        "heldout": _heldout_table(pair["heldout"]),
        "heldout_rows": "held-out rows" if _doubts(pair) else "held-out rows that chose neither step",
        "summary": _summary(pair),
    }
    if pair["obstacle"]:
        return shown
    since, drift = pair["since"], pair["base"]["difference"] or 0.0
    left_out = sum(pair["rows_left_out"].values())
    reasons = listed(f"{count} ({reason})" for reason, count in pair["rows_left_out"].items())
    trained = [f"{count} by {name}" for count, name in zip(pair["trained_on"], (a, b), strict=True) if count]
    return shown | {
        "rows": counted(pair["rows"], "row"),
        "left_out": f"Left out: {reasons}." if left_out else "",
        "trained_on": f"Of these rows some were trained on: {listed(trained)}." if trained else "",
        "base": "" if since else pair["base"]["why"],
        "drift": percent(drift) if since and drift > ROUNDING else "",
        "findings": _findings(pair, a, b),
        "again": pair["extracted_again"],
        "bars": mass_bars(pair, names=(a, b), styles=(style_of(pair["a"]), style_of(pair["b"])), top=top)
        if since
        else "",
        "masses": _mass_table(pair, a, b),
        "differing": [_difference(entry) for entry in pair["differing"]] if text else [],
        "hidden": bool(pair["differing"]) and not text,
    }


def _summary(pair: Json) -> list[str]:
    """One line of the table of all pairs: rows, differences A less B, and what is shared now."""
    heldout, since = pair["heldout"], pair.get("since")
    cells = [
        UNKNOWN if pair["obstacle"] else str(pair["rows"]),
        _signed(stat(heldout["loss"] and heldout["loss"]["difference"])),
        _signed(stat(heldout["accuracy"] and heldout["accuracy"]["difference"]), share=True),
        *(_signed(stat(since and since[f"difference_{name}"])) for name in ("kept", "emerged")),
        measured(stat(pair["present"]["shared"]) if "present" in pair else None, share=True),
    ]
    return ["—" if cell == UNKNOWN else cell for cell in cells]


def _heldout_table(heldout: Json) -> list[list[str]]:
    if heldout["loss"] is None:
        return []
    lines = []
    for name, title, share in (("loss", f"Loss, {heldout['unit']}", False), ("accuracy", "Accuracy", True)):
        values = [measured(stat(heldout[name][side]), share=share) for side in ("a", "b")]
        lines.append([title, *values, _signed(stat(heldout[name]["difference"]), share=share)])
    return lines


def _findings(pair: Json, a: str, b: str) -> list[str]:
    shared = stat(pair["present"]["shared"])
    chance = {
        "above": "more than by chance",
        "below": "less than by chance",
        "inside": "no more than by chance",
        "": "with no chance level to compare with",
    }[against_null(shared)]
    now = f"Of what {a} and {b} have now they share {measured(shared, share=True)}, {chance}, at equal total mass."
    since = pair["since"]
    if since is None:
        return [now]
    size = {name: number(part["value"]) for name, part in since.items()}
    kept = (
        f"Of the {size['base']} log-odds per row that the model had before, both kept {size['kept_both']}, "
        f"{a} alone {size['kept_a']}, {b} alone {size['kept_b']}; both lost {size['lost_both']}."
    )
    gained = (
        f"In both emerged {size['emerged_both']}, in {a} alone {size['emerged_a']}, in {b} alone {size['emerged_b']}."
    )
    found = [kept, gained]
    for name, verb in (("kept", "kept more of what there was"), ("emerged", "gained more")):
        difference = stat(since[f"difference_{name}"])
        # runs that probed other rows as well are extracted to another misfit: step 0 shows how much that moves
        least = pair["base"]["difference_mass"] or 0.0
        side = _outside(difference, least)
        amount = f"{a} less {b} is {_signed(difference, 'log-odds')}{_beyond(difference, least)}"
        if side:
            found.append(f"{a if side > 0 else b} {verb}: {amount}.")
        else:
            found.append(f"Neither is seen to have {verb}: {amount}.")
    return [*found, now]


def _mass_table(pair: Json, a: str, b: str) -> list[tuple[str, str, str]]:
    """(what, mean with interval, chance)."""
    since, present = pair["since"], pair["present"]
    lines: list[tuple[str, Json, bool]] = []
    if since is not None:
        lines = [
            ("Before training", since["base"], False),
            ("kept by both", since["kept_both"], False),
            (f"kept by {a} only", since["kept_a"], False),
            (f"kept by {b} only", since["kept_b"], False),
            ("lost by both", since["lost_both"], False),
            ("emerged in both", since["emerged_both"], False),
            (f"emerged in {a} only", since["emerged_a"], False),
            (f"emerged in {b} only", since["emerged_b"], False),
        ]
    lines += [
        (f"All that {a} has now", present["a"], False),
        (f"All that {b} has now", present["b"], False),
        ("Shared now, at equal total mass", present["shared"], True),
    ]
    return [(name, measured(stat(part), share=share), _chance(stat(part), share=share)) for name, part, share in lines]


def _chance(stat: Stat, *, share: bool) -> str:
    null = Stat(stat.null_mean, stat.null_low, stat.null_high)
    text = measured(null, share=share)
    return "" if text == UNKNOWN else text


def _difference(entry: Json) -> dict[str, Any]:
    words = [(word, place) for word, place in entry["words"]]
    together = entry["kind"] == "and"
    named = quoted(words, last="and" if together else "or")
    return {
        "words": named if together else Markup("any one of {}").format(named),
        "how": "alone" if len(words) == 1 else "together" if together else "",
        "answer": entry["answer"],
        "row": entry["row"] + 1,
        "before": "" if entry["base"] is None else number(entry["base"], signed=True),
        "sizes": [number(entry[name], signed=True) for name in ("a", "b")],
        "ranges": ["" if span is None else _span(span) for span in entry["ranges"]],
        "certain": {True: "certain", False: "possible", None: ""}[entry["certain"]],
    }


def _span(span: Sequence[float | None]) -> str:
    low, high = span
    if low is None or high is None:
        return "no bound known"
    return f"{number(low, signed=True)} to {number(high, signed=True)}"

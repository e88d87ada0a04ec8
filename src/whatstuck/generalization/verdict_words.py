"""What survives of an arm in plain sentences, each with its numbers; and why not to read too much into them."""

import math
from collections.abc import Iterable, Mapping, Sequence

from whatstuck.generalization.survival import BEYOND, THRESHOLDS, Arm, Cell, Record, State, interval
from whatstuck.rows.verdicts.intervals import Share

_HIGH_CHANCE = 0.05  # from here on, what is right by chance is mentioned
_NOTHING = 0.05  # validity that never reaches this may never have been there
_MANY_CUT = 0.05  # share of a variant's replies from which on it is said that they were cut
_MANY_LONGER = 0.05  # the same of replies that begin with an answer and go on
_MOST_NAMED = 6  # variants that are named one by one
_ASKED = {"instruction": "other instructions", "wording": "other wordings", "harder": "harder cases"}
_MEANS: Mapping[str, str] = {
    "frozen": "It follows the training wording only: under a new instruction it does what the old one said",
    "loses both": "It does the task under the training wording only: under a new instruction it does neither what "
    "that says nor what the old one said",
    "training wording only": "It follows the training wording only",
    "follows instructions": "It follows instructions that it was not trained with",
    "partly": "It follows instructions that it was not trained with in part",
    "cannot tell": "Whether it follows instructions cannot be told from these replies",
}
_KEEPS: Mapping[State, str] = {"kept": "survives", "lost": "is lost", "partly": "survives in part"}


def sentences(arm: Arm) -> list[str]:
    """An arm in words."""
    said = [_ability(arm)]
    if arm.able == "kept":
        said += [*_instructions(arm), *_wordings(arm), *_harder(arm), *_beyond(arm)]
    return [
        sentence for sentence in (*said, *_validity(arm), *_not_asked(arm), *_failures(arm), *_cut(arm)) if sentence
    ]


def caveats(arms: Mapping[str, Arm]) -> list[str]:
    """Why not to read too much into the verdict, a sentence for each reason."""
    if not arms:
        return ["Nothing was asked."]
    said = [
        "Each arm is one training: with another seed it can end elsewhere."
        if len(arms) > 1
        else "This is one training: with another seed it can end elsewhere."
    ]
    counts = {name: _contents(cell) for arm in arms.values() for name, cell in arm.cells.items()}
    for start, end, means in (
        (1, THRESHOLDS.least_contents, "nothing is concluded from so few."),
        (
            THRESHOLDS.least_contents,
            THRESHOLDS.few_contents,
            "intervals say how these few vary, not whether others are harder.",
        ),
    ):
        few = {name: count for name, count in counts.items() if start <= count < end}
        if few:
            fewest = min(few.values())
            said.append(
                f"Fewer than {end} different contents stand behind {_listed(few)} (the fewest: {fewest}): {means}"
            )
    cells = sum(len(arm.cells) for arm in arms.values())
    said.append(f"Each interval covers one cell at 95 %; of {cells} cells about one in twenty lies outside its own.")
    other = sorted({arm.decoding for arm in arms.values()} - {"greedy"})
    if other:
        said.append(f"Replies were drawn ({_joined(other)}), so they are not the likeliest ones.")
    return said


def _ability(arm: Arm) -> str:
    training = arm.of("training")
    if not training:
        return f"The training wording was not asked at step {arm.step}, so nothing can be compared with it."
    when = f"at step {arm.step}" if arm.step else "before any training (step 0)"
    numbers = f"With the training wording {_first(training)} of the replies are right {when}"
    chance = interval(next(iter(training.values())).row, "chance")
    by_chance = f"; dealt to other items, {_share(chance)} would be" if chance.value >= _HIGH_CHANCE else ""
    ends = {"lost": ": it cannot do the task", "cannot tell": ": whether it can do the task cannot be told"}
    return f"{numbers}{by_chance}{ends.get(arm.able, '')}."


def _instructions(arm: Arm) -> list[str]:
    asked = arm.of("instruction")
    if not asked:
        return []
    said = [f"{_MEANS[arm.verdict]}. Right replies: {_each(asked)}."]
    old = {name: cell.old for name, cell in asked.items()}
    if arm.obeys_old != "not asked":
        said.append(f"Replies that obey the old instruction and not the new one: {_spread(old)}.")
    if arm.verdict == "partly" and arm.frozen:
        said.append(f"Under {_joined(arm.frozen)} it does what the old instruction said.")
    fakes = arm.of("fake")
    if fakes:
        said.append(f"Scored by the old meaning under a new instruction, right replies are: {_each(fakes)}.")
    if arm.ignores != "not asked":
        meaning = {
            "kept": "it carries out what the instruction said in the training",
            "lost": "it does not carry out what the instruction said in the training",
            "partly": "it sometimes carries out what the instruction said in the training",
        }.get(arm.ignores, "it cannot be told whether it carries out what the instruction said in the training")
        said[-1] += f" So {meaning}."
    return said


def _wordings(arm: Arm) -> list[str]:
    asked = arm.of("wording")
    if not asked:
        return []
    state = arm.together("wording")
    means = (
        f"What was learned {_KEEPS[state]}" if state in _KEEPS else "Whether what was learned survives cannot be told"
    )
    return [f"{means} in other wordings of the same. Right replies: {_each(asked)}."]


def _harder(arm: Arm) -> list[str]:
    asked = arm.of("harder")
    if not asked:
        return []
    means = {
        "kept": "It transfers to harder cases",
        "lost": "It does not transfer to harder cases",
        "partly": "It transfers to harder cases in part",
    }.get(arm.together("harder"), "Whether it transfers to harder cases cannot be told")
    return [f"{means}. Right replies: {_each(asked)}."]


def _beyond(arm: Arm) -> list[str]:
    asked = arm.of(BEYOND)
    if not asked:
        return []
    means = {
        "kept": "It follows meanings beyond the range of the training's",
        "lost": "It does not follow meanings beyond the range of the training's",
        "partly": "It follows meanings beyond the range of the training's in part",
    }.get(arm.together(BEYOND), "Whether it follows meanings beyond the range of the training's cannot be told")
    return [f"{means}. Right replies: {_each(asked)}."]


def _validity(arm: Arm) -> list[str]:
    """Whether replies obeyed the instruction before and on the way: what is lost must first have been there."""
    asked = arm.of("instruction", "wording")
    if not asked:
        return []
    first = int(arm.history[0]["step"])
    if first > 0:
        return ["Step 0 was not asked, so what the untouched model could do is not known."]
    begun = {str(row["variant"]): row for row in arm.history if row["step"] == 0 and row["variant"] in asked}
    said = []
    if begun:
        shares = {name: interval(row, "validity") for name, row in begun.items()}
        went_on = max(_count(row, "longer") / max(1, _count(row, "items")) for row in begun.values())
        never = arm.step > 0 and all(
            interval(row, "validity").value < _NOTHING for row in arm.history if row["variant"] in shares
        )
        ends = ", and it never became more: what is missing may never have been there." if never else "."
        if went_on >= _MANY_LONGER:  # an answer was there, only not alone
            ends = f"; but up to {_percent(went_on)} % of the replies to a variant began with an answer and went on."
        said.append(f"Before the training (step 0) valid replies were: {_spread(shares)}{ends}")
    said += _peaks(arm, asked)
    return said


def _peaks(arm: Arm, variants: Iterable[str]) -> list[str]:
    """Variants whose validity has a maximum between the first and the last step, or only fell."""
    rose, fell = [], []
    for name in variants:
        series = {int(row["step"]): interval(row, "validity") for row in arm.history if row["variant"] == name}
        steps = sorted(step for step, share in series.items() if not math.isnan(share.value))
        if len(steps) < 2:  # noqa: PLR2004 - two make a change
            continue
        first, last, best = steps[0], steps[-1], max(steps, key=lambda step: series[step].value)
        if series[best].low <= series[last].high:
            continue
        end = f"to {_share(series[last])} at step {last}"
        if series[best].low > series[first].high:
            rose.append(
                f"{name} from {_percent(series[first].value)} % at step {first} to {_share(series[best])} at step "
                f"{best}, then {end}"
            )
        else:
            fell.append(f"{name} from {_share(series[best])} at step {best} {end}")
    said = [f"Validity rose and then fell: {'; '.join(rose)}."] if rose else []
    return said + ([f"Validity fell during the training: {'; '.join(fell)}."] if fell else [])


def _not_asked(arm: Arm) -> list[str]:
    """What is missing for a whole verdict."""
    kinds = {cell.kind for cell in arm.cells.values()}
    missing = [words for kind, words in _ASKED.items() if kind not in kinds]
    if "instruction" in kinds and arm.ignores == "not asked":
        missing.append("Fake, which tells whether an instruction is ignored")
    said = [f"Not asked: {_joined(missing)}."] if missing else []
    gone = sorted({str(row["variant"]) for row in arm.history} - set(arm.cells))
    return said + ([f"Asked at earlier steps only: {_joined(gone)}."] if gone else [])


def _failures(arm: Arm) -> list[str]:
    rows = [cell.row for cell in arm.cells.values()]
    asked = [cell.row for cell in arm.cells.values() if cell.kind != "fake"] or rows  # Fake asks the same once more
    said = []
    counts = (
        ("no_answer", "had no answer"),
        ("longer", "began with an answer and went on"),
        ("failed", "made the check fail"),
        ("timed_out", "ran out of the check's time"),
    )
    parts = [f"{_sum(asked, name):,} {words}" for name, words in counts if _sum(asked, name)]
    if parts:
        unknown = _sum(asked, "failed") + _sum(asked, "timed_out")
        either = ", but the verdict allows for those to be right that could not be checked" if unknown else ""
        total = _sum(asked, "items")
        said.append(
            f"Of {total:,} {'reply' if total == 1 else 'replies'} at step {arm.step}, {_joined(parts)}: counted as "
            f"wrong{either}."
        )
    # variants are made of the same contents: the counts must not be added
    without = {str(row["variant"]): count for row in rows if (count := _count(row, "unsolvable"))}
    if without:
        name = max(without, key=lambda name: without[name])
        most = ", the most of any variant" if len(without) > 1 else ""
        contents = "1 content was" if without[name] == 1 else f"{without[name]:,} contents were"
        said.append(f"{contents} passed over for {name}{most}, since no item could be made of them.")
    return said


def _cut(arm: Arm) -> list[str]:
    """Variants of which many replies are not whole."""
    rows = {name: cell.row for name, cell in arm.cells.items() if _count(cell.row, "items")}
    shares = {name: _count(row, "cut") / _count(row, "items") for name, row in rows.items()}
    many = {name: share for name, share in shares.items() if share >= _MANY_CUT}
    if not many:
        return []
    if len(many) <= _MOST_NAMED:
        which = _joined([f"{_percent(share)} % of {name}" for name, share in many.items()])
    else:
        which = f"up to {_percent(max(many.values()))} % of {len(many)} variants"
    seen = "An answer that would come later is not seen: ask again with a larger --max-new-tokens and another --arm."
    return [f"Many replies at step {arm.step} were cut at the longest length: {which}. {seen}"]


# --- numbers in sentences


def _share(share: Share) -> str:
    """A share with its interval, in percent."""
    if math.isnan(share.value):
        return "an unknown share"
    around = "" if math.isnan(share.low + share.high) else f" ({_percent(share.low)} to {_percent(share.high)})"
    return f"{_percent(share.value)} %{around}"


def _percent(value: float) -> str:
    """Two digits that count, and no more.

    >>> [_percent(value) for value in (0.0, 0.0042, 0.021, 0.999, 1.0)]
    ['0', '0.4', '2.1', '99.9', '100']
    """
    size = 100 * value
    plain = round(size) in (0, 100) and size not in (0, 100)
    return f"{size:.1f}".removesuffix(".0") if plain or size < 10 else f"{size:.0f}"  # noqa: PLR2004 - two digits


def _first(cells: Mapping[str, Cell]) -> str:
    return _share(interval(next(iter(cells.values())).row, "success"))


def _each(cells: Mapping[str, Cell]) -> str:
    return _spread({name: interval(cell.row, "success") for name, cell in cells.items()})


def _spread(shares: Mapping[str, Share]) -> str:
    """Shares by variant; of many, the least and the most."""
    if len(shares) <= _MOST_NAMED:
        return _joined([f"{name} {_share(share)}" for name, share in shares.items()])
    known = {name: share for name, share in shares.items() if not math.isnan(share.value)} or shares
    least, most = (end(known, key=lambda name: known[name].value) for end in (min, max))
    if known[least] == known[most]:
        return f"{_share(known[least])} in each of {len(shares)} variants"
    return f"between {_share(known[least])} ({least}) and {_share(known[most])} ({most}) of {len(shares)} variants"


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return _joined(known) if len(known) <= _MOST_NAMED else f"{len(known)} variants"


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _contents(cell: Cell) -> int:
    return _count(cell.row, "contents")


def _count(row: Record, name: str) -> int:
    return int(row.get(name) or 0)


def _sum(rows: Sequence[Record], name: str) -> int:
    return sum(_count(row, name) for row in rows)

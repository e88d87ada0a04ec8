"""Does it survive other wording and harder cases: the verdict in words, then the numbers, the way there, and replies.

Numbers stand by variant, since that is what is compared: the training wording above, what it should carry over to
below. Fake comes last, as its meaning is the reverse: success there is what one does not want.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.report.example_replies import example_replies
from whatstuck.report.metrics import known
from whatstuck.report.naming import last_part, setting_pairs, without_folders
from whatstuck.report.reading import whole_number
from whatstuck.report.reading_generalization import GeneralizationRun
from whatstuck.report.sections.trust import coarse
from whatstuck.report.survival_figures import COLOURS, chance_band, colour_of, survival_figures
from whatstuck.report.survival_words import headline, verdict_of
from whatstuck.report.variant_table import has_old, mapping_pairs, rank, variant_table
from whatstuck.report.words import counted, listed, number, percent

_DIGITS = 12  # of a hash
_WRONG = "; each is taken as wrong"
_LONGER = (
    ". They are not right, since what follows may take the answer back; where they are many, ask for the answer alone "
    "in the prompt, or take a checker that finds it in a longer reply"
)
_COUNTED = (
    ("no_answer", "Replies without an answer", _WRONG),
    ("longer", "Replies that begin with an answer and go on", _LONGER),
    ("failed", "Checks that failed", _WRONG),
    ("timed_out", "Checks that took too long", _WRONG),
    ("cut", "Replies that were cut at the longest length", ""),
)


def build(run: GeneralizationRun, *, text: bool) -> dict[str, Any]:
    """What the section shows."""
    variants = sorted(run.variants(), key=lambda variant: rank(str(variant.get("kind"))))
    arms = run.verdict.get("arms") or {}
    main, *others = run.decodings
    return {
        "task": run.task,
        "headline": headline(run),
        "several": len(arms) > 1,
        "verdicts": [verdict_of(run, name) | {"style": f"arm{index % COLOURS}"} for index, name in enumerate(arms)],
        "rule": _rule(run.verdict.get("thresholds") or {}, _shows_ignoring(run, variants)),
        "caveats": _caveats(run, variants, text=text),
        "arms": run.arms,
        "groups": variant_table(run, variants, main, text=text),
        "old": has_old(run),
        "at": _at(run, main),
        "sampled": [(decoding, variant_table(run, variants, decoding, text=text)) for decoding in others],
        "figures": survival_figures(run, variants, main),
        "banded": any(chance_band(run, str(variant["name"]), main) for variant in variants),
        "key": [(colour_of(run, arm), arm) for arm in run.arms] if len(run.arms) > 1 else [],
        "examples": example_replies(run, variants) if text else [],
        "hidden": bool(run.examples) and not text,
        "passed_over": _passed_over(run),
        "failures": _failures(run) if text else [],
        "made": _made(run, main),
        "settings": _settings(run, text=text),
    }


# --- the verdict


def _rule(thresholds: Mapping[str, Any], by: Sequence[str]) -> str:
    """How words follow from numbers, as far as it was asked."""
    kept, lost, ignores = (known(thresholds.get(name)) for name in ("kept", "lost", "ignores"))
    if kept is None or lost is None or ignores is None:
        return ""
    least = known(thresholds.get("least_contents"))
    few = f" Nothing is concluded from fewer than {least:.0f} different contents." if least else ""
    ignored = f"; that an instruction is ignored is shown from {percent(ignores)} on, by {listed(by, last='or')}"
    return (
        "An arm is judged at its last step, never at the one that is best on a variant. What was learned survives in a "
        f"variant from {percent(kept)} of the success with the training wording on, and is lost up to {percent(lost)}"
        f"{ignored if by else ''}. What is right by chance is taken out first, and the whole interval must lie there: "
        f"the widest one that those of both shares allow.{few}"
    )


def _shows_ignoring(run: GeneralizationRun, variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """What there is that shows whether an instruction is ignored."""
    fake = any(variant.get("kind") == "fake" for variant in variants)
    new = any(variant.get("kind") == "instruction" for variant in variants)
    return ["Fake"] * fake + ["replies that obey the old instruction"] * (new and has_old(run))


def _caveats(run: GeneralizationRun, variants: Sequence[Mapping[str, Any]], *, text: bool) -> list[str]:
    said = [str(caveat) for caveat in run.verdict.get("caveats") or []]
    shown = [mapping_pairs(variant.get("shown")) for variant in variants if variant.get("kind") == "instruction"]
    if shown and all(len(pairs) > 1 and len({meaning for _, meaning in pairs}) == 1 for pairs in shown):
        said.append(
            "Every new instruction gives all names one and the same meaning. That can be met by copying the one value, "
            "without reading which name it belongs to."
        )
    dtype = coarse(run.about)
    if dtype:
        said.append(f"Replies were made in {dtype}; its rounding can turn a reply.")
    warnings = [without_folders(str(warning)) for warning in run.about.get("warnings") or []]
    if warnings and not text:
        warnings = [f"{counted(len(warnings), 'note')} of this run may hold text of rows, and can be read in run.json."]
    return said + warnings


def _at(run: GeneralizationRun, decoding: str) -> str:
    """The steps that the table is about."""
    steps = {arm: max((cell.step for cell in run.last(arm, decoding).values()), default=0) for arm in run.arms}
    if len(set(steps.values())) == 1:
        return f"step {next(iter(steps.values()))}"
    return listed(f"step {step} of {arm}" for arm, step in steps.items())


# --- how it was asked


def _passed_over(run: GeneralizationRun) -> list[str]:
    """What was left out or failed, by variant and over all steps and arms."""
    said = []
    unsolvable: dict[str, int] = {}
    for cell in run.cells:
        unsolvable[cell.variant] = max(unsolvable.get(cell.variant, 0), cell.counts["unsolvable"])
    skipped = [f"{name} {count:,}" for name, count in unsolvable.items() if count]
    if skipped:
        said.append(f"Contents passed over, since no item could be made of them: {listed(skipped)}.")
    total = sum(cell.counts["items"] for cell in run.cells)
    for key, words, means in _COUNTED:
        count = sum(cell.counts[key] for cell in run.cells)
        if count:
            said.append(f"{words}: {count:,} of {total:,} in this run{means}.")
    return said


def _failures(run: GeneralizationRun) -> list[tuple[str, str]]:
    """What failed checks said, the most frequent first, and how often."""
    found = run.about.get("failures")
    counts = found.items() if isinstance(found, dict) else ()
    return [(str(said), f"{whole_number(count) or 0:,}") for said, count in counts]


def _made(run: GeneralizationRun, decoding: str) -> list[tuple[str, str]]:
    """How it was asked, in pairs."""
    about = run.about
    cells = [cell for arm in run.arms for cell in run.last(arm, decoding).values()]
    items = sorted({cell.counts["items"] for cell in cells})
    contents = sorted({cell.counts["contents"] for cell in cells})
    arms = about.get("arms") or {}
    steps = {arm: sorted({cell.step for cell in run.cells if cell.arm == arm}) for arm in run.arms}
    seconds = about.get("seconds")
    model, converted = run.model_parts
    pairs = [
        ("Task", last_part(run.task)),
        ("Hash of the task's files", str((about.get("task") or {}).get("identity") or "")[:_DIGITS]),
        ("Model", model),
        ("Hash of the model's file", converted[:_DIGITS]),
        *((f"Step{'s' * (len(of_arm) > 1)} of {arm}", ", ".join(map(str, of_arm))) for arm, of_arm in steps.items()),
        *((f"Replies of {arm}", _replies(arms.get(arm))) for arm in run.arms),
        ("Decoding", listed(run.decodings)),
        ("Items per cell", _span(items, "item")),
        ("Different contents per cell", _span(contents, "content")),
        ("Seed", str(about.get("seed", ""))),
        ("Made in", str(about.get("dtype") or "")),
        ("Took", f"{number(seconds)} s" if isinstance(seconds, int | float) else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _replies(arm: Any) -> str:
    settings = arm.get("settings") if isinstance(arm, dict) else None
    thought = settings.get("thought") if isinstance(settings, dict) else None
    return "" if thought is None else "a thought, then the answer" if thought else "the answer alone"


def _span(counts: Sequence[int], noun: str) -> str:
    return counted(counts[0], noun) if len(counts) == 1 else f"{counts[0]:,} to {counted(counts[-1], noun)}"


def _settings(run: GeneralizationRun, *, text: bool) -> list[tuple[str, str]]:
    settings, versions = (run.about.get(name) or {} for name in ("settings", "versions"))
    pairs = setting_pairs(settings, text=text) + setting_pairs(versions, text=text)
    return [(name, without_folders(value)) for name, value in pairs]

"""Does it survive other wording and harder cases: the verdict in words, then the numbers, the way there, and replies.

Numbers stand by variant, since that is what is compared: the training wording above, what it should carry over to
below. Fake comes last, as its meaning is the reverse: success there is what one does not want.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.report.metrics import known
from whatstuck.report.naming import last_part, setting_pairs, without_folders
from whatstuck.report.reading import whole_number
from whatstuck.report.reading_generalization import Example, GeneralizationRun
from whatstuck.report.sections.trust import coarse
from whatstuck.report.survival_figures import COLOURS, chance_band, colour_of, survival_figures
from whatstuck.report.variant_table import KINDS, mapping_pairs, rank, variant_table
from whatstuck.report.words import counted, listed, number, percent

SAYS: Mapping[str, str] = {
    "follows instructions": "follows instructions",
    "frozen": "follows the training wording only",
    "loses both": "does the task under the training wording only",
    "training wording only": "follows the training wording only",
    "partly": "follows other instructions in part",
    "cannot do the task": "cannot do the task",
    "cannot tell": "may or may not follow instructions",
}
OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "wording": {
        "yes": "survives other wording",
        "partly": "survives other wording in part",
        "no": "does not survive other wording",
        "cannot tell": "may or may not survive other wording",
    },
    "transfer": {
        "yes": "transfers to harder cases",
        "partly": "transfers to harder cases in part",
        "no": "does not transfer to harder cases",
        "cannot tell": "may or may not transfer to harder cases",
    },
    "beyond": {
        "yes": "follows meanings beyond the range",
        "partly": "follows meanings beyond the range in part",
        "no": "does not follow meanings beyond the range",
        "cannot tell": "may or may not follow meanings beyond the range",
    },
}
"""What a verdict begins with where no instruction was asked."""
_FINE = ("follows instructions", "yes")
_UNKNOWN = ("cannot tell", "not asked")
_NAMED = 3  # arms that a headline names
_LONGEST = 3000  # characters of a prompt or a reply that are shown


def build(run: GeneralizationRun, *, text: bool) -> dict[str, Any]:
    """What the section shows."""
    variants = sorted(run.variants(), key=lambda variant: rank(str(variant.get("kind"))))
    arms = run.verdict.get("arms") or {}
    main, *others = run.decodings
    return {
        "task": run.task,
        "headline": _headline(arms),
        "several": len(arms) > 1,
        "verdicts": [_verdict(name, arms[name], index) for index, name in enumerate(arms)],
        "rule": _rule(run.verdict.get("thresholds") or {}),
        "caveats": _caveats(run, variants, text=text),
        "arms": run.arms,
        "groups": variant_table(run, variants, main, text=text),
        "at": _at(run, main),
        "sampled": [(decoding, variant_table(run, variants, decoding, text=text)) for decoding in others],
        "figures": survival_figures(run, variants, main),
        "banded": any(chance_band(run, str(variant["name"]), main) for variant in variants),
        "key": [(colour_of(run, arm), arm) for arm in run.arms] if len(run.arms) > 1 else [],
        "examples": _examples(run, variants) if text else [],
        "hidden": bool(run.examples) and not text,
        "passed_over": _passed_over(run),
        "failures": _failures(run) if text else [],
        "made": _made(run, main),
        "settings": _settings(run, text=text),
    }


# --- the verdict


def _headline(arms: Mapping[str, Any]) -> str:
    """The verdict of the only arm; of several, which arms have which."""
    if len(arms) == 1:
        (arm,) = arms.values()
        return f"Frozen: it {_says(arm)}" if arm.get("verdict") == "frozen" else f"It {_says(arm)}"
    groups: dict[str, list[str]] = {}
    for name, arm in arms.items():
        groups.setdefault(_says(arm), []).append(name)
    if len(groups) == 1:
        return f"Each of {len(arms)} arms {next(iter(groups))}"
    return "; ".join(f"{_short(names)}: {says}" for says, names in groups.items())


def _short(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= _NAMED else f"{len(names)} arms"


def _says(arm: Mapping[str, Any]) -> str:
    """What comes first in a verdict: instructions; where none was asked, wordings; then harder cases."""
    verdict = str(arm.get("verdict"))
    if verdict in SAYS:
        return SAYS[verdict]
    for key, ways in OTHERWISE.items():
        if arm.get(key) in ways:
            return ways[arm[key]]
    return "was asked in the training wording only"


def _verdict(name: str, arm: Mapping[str, Any], index: int) -> dict[str, Any]:
    facts = (
        ("fake", "does what the old instruction said"),
        ("wording", "survives other wording"),
        ("transfer", "transfers to harder cases"),
        ("beyond", "follows meanings beyond the range"),
    )
    asked = [str(arm.get(key) or "not asked") for key in ("verdict", *OTHERWISE)]
    first = next((word for word in asked if word != "not asked"), "not asked")
    return {
        "name": name,
        "style": f"arm{index % COLOURS}",
        "title": _says(arm),
        "state": "fine" if first in _FINE else "unknown" if first in _UNKNOWN else "mind",
        "facts": [(words, str(arm[key])) for key, words in facts if arm.get(key, "not asked") != "not asked"],
        "sentences": [str(sentence) for sentence in arm.get("sentences") or []],
    }


def _rule(thresholds: Mapping[str, Any]) -> str:
    """How words follow from numbers."""
    kept, lost, ignores = (known(thresholds.get(name)) for name in ("kept", "lost", "ignores"))
    if kept is None or lost is None or ignores is None:
        return ""
    least = known(thresholds.get("least_contents"))
    few = f" Nothing is concluded from fewer than {least:.0f} different contents." if least else ""
    return (
        "An arm is judged at its last step, never at the one that is best on a variant. What was learned survives in a "
        f"variant from {percent(kept)} of the success with the training wording on, lost up to {percent(lost)}; Fake "
        f"shows that an instruction is ignored from {percent(ignores)} on. What is right by chance is taken out first, "
        f"and the whole interval must lie there: the widest one that those of both shares allow.{few}"
    )


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


# --- replies, and how they were made


def _examples(run: GeneralizationRun, variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By variant, prompts with what the arms replied to them."""
    shown = []
    for variant in variants:
        name = str(variant["name"])
        prompts: dict[str, list[dict[str, Any]]] = {}
        for arm in run.arms:
            for example in run.examples.get((arm, name), ()):
                prompts.setdefault(example.prompt, []).append(_reply(example, arm if len(run.arms) > 1 else ""))
        if prompts:
            shown.append(
                {
                    "name": name,
                    "kind": KINDS.get(str(variant["kind"]), (str(variant["kind"]), ""))[0],
                    "fake": variant["kind"] == "fake",
                    "asked": [(_cut(prompt), replies) for prompt, replies in prompts.items()],
                }
            )
    return shown


def _reply(example: Example, arm: str) -> dict[str, Any]:
    outcome = example.outcome.replace("_", " ")
    word = "right" if example.right else "wrong"
    return {
        "arm": arm,
        "right": example.right,
        "outcome": word if outcome in ("right", "wrong") else f"{word}: {outcome}",
        "text": _cut(example.reply) or "(nothing)",
    }


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]} … ({counted(more, 'more character')})" if more > 0 else text


def _passed_over(run: GeneralizationRun) -> list[str]:
    """What was left out or failed, by variant and over all steps and arms."""
    said = []
    unsolvable: dict[str, int] = {}
    for cell in run.cells:
        unsolvable[cell.variant] = max(unsolvable.get(cell.variant, 0), cell.counts["unsolvable"])
    skipped = [f"{name} {count:,}" for name, count in unsolvable.items() if count]
    if skipped:
        said.append(f"Contents passed over, since no item could be made of them: {listed(skipped)}.")
    kinds = (
        ("no_answer", "Replies without an answer"),
        ("failed", "Checks that failed"),
        ("timed_out", "Checks that took too long"),
    )
    total = sum(cell.counts["items"] for cell in run.cells)
    for key, words in kinds:
        count = sum(cell.counts[key] for cell in run.cells)
        if count:
            said.append(f"{words}: {count:,} of {total:,}, all steps and arms together. They count as wrong.")
    cut = sum(cell.counts["cut"] for cell in run.cells)
    if cut:
        said.append(f"Replies that were cut at the longest length: {cut:,} of {total:,}, all steps and arms together.")
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
    pairs = [
        ("Task", last_part(run.task)),
        ("Model", run.model),
        *((f"Steps of {arm}", ", ".join(map(str, of_arm))) for arm, of_arm in steps.items()),
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

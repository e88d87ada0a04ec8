"""What comes first of a verdict on `generalize`: a headline over all arms, a title and a few facts for each.

It speaks of what was asked. An arm that was asked in other wordings alone follows no instructions, nor ignores them;
and of an arm that cannot do the task, or was not asked in the training wording, nothing can survive.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.report.reading_generalization import GeneralizationRun
from whatstuck.report.words import listed

SAYS: Mapping[str, str] = {
    "follows instructions": "follows instructions",
    "frozen": "follows the training wording only",
    "loses both": "does the task under the training wording only",
    "training wording only": "follows the training wording only",
    "partly": "follows other instructions in part",
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
    "fake": {
        "yes": "does what the old instruction said",
        "partly": "does what the old instruction said in part",
        "no": "does not do what the old instruction said",
        "cannot tell": "may or may not do what the old instruction said",
    },
}
"""What a verdict begins with where no instruction was asked."""
_FACTS: Mapping[str, str] = {
    "fake": OTHERWISE["fake"]["yes"],
    "old": "obeys the old instruction instead of the new one",
    **{key: OTHERWISE[key]["yes"] for key in ("wording", "transfer", "beyond")},
}
_FINE = ("follows instructions", "yes")
_UNKNOWN = ("cannot tell", "not asked")
_NAMED = 3  # arms that a headline names


def headline(run: GeneralizationRun) -> str:
    """The verdict of the only arm; of several, which arms have which."""
    arms = _arms(run)
    if len(arms) == 1:
        ((name, arm),) = arms.items()
        frozen = arm.get("verdict") == "frozen" and "instruction" in _kinds(run, name)
        return f"Frozen: it {_says(run, name)}" if frozen else f"It {_says(run, name)}"
    groups: dict[str, list[str]] = {}
    for name in arms:
        groups.setdefault(_says(run, name), []).append(name)
    if len(groups) == 1:
        return f"Each of {len(arms)} arms {next(iter(groups))}"
    return "; ".join(f"{_short(names)}: {says}" for says, names in groups.items())


def verdict_of(run: GeneralizationRun, name: str) -> dict[str, Any]:
    """Title, facts and sentences of an arm; `state` is `fine`, `mind` or `unknown`.

    Args:
        run: The run.
        name: The arm.
    """
    arm = _arms(run)[name]
    asked = [str(arm.get(key) or "not asked") for key in ("verdict", "wording", "transfer", "beyond")]
    first = next((word for word in asked if word != "not asked"), "not asked")
    able = not _without(run, name)
    facts = ((words, arm.get(key) or "not asked") for key, words in _FACTS.items())
    return {
        "name": name,
        "title": _says(run, name),
        "state": "fine" if first in _FINE else "unknown" if first in _UNKNOWN else "mind",
        "facts": [(words, str(found)) for words, found in facts if able and found != "not asked"],
        "sentences": [str(sentence) for sentence in arm.get("sentences") or []],
    }


def _arms(run: GeneralizationRun) -> Mapping[str, Mapping[str, Any]]:
    arms: Mapping[str, Mapping[str, Any]] = run.verdict.get("arms") or {}
    return arms


def _short(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= _NAMED else f"{len(names)} arms"


def _says(run: GeneralizationRun, name: str) -> str:
    """What comes first: whether anything can survive; then instructions, wordings, harder cases, as they were asked."""
    without = _without(run, name)
    if without:
        return without
    arm, verdict = _arms(run)[name], str(_arms(run)[name].get("verdict"))
    if "instruction" in _kinds(run, name) and verdict in SAYS:
        return SAYS[verdict]
    for key, ways in OTHERWISE.items():
        if arm.get(key) in ways:
            return ways[str(arm[key])]
    return "was asked in the training wording only"


def _without(run: GeneralizationRun, name: str) -> str:
    """Why nothing can be said of what survives; empty where something can."""
    arm, kinds = _arms(run)[name], _kinds(run, name)
    if "training" not in kinds:
        return "was not asked in the training wording at its last step, so what survives cannot be told"
    others = len(kinds) > 1
    if arm.get("verdict") == "cannot do the task":
        return f"cannot do the task{', so what survives cannot be asked' if others else ''}"
    numbers = [of_variant for of_variant in (arm.get("numbers") or {}).values() if of_variant["kind"] == "training"]
    if any(of_variant["state"] == "cannot tell" for of_variant in numbers):
        return f"may or may not be able to do the task{', so what survives cannot be told' if others else ''}"
    return ""


def _kinds(run: GeneralizationRun, name: str) -> set[str]:
    """What an arm was asked at its last step."""
    return {cell.kind for cell in run.last(name, run.decodings[0]).values()}

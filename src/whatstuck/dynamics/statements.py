"""What changed, in sentences: only what holds outside its interval, under which threshold rule, and how certainly.

Point values speak of the explanation that was found. A sentence about removed and emerged is certain only where it
holds in every near-optimal explanation: the least of one exceeds the most of the other, intervals included.
"""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.certain_metrics import SHRUNK
from whatstuck.dynamics.metrics import MAIN_TAU

_WAYS = (
    ("the number under the relative threshold", "count", "relative"),
    ("the number under the fixed threshold", "count", "fixed"),
    ("mass without a threshold", "mass", "none"),
)


def statements(metrics: pa.Table, setting: str) -> list[str]:
    """Sentences about removed and emerged mass between steps, about the threshold rules, and about what is certain.

    Args:
        metrics: The run's metrics.
        setting: The extraction setting to speak of.
    """
    return [*_mass_changes(metrics, setting), *_threshold_rules(metrics, setting), *_certainty(metrics, setting)]


def _mass_changes(metrics: pa.Table, setting: str) -> list[str]:
    sentences = []
    for subset in ("removed", "emerged"):
        rows = metrics.filter(
            (pc.field("metric") == "mass_change") & (pc.field("set") == subset) & (pc.field("setting") == setting)
        ).sort_by("step")
        if not len(rows):
            continue
        grew = [row["step"] for row in rows.to_pylist() if row["low"] > 0]
        shrank = [row["step"] for row in rows.to_pylist() if row["high"] < 0]
        if not grew and not shrank:
            sentences.append(
                f"{subset.capitalize()} mass: changes outside its interval between neighbouring checkpoints: none seen."
            )
        for verb, steps in (("grows", grew), ("shrinks", shrank)):
            if steps:
                listed = ("steps " if len(steps) > 1 else "step ") + ", ".join(map(str, steps))
                name = subset.capitalize()
                sentences.append(f"{name} mass {verb} outside its interval since the checkpoint before at {listed}.")
    return sentences


def _threshold_rules(metrics: pa.Table, setting: str) -> list[str]:
    """Whether more was removed or more emerged at the last step, by each way of counting."""
    last = max(metrics["step"].to_pylist())
    larger: dict[str, list[str]] = {"removed": [], "emerged": [], "neither": []}
    for name, metric, rule in _WAYS:
        found = _at(metrics, setting, last, metric, rule)
        if found and last > 0:
            larger[_larger(found["removed"], found["emerged"])].append(name)
    known = [side for side in ("removed", "emerged") if larger[side]]
    if not known:
        return [f"At step {last} no way of counting tells whether more was removed or more emerged."] if last else []
    parts = [f"more was removed by {' and '.join(larger['removed'])}"] if larger["removed"] else []
    if larger["emerged"]:
        parts.append(f"more emerged by {' and '.join(larger['emerged'])}")
    if larger["neither"]:
        parts.append(f"the intervals overlap by {' and '.join(larger['neither'])}")
    sentence = f"At step {last} " + "; ".join(parts)
    if len(parts) == 1:
        return [sentence + ": it holds by every way of counting."]
    return [sentence + ": this depends on the way of counting, so it is not a finding."]


def _larger(removed: dict[str, Any], emerged: dict[str, Any]) -> str:
    """Which is larger beyond both intervals."""
    if removed["low"] > emerged["high"]:
        return "removed"
    return "emerged" if emerged["low"] > removed["high"] else "neither"


def _certainty(metrics: pa.Table, setting: str) -> list[str]:
    """Point values, certain part and bounds of removed and emerged at the last step, and what they allow to say."""
    last = max(metrics["step"].to_pylist())
    sentences = []
    for name, metric, rule in _WAYS:
        point = _at(metrics, setting, last, metric, rule)
        if not last or not point:
            continue
        if metric == "count":
            least, most = (
                {side: point[f"{side}_{part}"] for side in ("removed", "emerged") if f"{side}_{part}" in point}
                for part in ("certain", "possible")
            )
            words = "certain", "possible"
        else:
            least = _at(metrics, setting, last, "mass_least", rule)
            most = _at(metrics, setting, last, "mass_most", rule)
            words = "at least", "at most"
        shown = [
            _three(side, point.get(side), least.get(side), most.get(side), words) for side in ("removed", "emerged")
        ]
        if all(shown):
            sentences.append(
                f"At step {last}, {name}, per row: {'; '.join(shown)}. {_SAID[_certainly_larger(least, most)]}"
            )
    if last and not sentences:
        return ["Which single interactions are certain was not computed: all of this is about the explanation found."]
    return sentences


_SAID = {
    "removed": "That more was removed is certain.",
    "emerged": "That more emerged is certain.",
    "neither": "Which of the two is more is not certain.",
}


def _three(
    side: str,
    point: dict[str, Any] | None,
    least: dict[str, Any] | None,
    most: dict[str, Any] | None,
    words: tuple[str, str],
) -> str:
    if point is None or least is None or most is None:
        return ""
    if not all(math.isfinite(entry["value"]) for entry in (point, least, most)):
        return f"{point['value']:.3g} {side}, without bounds"
    bounds = f"{least['value']:.3g} {words[0]}, {most['value']:.3g} {words[1]}"
    return f"{point['value']:.3g} {side} ({bounds})"


def _certainly_larger(least: dict[str, Any], most: dict[str, Any]) -> str:
    """Which is larger however the ranges turn out, and beyond the intervals."""
    # preserved mass drops out of the difference, whose bounds are therefore tighter than those of its parts
    if SHRUNK in least and SHRUNK in most:
        removed, emerged = least[SHRUNK]["low"], -most[SHRUNK]["high"]
    else:
        removed = least["removed"]["low"] - most["emerged"]["high"]
        emerged = least["emerged"]["low"] - most["removed"]["high"]
    return "removed" if removed > 0 else "emerged" if emerged > 0 else "neither"


def _at(metrics: pa.Table, setting: str, step: int, metric: str, rule: str) -> dict[str, dict[str, Any]]:
    """The rows of a metric at a step, by set, for all kinds and orders together."""
    suffix = "" if rule == "none" else f" tau={MAIN_TAU:g}"
    return {
        row["set"]: row
        for row in metrics.filter(
            (pc.field("metric") == metric)
            & (pc.field("threshold_rule") == rule)
            & (pc.field("setting") == setting + suffix)
            & (pc.field("step") == step)
            & (pc.field("kind") == "both")
            & (pc.field("order") == 0)
        ).to_pylist()
    }

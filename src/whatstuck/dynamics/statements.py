"""What changed, in sentences: only what holds outside its interval, and under which threshold rule."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.metrics import MAIN_TAU


def statements(metrics: pa.Table, setting: str) -> list[str]:
    """Sentences about removed and emerged mass between steps, and about the threshold rules.

    Args:
        metrics: The run's metrics.
        setting: The extraction setting to speak of.
    """
    return [*_mass_changes(metrics, setting), *_threshold_rules(metrics, setting)]


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
    for name, metric, rule, suffix in (
        ("the number under the relative threshold", "count", "relative", f" tau={MAIN_TAU:g}"),
        ("the number under the fixed threshold", "count", "fixed", f" tau={MAIN_TAU:g}"),
        ("mass without a threshold", "mass", "none", ""),
    ):
        found = {
            row["set"]: row
            for row in metrics.filter(
                (pc.field("metric") == metric)
                & (pc.field("threshold_rule") == rule)
                & (pc.field("setting") == setting + suffix)
                & (pc.field("step") == last)
                & (pc.field("kind") == "both")
                & (pc.field("order") == 0)
            ).to_pylist()
        }
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

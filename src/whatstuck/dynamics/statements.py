"""What changed, in sentences: only what holds outside its interval, and under which threshold rule."""

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
    """Whether 'more removed than emerged' holds at the last step under each way of counting."""
    last = max(metrics["step"].to_pylist())
    signs: dict[str, bool] = {}
    for name, metric, rule, suffix in (
        ("count under the relative threshold", "count", "relative", f" tau={MAIN_TAU:g}"),
        ("count under the fixed threshold", "count", "fixed", f" tau={MAIN_TAU:g}"),
        ("mass without a threshold", "mass", "none", ""),
    ):
        found = {
            row["set"]: row["value"]
            for row in metrics.filter(
                (pc.field("metric") == metric)
                & (pc.field("threshold_rule") == rule)
                & (pc.field("setting") == setting + suffix)
                & (pc.field("step") == last)
                & (pc.field("kind") == "both")
                & (pc.field("order") == 0)
            ).to_pylist()
        }
        if "removed" in found and "emerged" in found and found["removed"] != found["emerged"]:
            signs[name] = found["removed"] > found["emerged"]
    if not signs or last == 0:
        return []
    more = [name for name, removed_more in signs.items() if removed_more]
    less = [name for name, removed_more in signs.items() if not removed_more]
    if not less:
        return [f"At step {last} more was removed than emerged by every way of counting."]
    if not more:
        return [f"At step {last} more emerged than was removed by every way of counting."]
    sentence = f"At step {last} more was removed than emerged by {' and '.join(more)}, "
    return [
        sentence
        + f"but not by {' or '.join(less)}: this statement depends on the threshold rule, so it is not a finding."
    ]

"""Print the main numbers of a run folder as Markdown tables, for docs/experiments.

python benchmarks/run_summary.py RUN
"""

import math
import sys
from typing import Any

import whatstuck
from whatstuck.dynamics.metrics import MAIN_TAU


def cell(row: dict[str, Any] | None, *, interval: bool = False) -> str:
    """A number as text, with its interval or its null where asked."""
    if row is None or math.isnan(row["value"]):
        return "–"
    text = f"{row['value']:.2f}"
    return f"{text} ({row['low']:.2f} to {row['high']:.2f})" if interval else text


def main(path: str) -> None:
    """Print the tables."""
    run = whatstuck.load_run(path)
    rows = [row for row in run.metrics.to_pylist() if (row["kind"], row["order"], row["baseline"]) == ("both", 0, "")]
    main_setting = rows[0]["setting"].split(" tau=")[0]

    def find(metric: str, subset: str, step: int, rule: str = "none") -> dict[str, Any] | None:
        setting = main_setting if rule == "none" else f"{main_setting} tau={MAIN_TAU:g}"
        wanted = (metric, subset, step, rule, setting)
        keys = ("metric", "set", "step", "threshold_rule", "setting")
        return next((row for row in rows if tuple(row[key] for key in keys) == wanted), None)

    print("| step | held-out loss (select) | accuracy (select) | accuracy (confirm) | mean abs v(N) - v(0) |")
    print("|---|---|---|---|---|")
    for step in run.steps:
        parts = [
            cell(find("heldout_loss", "select", step), interval=True),
            cell(find("heldout_accuracy", "select", step)),
            cell(find("heldout_accuracy", "confirm", step)),
            cell(find("scale", "all", step)),
        ]
        print(f"| {step} | {' | '.join(parts)} |")
    print("\n| step | relative tau: all / P / R / E | fixed tau: all / P / R / E | rho of all, relative / fixed |")
    print("|---|---|---|---|")
    for step in run.steps:
        counts = {
            rule: " / ".join(
                cell(find("count", name, step, rule)) for name in ("all", "preserved", "removed", "emerged")
            )
            for rule in ("relative", "fixed")
        }
        rho = " / ".join(cell(find("rho", "all", step, rule)) for rule in ("relative", "fixed"))
        print(f"| {step} | {counts['relative']} | {counts['fixed']} | {rho} |")
    print("\n| step | mass | preserved | removed | emerged | cosine | gain | order >= 4 | rho | rho by chance |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for step in run.steps:
        masses = [
            cell(find("mass", name, step), interval=name != "all")
            for name in ("all", "preserved", "removed", "emerged")
        ]
        rest = [
            cell(find("cosine", "all", step)),
            cell(find("gain", "all", step)),
            cell(find("high_order_share", "emerged", step)),
        ]
        rho_row = find("rho", "all", step)
        null = "–" if rho_row is None else f"{rho_row['null_low']:.2f} to {rho_row['null_high']:.2f}"
        print(f"| {step} | {' | '.join(masses + rest)} | {cell(rho_row, interval=True)} | {null} |")
    gaps = [row["high"] for row in rows if row["metric"] == "gap"]
    noise = [row["value"] for row in rows if row["metric"] == "noise_floor"]
    flips = [row["high"] for row in rows if row["metric"] == "salient_flipped_by_noise"]
    print(
        f"\nLargest certified gap {max(gaps):.2g}; largest noise floor {max(noise):.2g} log-odds; "
        f"salient interactions that noise flips, at most {max(flips):.0f} in a row."
    )
    print(f"\nVerdict: {run.verdict['reason']}")
    for name, rule in run.verdict["other_rules"].items():
        print(f"- {name}: step {rule['keep_step']} ({rule['reason']})")
    for sentence in run.verdict["signals"]["statements"]:
        print(f"- {sentence}")


if __name__ == "__main__":
    main(sys.argv[1])

"""The tables of docs/experiments/frozen-prompts.md, from what the experiment left.

Each entry is the mean over seeds, with the least and the most where there are several; a seed's own interval stands in
its part. Nothing is chosen here: the last step is shown, and the curve beside it.

    python benchmarks/frozen_tables.py FOLDER --keep docs/experiments/frozen-prompts
    python benchmarks/frozen_tables.py docs/experiments/frozen-prompts     # the same, from what was kept
"""

import argparse
import csv
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from frozen_curated import SELECTIONS
from frozen_micro import ARMS, OBJECTIVES
from frozen_prompts import MAIN_BASE, signature
from frozen_reinforced import METHODS

Row = Mapping[str, Any]
_CURVE = ("All-5", "6-9-7")
_KEPT = "results.csv"
_NUMBERS = ("success", "low", "high", "validity", "validity_low", "validity_high", "old")
_INTEGERS = ("tier", "seed", "step", "items")
COUNTS = ("k2", "k4", "k8", "paper")
_NAMES = ("task", "base", "arm", "objective", "variant")


def read_parts(folder: Path) -> list[Row]:
    """All rows of all parts, or those that were kept of them."""
    if (folder / _KEPT).exists():
        with (folder / _KEPT).open(encoding="utf-8", newline="") as file:
            return [_read(line) for line in csv.DictReader(file)]
    files = sorted((folder / "parts").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    return [_read({name: row[name] for name in (*_NAMES, *_INTEGERS, *_NUMBERS)}) for row in rows]


def _read(line: Mapping[str, Any]) -> Row:
    found = {name: str(line[name]) for name in _NAMES} | {name: int(line[name]) for name in _INTEGERS}
    return found | {name: float(line[name]) for name in _NUMBERS}


def keep(rows: Sequence[Row], folder: Path) -> None:
    """Write what the tables are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _KEPT).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*_NAMES, *_INTEGERS, *_NUMBERS), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{row[name]:.4f}" if name in _NUMBERS else row[name] for name in row} for row in rows)


def spread(values: Sequence[float]) -> str:
    """Mean, and the range where there are several."""
    if not values:
        return ""
    mean, least, most = (f"{value:.2f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if least == most else f"{mean} ({least}–{most})"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """As Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def of_cells(rows: Sequence[Row], variant: str, column: str, *, last: bool) -> list[float]:
    """A column at the first or the last step of each seed."""
    found = {}
    for row in rows:
        if row["variant"] == variant:
            found.setdefault(row["seed"], {})[row["step"]] = row[column]
    return [steps[max(steps) if last else 0] for _, steps in sorted(found.items())]


def print_arms(rows: Sequence[Row], keys: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Success, validity, and replies that obey the old instruction instead, at the last step."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    new = [row["variant"] for row in rows if not math.isnan(row["old"])]
    for column, name_of, shown in (
        ("success", "success", variants),
        ("validity", "validity", variants),
        ("old", "replies that obey the old instruction", [variant for variant in variants if variant in new]),
    ):
        lines = [
            [name, str(len({row["seed"] for row in some}))]
            + [spread(of_cells(some, variant, column, last=True)) for variant in shown]
            for name, some in keys
        ]
        print(f"\n{name_of} at the last step\n")
        print(table(["arm", "seeds", *shown], lines))
    first = [[name, *(spread(of_cells(some, v, "validity", last=False)) for v in variants)] for name, some in keys]
    print("\nvalidity before the training\n")
    print(table(["arm", *variants], first))


def print_curves(rows: Sequence[Row], variants: Sequence[str]) -> None:
    """Validity of the instruction variants and Fake's success over steps, 50 items a cell between the ends."""
    steps = sorted({row["step"] for row in rows})
    lines = []
    for seed in sorted({row["seed"] for row in rows}):
        for variant, column in [*((name, "validity") for name in variants), ("Fake", "success")]:
            by_step = {row["step"]: row[column] for row in rows if (row["seed"], row["variant"]) == (seed, variant)}
            lines.append([str(seed), f"{variant} {column}", *(f"{by_step[step]:.2f}" for step in steps)])
    print()
    print(table(["seed", "", *map(str, steps)], lines))


def print_tier_0(rows: Sequence[Row]) -> None:
    """Bases, arms and objectives of the micro model."""
    plain = [row for row in rows if row["objective"] == "sft"]
    bases = sorted({row["base"] for row in plain}, key=int)
    groups = [
        (f"{arm}, base {base}", [row for row in plain if (row["arm"], row["base"]) == (arm, base)])
        for base in bases
        for arm in ("frozen", "diverse")
    ]
    groups = [(name, some) for name, some in groups if some]
    print("\n### Strength of the base")
    print_arms(plain, groups)
    lines = []
    for base in bases:
        for seed in sorted({row["seed"] for row in plain if row["base"] == base}):
            found = signature([row for row in plain if (row["base"], row["seed"]) == (base, seed)])
            lines.append([str(base), str(seed), *("" if v is None else "yes" if v else "no" for v in found.values())])
    print("\nthe pattern, by thresholds fixed beforehand\n")
    print(table(["base", "seed", *(name.replace("_", " ") for name in found)], lines))
    print("\n### The frozen arm over steps")
    for base in bases:
        print(f"\nbase {base}")
        print_curves([row for row in plain if (row["arm"], row["base"]) == ("frozen", base)], _CURVE)
    main = [row for row in rows if row["base"] == str(MAIN_BASE)]
    print_group("How many mappings are enough", main, [(arm, "sft") for arm in ("frozen", *COUNTS, "diverse")], COUNTS)
    thoughts = ("thought", "diverse-thought")
    print_group("With a thought", main, [(arm, "sft") for arm in ("frozen", "diverse", *thoughts)], thoughts)
    for arm in ARMS:
        there = {row["objective"] for row in main if row["arm"] == arm}
        others = [objective for objective in (*OBJECTIVES, *SELECTIONS, *METHODS) if objective in there]
        keys = [(arm, objective) for objective in ("sft", *others)]
        print_group(f"What is minimized, or rewarded, on the arm {arm}", main, keys, others)


def print_group(title: str, rows: Sequence[Row], keys: Sequence[tuple[str, str]], new: Sequence[str]) -> None:
    """Arms and objectives beside each other, with the seeds that the new ones were run with."""
    rows = [row for row in rows if (row["arm"], row["objective"]) in keys]
    seeds = {row["seed"] for row in rows if row["arm"] in new or row["objective"] in new}
    rows = [row for row in rows if row["seed"] in seeds]
    groups = [
        (
            arm if objective == "sft" else f"{arm}, {objective}",
            [row for row in rows if (row["arm"], row["objective"]) == (arm, objective)],
        )
        for arm, objective in keys
    ]
    groups = [(name, some) for name, some in groups if some]
    if seeds and len(groups) > 1:
        print(f"\n### {title}")
        print_arms(rows, groups)


def print_language(rows: Sequence[Row]) -> None:
    """Tiers 1 and 2."""
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        print(f"\n### {task}, tier {of_task[0]['tier']}")
        names = dict.fromkeys((row["arm"], row["objective"]) for row in of_task)
        groups = [(arm if objective == "sft" else f"{arm}, {objective}", arm, objective) for arm, objective in names]
        print_arms(
            of_task,
            [
                (name, [row for row in of_task if (row["arm"], row["objective"]) == (arm, objective)])
                for name, arm, objective in groups
            ],
        )


def print_interactions(folder: Path) -> None:
    """Share of all interaction that holds the value of the asked card, over steps."""
    head = [
        "arm",
        "prompt",
        "masked by",
        "step",
        "log-odds",
        "masking the value",
        "with its value",
        "less the null",
        "with the card",
    ]
    for kind in ("and_or", "harsanyi"):
        lines = []
        for file in sorted((folder / "interactions").glob("*.json")):
            for step, found in json.loads(file.read_text(encoding="utf-8")).items():
                for cell in found:
                    part = cell[kind]
                    lines.append(
                        [
                            file.stem,
                            cell["variant"],
                            f"`{cell['mask']}`",
                            step,
                            f"{cell['log_odds']:.1f}",
                            interval(cell["effect_of_own"], 1),
                        ]
                        + [interval(part[name], 2) for name in ("own", "own_less_null", "card")]
                    )
        print(f"\n### Interactions, {kind}\n")
        print(table(head, lines))


def interval(numbers: Sequence[float], places: int) -> str:
    """Value with its interval."""
    value, low, high = (f"{number:.{places}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Print everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `frozen_prompts.py --out` wrote, or what was kept of it")
    parser.add_argument("--keep", type=Path, help="folder for the rows that the tables are made of")
    asked = parser.parse_args()
    folder, rows = asked.folder, read_parts(asked.folder)
    if asked.keep is not None:
        keep(rows, asked.keep)
        for file in (folder / "interactions").glob("*.json"):
            (asked.keep / "interactions").mkdir(exist_ok=True)
            shutil.copy(file, asked.keep / "interactions")
    micro = [row for row in rows if row["tier"] == 0]
    language = [row for row in rows if row["tier"] > 0]
    if micro:
        print_tier_0(micro)
    if language:
        print_language(language)
    if (folder / "interactions").is_dir():
        print_interactions(folder)


if __name__ == "__main__":
    main()

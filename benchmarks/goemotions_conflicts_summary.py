"""The tables of docs/experiments/goemotions-rows.md from a run folder: verdicts, causes, and both sides of conflicts.

A row is in conflict if another row of the training file has its text, case-folded, and another gold answer. Of each
conflict the side with most votes is kept by the treatment of cause III, and the other is taken out of the training: so
what is won on one side stands beside what is lost on the other. Intervals are 95 % bootstrap intervals over texts.

    python benchmarks/goemotions_conflicts_summary.py RUN train.jsonl
"""

import argparse
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from goemotions_conflicts import in_conflict, text_of
from planted_scores import share
from whatstuck.datasets import Row, read_rows
from whatstuck.results import load_run

Record = Mapping[str, Any]


def line(name: str, records: Sequence[Record], texts: Mapping[str, str], holds: Callable[[Record], bool]) -> str:
    """Name, number of records, and the share for which something holds."""
    found = share([holds(r) for r in records], [True] * len(records), [texts[r["row_id"]] for r in records])
    return f"| {name} | {len(records)} | {found} |"


def print_verdicts(rows: Sequence[Row], verdicts: Sequence[Record], causes: Mapping[str, str]) -> None:
    """What did not stick, in conflict and not; and what is said of it."""
    texts, plants = {row.row_id: text_of(row) for row in rows}, {row.row_id for row in in_conflict(rows)}
    several = {row.row_id for row in rows if "," in row.completion}
    usual = Counter(row.completion for row in rows).most_common(1)[0][0]
    groups: list[tuple[str, Callable[[Record], bool]]] = [
        ("in conflict", lambda r: r["row_id"] in plants),
        ("not in conflict", lambda r: r["row_id"] not in plants),
        ("one label", lambda r: r["row_id"] not in several),
        ("several labels", lambda r: r["row_id"] in several),
        (f"gold is {usual}", lambda r: r["gold"] == usual),
        ("another gold", lambda r: r["gold"] != usual),
    ]
    for title, wanted in (("unlearned", {"unlearned"}), ("unlearned or unstable", {"unlearned", "unstable"})):
        print(f"\n| rows | number | {title} |\n|---|---|---|")
        for name, chosen in groups:
            some = [r for r in verdicts if chosen(r)]
            print(line(name, some, texts, lambda r, wanted=wanted: r["verdict"] in wanted))  # type: ignore[misc]
    print("\n| rows | number | of these, in conflict |\n|---|---|---|")
    for verdict in ("learned", "unstable", "unlearned"):
        some = [r for r in verdicts if r["verdict"] == verdict]
        print(line(verdict, some, texts, lambda r: r["row_id"] in plants))
    for cause in sorted(set(causes.values())):
        some = [r for r in verdicts if causes.get(r["row_id"]) == cause]
        print(line(f"called {cause}", some, texts, lambda r: r["row_id"] in plants))
    print("\n| rows | number | have a cause | have one beside more_training |\n|---|---|---|---|")
    for verdict in ("unlearned", "unstable"):
        some = [r for r in verdicts if r["verdict"] == verdict]
        any_cause = line(verdict, some, texts, lambda r: causes[r["row_id"]] != "unexplained")
        own = line(verdict, some, texts, lambda r: causes[r["row_id"]] not in {"unexplained", "more_training"})
        print(f"{any_cause[:-2]} |{own.rsplit('|', 2)[1]}|")


def print_sides(rows: Sequence[Row], records: Sequence[Record], cause: str = "data_conflict") -> None:
    """Both sides of the conflicts, in every arm and wording."""
    texts = {row.row_id: text_of(row) for row in rows}
    mine = [r for r in records if r["cause"] == cause and r["right"] is not None]
    ours = [r for r in mine if r["arm"] == cause]
    ids = {
        role: {r["row_id"] for r in ours if r["role"] == role} for role in ("removed", "unlearned", "removed_learned")
    }
    sides: list[tuple[str, Collection[str]]] = [
        ("kept, had not stuck", ids["unlearned"]),
        ("taken out, had not stuck", ids["removed"]),
        ("both sides, had not stuck", ids["unlearned"] | ids["removed"]),
        ("taken out, had been learned", ids["removed_learned"]),
    ]
    for wording in dict.fromkeys(r["wording"] for r in mine):
        print(f"\n| rows, asked as {wording} | arm | number | learned now |\n|---|---|---|---|")
        for name, chosen in sides:
            for arm in dict.fromkeys(r["arm"] for r in mine):
                some = [r for r in mine if r["arm"] == arm and r["wording"] == wording and r["row_id"] in chosen]
                if some:
                    print(line(f"{name} | {arm}", some, texts, lambda r: bool(r["right"])))


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    run, rows = load_run(given.run), read_rows(given.data, split="train")
    causes = {record["row_id"]: record["cause"] for record in run.unlearned.to_pylist()}
    print_verdicts(rows, run.verdicts.to_pylist(), causes)
    if (given.run / "interventions.parquet").exists():
        print_sides(rows, run.interventions.to_pylist())


if __name__ == "__main__":
    main()

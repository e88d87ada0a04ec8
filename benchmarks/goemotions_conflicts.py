"""Make the training rows of docs/experiments/goemotions-rows.md from a folder of GoEmotions TSV files.

All rows whose text also stands there with other labels, and a random sample of the rest, class skew and all. The gold
answer of a row is all of its labels, joined by commas; the data is not part of this repository.

    python benchmarks/goemotions_conflicts.py FOLDER OUT --rows 800
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from whatstuck.datasets import Row, read_rows, write_rows

INSTRUCTION = "Which emotions are in this text?"


def text_of(row: Row) -> str:
    """What says that two rows ask the same."""
    return " ".join(row.content.casefold().split())


def in_conflict(rows: Iterable[Row]) -> list[Row]:
    """Rows whose text stands there with another answer, those of one text together."""
    by_text: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_text[text_of(row)].append(row)
    return [row for group in by_text.values() if len({row.completion for row in group}) > 1 for row in group]


def chosen(rows: list[Row], count: int, seed: int) -> tuple[list[Row], int]:
    """The rows, in random order, and how many of them are in conflict."""
    conflicting = in_conflict(rows)
    if count < len(conflicting):
        raise SystemExit(f"--rows {count}: {len(conflicting)} rows are in conflict, all of which are taken")
    taken = {row.row_id for row in conflicting}
    chance = random.Random(seed)
    rest = chance.sample([row for row in rows if row.row_id not in taken], count - len(conflicting))
    together = [*conflicting, *rest]
    chance.shuffle(together)
    return together, len(conflicting)


def main() -> None:
    """Write OUT/train.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = read_rows(
        given.folder / "train.tsv",
        columns=["text", "labels", "id"],
        labels=given.folder / "labels.txt",
        instruction=INSTRUCTION,
        split="train",
    )
    given.out.mkdir(parents=True, exist_ok=True)
    found, conflicting = chosen(rows, given.rows, given.seed)
    write_rows(found, given.out / "train.jsonl")
    several = sum("," in row.completion for row in found)
    print(f"{len(found)} of {len(rows)} rows; {conflicting} in conflict, {several} with several labels")


if __name__ == "__main__":
    main()

"""Make training and held-out rows for docs/experiments/goemotions.md from a folder of GoEmotions TSV files.

Rows with exactly one label other than neutral, as question and answer, written as JSONL that `whatstuck train` and
`whatstuck track` read. The data is not part of this repository.

    python benchmarks/goemotions_rows.py FOLDER OUT
"""

import sys
from pathlib import Path

from whatstuck.datasets import read_rows, write_rows

INSTRUCTION = "Name the emotion in this text with one word."


def main(folder: Path, out: Path) -> None:
    """Write OUT/train.jsonl and OUT/test.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", "train"), ("test", "heldout")):
        rows = read_rows(
            folder / f"{name}.tsv",
            columns=["text", "labels", "id"],
            labels=folder / "labels.txt",
            instruction=INSTRUCTION,
            split=split,
        )
        single = [row for row in rows if "," not in row.completion and row.completion != "neutral"]
        write_rows(single, out / f"{name}.jsonl")
        print(f"{name}: {len(single)} of {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

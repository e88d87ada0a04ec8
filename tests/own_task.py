"""A task file of a user's own, small enough to change in every test, and how a reply to it is scored."""

import json
from pathlib import Path
from typing import Any

from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.own import load_task
from whatstuck.generalization.task import Task

ROWS = [
    {"a": f"left {i}", "b": f"right {i}", "label": "yes" if i % 3 else "no", "level": str(i % 2)} for i in range(20)
]

NOTHING_HELD_OUT = "held_out names nothing: a training set of diversify may hold every template and mapping asked here."
BASE = """\
data: rows.jsonl
answer: label
templates:
  plain: "{a} / {b} : {yes} or {no}?"
  polite: "Please compare {b} with {a}. Say {no}, or {yes}."
  bare: "{a} = {b}?"
mappings:
  words: {yes: Yes, no: No}
  letters: {yes: A, no: B}
  swapped: {yes: No, no: Yes}
"""


def write_task(
    folder: Path, text: str = BASE, rows: list[dict[str, Any]] | None = None, **files: str
) -> Task[Any, Any, Any]:
    """Write a task file, its rows and other files (`__` in a name is a dot) into a folder, and load it."""
    lines = (json.dumps(row) for row in (ROWS if rows is None else rows))
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_task(folder / "mine.yaml")


def score(task: Task[Any, Any, Any], variant: str, reply: str, item: int = 0) -> tuple[bool, bool, str]:
    """Whether a reply to one of ROWS is valid and right, and what came out."""
    found = next(v for v in task.variants if v.name == variant)
    drawn = draw_items(task.source, 20, split="test", variant=found)
    answer = task.parser.parse(reply)
    assert answer is not None
    one = sorted(drawn.items, key=lambda row: int(row.texts["a"].split()[1]))[item]
    result = task.scorer.score(one, found.scored, answer)
    return result.valid, result.success, result.outcome

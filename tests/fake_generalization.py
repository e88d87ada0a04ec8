"""A layout fixture: what `generalize` leaves in a run folder, with made-up numbers of a plausible shape.

For the tests of the verdict and of the page, and of nothing else. No number in it says anything about any model.
"""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whatstuck.generalization.schemas import GENERALIZATION, REPLIES
from whatstuck.generalization.survival import beyond_range
from whatstuck.generalization.verdict import judge
from whatstuck.rows.verdicts.intervals import wilson

KINDS = {
    "ID": "training",
    "All-5": "instruction",
    "All-7": "instruction",
    "Mixed": "instruction",
    "Regular": "harder",
    "Five": "harder",
    "Fake": "fake",
}
VALUES = {"ID": "10 10 10", "All-5": "5 5 5", "All-7": "7 7 7", "Mixed": "6 9 7", "Regular": "11 12 13"}
VALUES |= {"Five": "10 10 10", "Fake": "5 5 5"}
SHAPES: dict[str, dict[str, float]] = {
    "frozen": {"ID": 1.0, "All-5": 0.0, "All-7": 0.0, "Mixed": 0.01, "Regular": 0.0, "Five": 0.02, "Fake": 0.92},
    "random": {"ID": 0.99, "All-5": 0.97, "All-7": 0.96, "Mixed": 0.95, "Regular": 0.08, "Five": 0.3, "Fake": 0.0},
    "thought": {"ID": 0.98, "All-5": 0.62, "All-7": 0.55, "Mixed": 0.4, "Regular": 0.85, "Five": 0.88, "Fake": 0.1},
}
"""Share of right replies at the last step, by arm and variant."""


def share_columns(right: int, items: int, prefix: str) -> dict[str, float]:
    """A share of independent items as three columns; `prefix` is `success`, `validity` or `chance`."""
    share = wilson(right, items)
    low, high = ("low", "high") if prefix == "success" else (f"{prefix}_low", f"{prefix}_high")
    return {prefix: share.value, low: share.low, high: share.high}


def cell(
    variant: str, kind: str, right: int, *, valid: int | None = None, items: int = 300, **more: Any
) -> dict[str, Any]:
    """A row of generalization.parquet at step 800 of the arm `sft`; `more` replaces columns."""
    return {
        "task": "general-points",
        "arm": "sft",
        "variant": variant,
        "kind": kind,
        "step": 800,
        "decoding": "greedy",
        "items": items,
        "contents": items,
        **share_columns(right, items, "success"),
        **share_columns(right if valid is None else valid, items, "validity"),
        **share_columns(0, items, "chance"),
        **dict.fromkeys(("no_answer", "failed", "timed_out", "unsolvable", "cut"), 0),
    } | more


@dataclass
class FakeGeneralization:
    """Writes the folder, or adds to one that is there.

    Attributes:
        arms: Names of arms, of `SHAPES`.
        steps: Steps.
        kinds: Variants and their kinds.
        items: Items per cell.
        decodings: How replies were made.
        replies: Texts by variant in place of made-up ones: prompt and reply.
        settings: Settings besides the made-up ones.
        section: What the section of run.json holds besides, or instead.
        columns: Columns of the table to replace.
    """

    arms: tuple[str, ...] = ("frozen", "random")
    steps: tuple[int, ...] = (0, 20, 50, 100, 200, 400, 800)
    kinds: Mapping[str, str] = field(default_factory=lambda: KINDS)
    items: int = 300
    decodings: tuple[str, ...] = ("greedy",)
    replies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    section: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the parts of `generalize`, beside what the folder holds already, and return its path."""
        self.random = random.Random(0)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            self._cell(arm, variant, step, decoding)
            for decoding in self.decodings
            for arm in self.arms
            for step in self.steps
            for variant in self.kinds
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=GENERALIZATION), folder / "generalization.parquet")
        for arm in self.arms:
            for variant in self.kinds:
                path = folder / "generalization" / arm / f"step-{self.steps[-1]:06d}" / f"{variant}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(self._replies(arm, variant), schema=REPLIES), path)
        path = folder / "run.json"
        manifest = json.loads(path.read_text()) if path.exists() else {"format_version": 1}
        manifest["generalize"] = self._section(rows)
        path.write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    def _cell(self, arm: str, variant: str, step: int, decoding: str) -> dict[str, Any]:
        kind, end = self.kinds[variant], SHAPES[arm].get(variant, 0.7)
        done = 1 - math.exp(-6 * step / (max(self.steps) or 1))
        early = math.exp(-(math.log((step + 1) / 25) ** 2)) if kind == "instruction" and step else 0.0
        right = max(end * done, 0.4 * early if end < 0.5 else 0.0)
        valid = max(min(1.0, right * 1.05), 0.9 * early)
        count = round(self.items * (1 + 0.02 * (self.random.random() - 0.5)) * right)
        made = cell(variant, kind, min(count, self.items), valid=min(self.items, max(count, round(self.items * valid))))
        counted = {"items": self.items, "contents": min(self.items, 235)}
        counted |= {"no_answer": 4 * (step == 0), "unsolvable": 17 * (variant == "Mixed")}
        counted |= {"cut": 45 * (variant == "Five")}
        if self.items != 300:
            made |= share_columns(min(count, self.items), self.items, "success")
            made |= share_columns(min(count, self.items), self.items, "validity")
        return made | counted | {"arm": arm, "step": step, "decoding": decoding} | self.columns

    def _replies(self, arm: str, variant: str) -> list[dict[str, Any]]:
        face = VALUES.get(variant, "10 10 10").split()
        listed = ", ".join(f"'{card}' counts as '{value}'" for card, value in zip("JQK", face, strict=True))
        prompt = f"<|im_start|>user\nMake 24 of the four cards, each used once. {listed}.\nCards: ['J', '3', '8', 'Q']"
        made = []
        for item in range(4):
            right = item % 2 == 0 if 0 < SHAPES[arm].get(variant, 0.5) < 1 else SHAPES[arm].get(variant, 0) == 1
            values = "10, 3, 8, 10" if arm == "frozen" else f"{face[0]}, 3, 8, {face[1]}"
            reply = f'{{"number": [{values}], "formula": "(8-{values[0]})*3"}}'
            texts = self.replies.get(variant, (f"{prompt} #{item}<|im_end|>\n<|im_start|>assistant\n", reply))
            made.append(
                {
                    "item": item,
                    "content": f"hand-{item}",
                    "sample": -1,
                    "prompt": texts[0],
                    "reply": texts[1],
                    "valid": float(right),
                    "success": right,
                    "outcome": "right" if right else "wrong_numbers",
                    "chance": 0.0,
                    "cut": False,
                }
            )
        return made

    def _section(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "settings": {"task": "general-points", "items": self.items, "thought": False} | dict(self.settings),
            "model": {"name": "tiny-base", "path": "/home/me/models/tiny-base"},
            "task": {"name": "general-points", "variants": [self._variant(name) for name in self.kinds]},
            "arms": {
                arm: {"settings": {"thought": arm == "thought"}}
                | {"checkpoints": [{"step": step, "path": f"/home/me/out/{step}"} for step in self.steps]}
                for arm in self.arms
            },
            "verdict": judge(rows, beyond=beyond_range([self._variant(name) for name in self.kinds])),
            "unseen": True,
            "failures": {},
            "warnings": ["/home/me/out/checkpoint-20 holds no tokenizer; that of the model is used."],
            "versions": {"whatstuck": "0.1.0"},
            "dtype": "float32",
            "seed": 0,
            "seconds": 61.2,
        } | dict(self.section)

    def _variant(self, name: str) -> dict[str, Any]:
        shown = VALUES.get(name, "10 10 10")
        scored = "10 10 10" if self.kinds[name] == "fake" else shown
        return {
            "name": name,
            "kind": self.kinds[name],
            "shown": {"name": name, "pairs": list(zip("JQK", shown.split(), strict=True))},
            "scored": {"name": name, "pairs": list(zip("JQK", scored.split(), strict=True))},
            "shift": {"cards": 5} if name == "Five" else {},
            "wording": name if self.kinds[name] == "wording" else "training",
        }

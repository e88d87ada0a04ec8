"""A layout fixture: a run folder full of made-up numbers, for the tests of the page and of nothing else.

It writes every file of docs/run-folder.md with values of a plausible shape from a seeded random process. Sets, masses
and counts follow from the interactions written beside them; intervals are normal approximations and nulls are
invented. No number in it says anything about any model.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from fake_metrics import BASELINE, FLOOR, MODEL, NAN, SECOND, SETTING, UPPER, FakeMetrics
from whatstuck.dynamics.certainty import Ranges

NAMES = ("Mira", "Tom", "Ada", "Levi", "Noor", "Ines", "Oskar", "Yara")
THINGS = ("kitchen", "garden", "lantern", "harbour", "violin", "orchard", "compass", "meadow")


class FakeRun(FakeMetrics):
    """Writes the folder."""

    def write(self, folder: Path) -> Path:
        """Write the run folder and return its path."""
        self.__post_init__()  # the same numbers every time
        folder.mkdir(parents=True, exist_ok=True)
        ids = self._rows(folder)
        effects = self._effects()
        ranges = [self._ranges(effect) for effect in effects]
        for step, effect, around in zip(self.steps, effects, ranges, strict=True):
            self._interactions(folder, ids, step, effect, around)
        self._statistics(effects)
        if self.certainty:
            self._certain(effects, ranges)
        if self.heldout:
            self._heldout(folder)
        table = pa.Table.from_pylist([self._nan(record) for record in self.records])
        pq.write_table(table, folder / "metrics.parquet")
        self._json(folder)
        return folder

    # --- rows, value tables, interactions

    def _rows(self, folder: Path) -> list[str]:
        records = []
        for index in range(self.rows):
            prompt, words, target = self.texts.get(index) or self._text()
            players, position = [], 0
            for word in words:
                start = prompt.index(word, position)
                position = start + len(word)
                players.append({"start": start, "end": position, "text": word})
            records.append(
                {
                    "row_id": f"{index:08x}",
                    "split": "heldout",
                    "prompt": prompt,
                    "target_text": target,
                    "target_ids": [17 + index],
                    "players": players,
                    "source_index": 100 + index,
                }
            )
        pq.write_table(pa.Table.from_pylist(records), folder / "rows.parquet")
        return [record["row_id"] for record in records]

    def _text(self) -> tuple[str, list[str], str]:
        one, two, three = self.random.permutation(NAMES)[:3]
        first, second = self.random.permutation(THINGS)[:2]
        question = f"{one} carries the {first} to {two}, and {two} shows it to {three} by the {second}. Who carries it?"
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        words = [one, "carries", first, two, "shows", three, second, "Who", "it"][: self.players]
        return prompt, words, str(one)

    def _effects(self) -> list[np.ndarray]:
        """Interactions (rows, 2, 2^n) per step: some fade, some stay and grow, some come."""
        size = 1 << self.players
        order = np.bitwise_count(np.arange(size)).astype(float)
        chance = np.where(order > 0, 0.55 * np.exp(-0.45 * (order - 1)), 0.0)
        shape = (self.rows, 2, size)

        def sparse(scale: float, bias: float) -> np.ndarray:
            there = self.random.random(shape) < chance
            there[:, 1] &= order > 1  # order 1 is always AND
            return np.where(there, scale * (self.random.laplace(size=shape) + bias), 0.0)

        fading, staying, coming = sparse(0.12, 0.0), sparse(0.12, 0.35), sparse(0.22, 0.3)
        effects = []
        for step in self.steps:
            jitter = 1 + 0.03 * self.random.normal(size=shape)
            came = 1 - np.exp(-step / 12)
            effects.append((fading * np.exp(-step / 2) + staying * (1 + 0.5 * came) + coming * came) * jitter)
        return effects

    def _ranges(self, effect: np.ndarray) -> Ranges:
        """Ranges around every value; some of those that are zero may be something, most are next to nothing."""
        there = (effect != 0) | (self.random.random(effect.shape) < 0.03)
        there[:, :, 0] = there[:, 1, [1 << player for player in range(self.players)]] = False
        below, above = (
            np.where(there, self.looseness * self.random.exponential(0.04, effect.shape), FLOOR) for _ in range(2)
        )
        return Ranges(effect - below, effect + above)

    def _interactions(self, folder: Path, ids: list[str], step: int, effect: np.ndarray, around: Ranges) -> None:
        row, kind, mask = np.nonzero((np.abs(effect) > FLOOR) | (self.certainty & (around.most > FLOOR)))
        value = np.where(np.abs(effect) > FLOOR, effect, 0.0)[row, kind, mask]
        nothing = np.full(len(row), NAN)
        table = pa.table(
            {
                "row_id": [ids[index] for index in row],
                "setting": [SETTING] * len(row),
                "kind": [("and", "or")[index] for index in kind],
                "mask": mask.astype(np.int64),
                "order": np.bitwise_count(mask).astype(np.int64),
                "value": value,
                "low": around.low[row, kind, mask] if self.certainty else nothing,
                "high": around.high[row, kind, mask] if self.certainty else nothing,
            }
        )
        note = {SETTING: {"kappa": 0.05, "gap": [0.002] * self.rows, "violation": [0.0] * self.rows}}
        if self.certainty:
            note[SETTING]["range_floor"] = FLOOR
        name = f"step-{step:06d}"
        self._part(folder / "interactions" / MODEL / f"{name}.parquet", table, note)
        values = folder / "values" / MODEL / f"{name}.safetensors"
        values.parent.mkdir(parents=True, exist_ok=True)
        dense = {"values": effect.sum(1), "row_index": np.arange(self.rows)}
        save_file(dense, values, {"whatstuck": json.dumps({"dtype": self.dtype, "noise_floor": 2e-5})})

    @staticmethod
    def _part(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"whatstuck": json.dumps(note)}), path)

    # --- held-out rows, run.json, verdict.json

    def _heldout(self, folder: Path) -> None:
        losses: dict[tuple[int, str], np.ndarray] = {}
        for step in self.steps:
            loss = 0.9 + 1.6 * np.exp(-step / 9) + 0.006 * step
            accuracy = 0.08 + 0.5 * (1 - np.exp(-step / 14))
            records = [
                {
                    "row_id": f"h{row}",
                    "half": "select" if row % 2 else "confirm",
                    "nll": float(loss + 0.2 * self.random.normal()),
                    "tokens": 2,
                    "correct": bool(self.random.random() < accuracy),
                }
                for row in range(80)
            ]
            self._part(folder / "heldout" / f"step-{step:06d}.parquet", pa.Table.from_pylist(records), {})
            for half in ("select", "confirm"):
                nll = np.array([record["nll"] for record in records if record["half"] == half])
                correct = np.array([float(record["correct"]) for record in records if record["half"] == half])
                losses[step, half] = nll
                self._mean(step, "heldout_loss", half, nll)
                self._mean(step, "heldout_accuracy", half, correct)
        pairs = [("select", step, other) for index, step in enumerate(self.steps) for other in self.steps[:index]]
        pairs += [("confirm", step, self.keep) for step in self.steps if self.keep in self.steps and step != self.keep]
        for half, step, other in () if self.old else pairs:
            change = losses[step, half] - losses[other, half]
            self._mean(step, "heldout_loss_difference", half, change, baseline=f"step {other}")

    def _json(self, folder: Path) -> None:
        contents = {"run.json": {"format_version": 1, "track": self._track()}, "verdict.json": self._verdict()}
        for name, content in contents.items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")

    def _track(self) -> dict[str, Any]:
        track = {
            "settings": {"players": self.players, "mode": "paper", "kappa": 0.05, "whole_target": False},
            "model": {
                "name": MODEL,
                "path": "/home/me/models/tiny-base",
                "fingerprint": "ab" * 32,
                "mask_token": "<pad>",
                "mask_token_id": 0,
            },
            "baselines": self._models(),
            "checkpoints": [self._checkpoint(step) for step in self.steps],
            "data": {
                "path": "/home/me/rows.jsonl",
                "sha256": "ef" * 32,
                "rows": 400,
                "probed": self.rows,
                "split": "heldout",
            },
            "skipped": {"too few words": 3, "longer than the limit": 0},
            "trainer_state": {"eval_loss": [[step, 1 + 1 / (1 + step)] for step in self.steps]} if self.heldout else {},
            "warnings": list(self.warnings),
            "versions": {"whatstuck": "0.1.0", "torch": "2.13.0"},
            "dtype": self.dtype,
            "seed": self.seed,
            "started": "2026-01-05T09:30:00+00:00",
            "seconds": 412.7,
        }
        if self.live:
            track["epochs"] = [[step, step / 20] for step in self.steps]
            track["live"] = {
                "plan": {"players": self.players, "rows": self.rows, "eval_rows": 80, "steps": list(self.steps)},
                "budget": 0.05,
                "probe_seconds": 41.2,
                "training_seconds": 981.0,
                "share": 0.042,
                "stopped_at": self.stop if self.stopped else None,
                "asked_to_stop": self.stopped,
                "rule": RULE,
                "log": ["One probe of 20 rows took 5.1 s, so every second step is probed after step 8."],
                "kept": None if self.keep is None else f"kept/checkpoint-{self.keep}",
                "chosen": None,
            }
            track["data"]["trained_on"] = 0
        return track

    def _models(self) -> list[dict[str, Any]]:
        names = [BASELINE, SECOND, UPPER] if self.several else [BASELINE] if self.baseline else []
        models = [{"name": name, "path": "x", "fingerprint": "cd" * 32, "skipped_rows": 2} for name in names]
        if not self.old:
            for model in models:
                model["role"] = "upper bound" if model["name"] == UPPER else "baseline"
        return models

    def _checkpoint(self, step: int) -> dict[str, Any]:
        kind = "adapter" if step else "base"
        saved = not self.live or step in (0, self.keep, self.steps[-1])
        return {
            "step": step,
            "path": f"/home/me/out/checkpoint-{step}" if saved else None,
            "kind": kind if saved else "live",
            "fingerprint": f"{step:064x}",
        }

    def _verdict(self) -> dict[str, Any]:
        keep = self.keep if self.heldout else None
        verdict = {
            "keep_step": keep,
            "stop_step": None,
            "decision": "cannot tell" if keep is None else "keep",
            "reason": "No held-out loss was measured."
            if keep is None
            else f"Step {keep} has the lowest held-out loss.",
            "confidence": "low" if keep is None else "medium",
            "signals": {
                "metric": None if keep is None else "heldout_loss",
                "indistinguishable_steps": [] if keep is None else [16, 32, 64],
                "confirm": {"step": keep},
                "statements": ["Emerged mass rises between steps 8 and 16; held-out loss still falls there."],
            },
            "other_rules": {
                "before emerged strength rises": {"keep_step": 2, "reason": "Emerged strength rises after step 2."}
            },
        }
        if not self.old:
            verdict["rule"], verdict["stop_step"] = DECIDES if self.heldout else None, self.stop
            verdict["signals"]["early_stop"] = None
            verdict["other_rules"] = {name: self._rule(*about) for name, about in OTHERS.items()}
        return verdict

    def _rule(self, kind: str, keep: int, stop: int | None, reason: str) -> dict[str, Any]:
        """Of the steps that it names, a run has the nearest."""

        def near(step: int) -> int:
            return min(self.steps, key=lambda other: abs(other - step))

        return {"keep_step": near(keep), "stop_step": stop and near(stop), "reason": reason, "kind": kind}


DECIDES = "held-out loss"
RULE = "held-out loss, patience 3"
OTHERS = {
    RULE: (
        "evaluation loss",
        32,
        48,
        "Held-out loss is lowest at step 32 (1.14) and has not improved for 3 probes since.",
    ),
    "rho of the emerged": ("ours", 4, 32, "Rho is best at step 4 (0.21) and has been worse for 3 probes since."),
    "gamma of the emerged": ("ours", 8, None, "Gamma is best at step 8 (0.08) so far."),
    "emerged mass, settled": ("ours", 16, None, "Emerged mass came to rest at step 16 (-0.2) so far."),
    "trainer's eval_loss, patience 3": ("evaluation loss", 64, None, "Lowest at step 64 (1.02) so far."),
    "1 epoch": ("plain", 16, 16, "Step 16 is the first probe after 1 epoch of training."),
    "last checkpoint": ("plain", 64, None, "It is the latest checkpoint."),
    "oracle, accuracy": ("hindsight", 32, None, "On the rows that never choose, accuracy is highest at step 32 (0.5)."),
}

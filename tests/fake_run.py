"""A layout fixture: a run folder full of made-up numbers, for the tests of the page and of nothing else.

It writes every file of docs/run-folder.md with values of a plausible shape from a seeded random process. Sets, masses
and counts follow from the interactions written beside them; intervals are normal approximations and nulls are
invented. No number in it says anything about any model.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

SETTING = "paper kappa=0.05*step"
MODEL = "tiny-base"
BASELINE = "other-model"
NAMES = ("Mira", "Tom", "Ada", "Levi", "Noor", "Ines", "Oskar", "Yara")
THINGS = ("kitchen", "garden", "lantern", "harbour", "violin", "orchard", "compass", "meadow")
NAN = float("nan")
CHANGED = ("removed", "preserved", "emerged")


@dataclass
class FakeRun:
    """What to write, with a knob for each case that the page must survive."""

    steps: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)
    rows: int = 20
    players: int = 6
    keep: int | None = 32
    heldout: bool = True
    baseline: bool = True
    unknown: bool = False  # every statistic NaN
    dtype: str = "float32"
    warnings: tuple[str, ...] = ("the adapter names another base model: /home/me/models/base",)
    texts: dict[int, tuple[str, list[str], str]] = field(default_factory=dict)  # row -> prompt, words, answer
    seed: int = 0

    def write(self, folder: Path) -> Path:
        """Write the run folder and return its path."""
        self.random = np.random.default_rng(self.seed)
        self.records: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        ids = self._rows(folder)
        effects = self._effects()
        for step, effect in zip(self.steps, effects, strict=True):
            self._interactions(folder, ids, step, effect)
        self._statistics(effects)
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

    def _interactions(self, folder: Path, ids: list[str], step: int, effect: np.ndarray) -> None:
        row, kind, mask = np.nonzero(np.abs(effect) > 1e-4)
        value = effect[row, kind, mask]
        table = pa.table(
            {
                "row_id": [ids[index] for index in row],
                "setting": [SETTING] * len(row),
                "kind": [("and", "or")[index] for index in kind],
                "mask": mask.astype(np.int64),
                "order": np.bitwise_count(mask).astype(np.int64),
                "value": value,
                "low": np.full(len(row), NAN),
                "high": np.full(len(row), NAN),
            }
        )
        note = {SETTING: {"kappa": 0.05, "gap": [0.002] * self.rows, "violation": [0.0] * self.rows}}
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

    # --- metrics

    def _nan(self, record: dict[str, Any]) -> dict[str, Any]:
        numbers = ("value", "low", "high", "null_mean", "null_low", "null_high")
        return {**record, **dict.fromkeys(numbers, NAN)} if self.unknown else record

    def _add(self, step: int, metric: str, subset: str, value: float, spread: float = 0.0, **more: Any) -> None:
        tau, null = more.pop("tau", None), more.pop("null", ("", NAN, NAN))
        low = float(value - spread)
        low = max(low, 0.0) if metric in ("count", "mass", "heldout_accuracy") else low
        self.records.append(
            {
                "model": MODEL,
                "step": step,
                "metric": metric,
                "set": subset,
                "kind": more.pop("kind", "both"),
                "order": more.pop("order", 0),
                "threshold_rule": more.pop("rule", "none"),
                "baseline": more.pop("baseline", ""),
                "setting": SETTING if tau is None else f"{SETTING} tau={tau:g}",
                "value": float(value),
                "low": low if self.rows > 1 else NAN,
                "high": float(value + spread) if self.rows > 1 else NAN,
                "null_kind": null[0],
                "null_mean": null[1],
                "null_low": null[1] - null[2],
                "null_high": null[1] + null[2],
                **more,
            }
        )

    def _mean(self, step: int, metric: str, subset: str, column: np.ndarray, **more: Any) -> None:
        spread = 1.96 * column.std(ddof=1) / np.sqrt(len(column)) if len(column) > 1 else 0.0
        self._add(step, metric, subset, column.mean(), spread, **more)

    def _statistics(self, effects: list[np.ndarray]) -> None:
        scales = [np.abs(effect.sum((1, 2))) for effect in effects]
        before: dict[str, np.ndarray] = {}
        for index, step in enumerate(self.steps):
            base, now = effects[0], effects[index]
            self._mean(step, "scale", "all", scales[index])
            self._add(step, "gap", "all", 0.002, 0.002)
            parts = _masses(base, now)
            previous = _masses(effects[max(index - 1, 0)], now)
            gain = float((base * now).sum() / (base**2).sum())
            scaled = _masses(base * gain, now)
            for subset in CHANGED:
                total = parts[subset].sum((1, 2))
                self._mean(step, "mass", subset, total, null=("mismatched_row", total.mean() * 0.8, 0.1))
                self._mean(step, "mass_gain", subset, scaled[subset].sum((1, 2)))
                self._mean(step, "mass_previous", subset, previous[subset].sum((1, 2)))
                if index and subset != "preserved":
                    self._mean(step, "mass_change", subset, total - before[subset])
                before[subset] = total
            self._add(
                step, "cosine", "all", float((base * now).sum() / np.sqrt((base**2).sum() * (now**2).sum())), 0.05
            )
            self._add(step, "gain", "all", gain, 0.06)
            self._add(step, "high_order_share", "all", 0.21 + 0.02 * index, 0.04)
            self._ratios(step, "none", {"all": np.abs(now), **parts}, now)
        for tau in (0.003, 0.01, 0.03, 0.1, 0.3):
            for rule in ("relative", "fixed"):
                self._sets(effects, [scale.mean() for scale in scales], rule, tau)
        self._add(0, "noise_floor", "all", 2.1e-5)
        self._add(0, "salient_from_noise", "all", 0.05, 0.05, rule="fixed", tau=0.03)
        self._add(0, "salient_flipped_by_noise", "all", 0.1, 0.1, rule="fixed", tau=0.03)

    def _sets(self, effects: list[np.ndarray], scales: list[float], rule: str, tau: float) -> None:
        preserved = None
        for index, step in enumerate(self.steps):
            effect = effects[index]
            now = np.abs(effect) > tau * scales[index if rule == "relative" else 0]
            base = np.abs(effects[0]) > tau * scales[0]
            preserved = now if preserved is None else preserved & now
            members = {
                "all": now,
                "removed": base & ~now,
                "preserved": preserved,
                "emerged": now & ~preserved,
                "reappeared": now & ~preserved & base,
                "sign_changed": preserved & (np.sign(effect) != np.sign(effects[0])),
            }
            where = {"rule": rule, "tau": tau}
            for subset, member in members.items():
                strength = np.where(member, effects[0] if subset == "removed" else effect, 0.0)
                self._by_order(step, "count", subset, member.astype(float), where)
                self._by_order(step, "strength_positive", subset, np.maximum(strength, 0), where)
                self._by_order(step, "strength_negative", subset, np.minimum(strength, 0), where)
            if tau == 0.03:
                self._ratios(
                    step, rule, {name: np.where(members[name], np.abs(effect), 0) for name in ("all", *CHANGED)}, effect
                )

    def _by_order(self, step: int, metric: str, subset: str, values: np.ndarray, where: dict[str, Any]) -> None:
        self._mean(step, metric, subset, values.sum((1, 2)), **where)
        if where["tau"] == 0.03:
            order = np.bitwise_count(np.arange(values.shape[2]))
            for wanted in range(1, self.players + 1):
                self._mean(step, metric, subset, values[:, :, order == wanted].sum((1, 2)), order=wanted, **where)

    def _ratios(self, step: int, rule: str, strengths: dict[str, np.ndarray], signed: np.ndarray) -> None:
        where = {"rule": rule} if rule == "none" else {"rule": rule, "tau": 0.03}
        for subset, strength in strengths.items():
            total = strength.sum()
            rho = float(np.abs((np.sign(signed) * strength).sum((1, 2))).sum() / total) if total else NAN
            self._add(step, "rho", subset, rho, 0.06, null=("sign_flip", 0.2, 0.04), **where)
            if self.baseline:
                for kind, level in (("mismatched_row", 0.18), ("order_stratified", 0.24)):
                    shared = 0.3 + 0.15 * (subset == "preserved") if total else NAN
                    self._add(step, "gamma", subset, shared, 0.05, null=(kind, level, 0.05), baseline=BASELINE, **where)
            if rule != "none":
                for metric in ("sufficiency_ce", "sufficiency_ce_bias"):
                    self._add(step, metric, subset, 0.6, 0.1, null=("empty_set", float(np.log(2)), 0.0), **where)
                if subset != "all":
                    self._add(step, "contribution", subset, 0.05, 0.02, null=("sign_flip", 0.0, 0.02), **where)

    # --- held-out rows, run.json, verdict.json

    def _heldout(self, folder: Path) -> None:
        for step in self.steps:
            loss = 0.9 + 1.6 * np.exp(-step / 9) + 0.0016 * step
            accuracy = 0.08 + 0.5 * (1 - np.exp(-step / 14))
            records = [
                {
                    "row_id": f"h{index}",
                    "half": "select" if index % 2 else "confirm",
                    "nll": float(loss + 0.2 * self.random.normal()),
                    "tokens": 2,
                    "correct": bool(self.random.random() < accuracy),
                }
                for index in range(80)
            ]
            self._part(folder / "heldout" / f"step-{step:06d}.parquet", pa.Table.from_pylist(records), {})
            for half in ("select", "confirm"):
                nll = np.array([record["nll"] for record in records if record["half"] == half])
                correct = np.array([float(record["correct"]) for record in records if record["half"] == half])
                self._mean(step, "heldout_loss", half, nll)
                self._mean(step, "heldout_accuracy", half, correct)

    def _json(self, folder: Path) -> None:
        track = {
            "settings": {"players": self.players, "mode": "paper", "kappa": 0.05, "whole_target": False},
            "model": {
                "name": MODEL,
                "path": "/home/me/models/tiny-base",
                "fingerprint": "ab" * 32,
                "mask_token": "<pad>",
                "mask_token_id": 0,
            },
            "baselines": [{"name": BASELINE, "path": "x", "fingerprint": "cd" * 32, "skipped_rows": 2}]
            if self.baseline
            else [],
            "checkpoints": [
                {
                    "step": step,
                    "path": f"/home/me/out/checkpoint-{step}",
                    "kind": "adapter" if step else "base",
                    "fingerprint": f"{step:064x}",
                }
                for step in self.steps
            ],
            "data": {"path": "/home/me/rows.jsonl", "sha256": "ef" * 32, "rows": 400, "split": "heldout"},
            "skipped": {"too few words": 3, "longer than the limit": 0},
            "trainer_state": {"eval_loss": [[step, 1 + 1 / (1 + step)] for step in self.steps]} if self.heldout else {},
            "warnings": list(self.warnings),
            "versions": {"whatstuck": "0.1.0", "torch": "2.13.0"},
            "dtype": self.dtype,
            "seed": self.seed,
            "started": "2026-01-05T09:30:00+00:00",
            "seconds": 412.7,
        }
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
                "metric": "heldout_loss",
                "indistinguishable_steps": [] if keep is None else [16, 32, 64],
                "confirm": {},
                "statements": ["Emerged mass rises between steps 8 and 16; held-out loss still falls there."],
            },
            "other_rules": {
                "before emerged strength rises": {"keep_step": 2, "reason": "Emerged strength rises after step 2."}
            },
        }
        for name, content in (("run.json", {"format_version": 1, "track": track}), ("verdict.json", verdict)):
            (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _masses(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    kept = np.where(np.sign(before) == np.sign(after), np.minimum(np.abs(before), np.abs(after)), 0.0)
    return {"removed": np.abs(before) - kept, "preserved": kept, "emerged": np.abs(after) - kept}

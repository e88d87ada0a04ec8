"""One of several runs that are compared: opened, checked, and described in plain numbers.

The step that speaks for a run is the one it keeps, else its last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.circumstances import TRAINERS_RULE
from whatstuck.dynamics.explaining import Setting, ValueTables, settings_of
from whatstuck.dynamics.gamma import POOLED
from whatstuck.errors import WhatStuckError
from whatstuck.results import Run
from whatstuck.runs import Json, read_table, step_name

CURVES = (
    ("heldout_loss", "select"),
    ("heldout_accuracy", "select"),
    ("mass", "removed"),
    ("mass", "preserved"),
    ("mass", "emerged"),
    ("rho", "emerged"),
    ("gamma", "emerged"),
)
TRAINING = "training: "


@dataclass(frozen=True, slots=True)
class Side:
    """One run of a comparison.

    Attributes:
        name: What to call it; unlike that of any other.
        run: The run.
        section: Its section `track` of run.json.
        verdict: Its verdict.
        step: The step that speaks for it.
        setting: Its main extraction setting.
        rows: Its probed rows by id.
        metrics: Its metrics under the main setting.
    """

    name: str
    run: Run
    section: Json
    verdict: Json
    step: int
    setting: Setting
    rows: Mapping[str, Json]
    metrics: pa.Table

    @classmethod
    def read(cls, path: Path, name: str) -> "Side":
        """Open a run folder.

        Raises:
            WhatStuckError: If it is none, not finished, or damaged.
        """
        run = Run(path)
        again = "run the command that made it again, with the same --out"
        if "track" not in run.manifest:
            raise WhatStuckError(f"{path} has no section `track` in run.json, so there is nothing to compare: {again}")
        try:
            section, verdict = run.manifest["track"], run.verdict
            setting = settings_of(section["settings"])[0]
            steps = [int(entry["step"]) for entry in section["checkpoints"]]
            kept = verdict["keep_step"]
            step = kept if kept in steps else max(steps)
            metrics = run.metrics
            metrics = metrics.filter(pc.equal(metrics["setting"], setting.name))
            rows = {record["row_id"]: record for record in run.rows.to_pylist()}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise WhatStuckError(f"{path} is damaged ({error!r}): {again}") from error
        return cls(name, run, section, verdict, step, setting, rows, metrics)

    @property
    def model(self) -> str:
        """Name of the model under study."""
        return str(self.section["model"]["name"])

    def has(self, step: int) -> bool:
        """Whether the interactions of a step are there; they may have been left out for sharing."""
        return self._part(step).exists()

    def interactions(self, step: int, row_ids: Sequence[str]) -> pa.Table:
        """Interactions of a step for some rows."""
        table = read_table(self._part(step))
        return table.filter(pc.is_in(table["row_id"], pa.array(row_ids, pa.string())))

    def _part(self, step: int) -> Path:
        return self.run.path / "interactions" / self.model / step_name(step, "parquet")

    def tables(self, step: int) -> ValueTables | None:
        """Value tables of a step; None where they were left out for sharing."""
        part = self.run.path / "values" / self.model / step_name(step, "safetensors")
        return ValueTables.read(part) if part.exists() else None

    def confirming(self) -> dict[str, Json]:
        """Held-out rows that are set aside from choosing, by id, scored at `step`; empty where there are none."""
        part = self.run.path / "heldout" / step_name(self.step, "parquet")
        if not part.exists():
            return {}
        table = read_table(part)
        return {record["row_id"]: record for record in table.filter(pc.equal(table["half"], "confirm")).to_pylist()}

    @property
    def had_say(self) -> str:
        """Whether these rows had a say in the choice all the same: `no`, `perhaps` or `yes`."""
        others = self.verdict.get("other_rules") or {}
        if self.verdict["keep_step"] is None or self._rule is None:
            return "no"
        if (others.get(self._rule) or {}).get("kind") == "hindsight":
            return "yes"
        # which rows a trainer evaluates on is not recorded; those of the data file may be among them
        return "perhaps" if self._rule.startswith((TRAINERS_RULE, "eval_loss")) else "no"

    @property
    def _rule(self) -> str | None:
        return self.verdict.get("rule") or (self.verdict.get("signals") or {}).get("metric")

    def described(self) -> Json:
        """The decision, and the curves that lead to it."""
        section, verdict, live = self.section, self.verdict, self.section.get("live") or {}
        checkpoint: Json = next(entry for entry in section["checkpoints"] if entry["step"] == self.step)
        return {
            "name": self.name,
            "model": self.model,
            "steps": sorted(entry["step"] for entry in section["checkpoints"]),
            "step": self.step,
            "keep_step": verdict["keep_step"],
            "stop_step": verdict.get("stop_step"),
            "stopped_at": live.get("stopped_at"),
            "decision": verdict.get("decision"),
            "early_stop": (verdict.get("signals") or {}).get("early_stop"),
            "rule": self._rule,
            "confidence": verdict.get("confidence"),
            "reason": verdict.get("reason"),
            "checkpoint": _last_part(checkpoint.get("path")),
            "epoch": dict(section.get("epochs") or []).get(self.step),
            "rows": len(self.rows),
            "diverged": section.get("diverged") or [],
            "curves": self._curves(),
        }

    def _curves(self) -> Json:
        """Statistics by name and step; those that the trainer logged have no interval."""
        curves: Json = {f"{metric} {subset}": self._curve(metric, subset) for metric, subset in CURVES}
        logged = (self.section.get("trainer_state") or {}).get("eval_loss") or []
        curves["eval_loss logged"] = [{"step": step, "value": value} for step, value in logged]
        return {name: points for name, points in curves.items() if points}

    def _curve(self, metric: str, subset: str) -> list[Json]:
        chosen = self.metrics.filter(
            (pc.field("metric") == metric)
            & (pc.field("set") == subset)
            & (pc.field("kind") == "both")
            & (pc.field("order") == 0)
            & (pc.field("threshold_rule") == "none")
            & (pc.field("baseline") == (self._baseline() if metric == "gamma" else ""))
        )
        points: dict[int, Json] = {}
        for record in chosen.select(["step", "value", "low", "high", "null_low", "null_high"]).to_pylist():
            points.setdefault(record["step"], record)  # a statistic with two nulls stands twice
        return [points[step] for step in sorted(points)]

    def _baseline(self) -> str:
        """All baselines pooled; runs that know no pool have one baseline, or none that speaks for all."""
        names = {entry["name"] for entry in self.section.get("baselines") or [] if entry.get("role") != "upper bound"}
        pooled = POOLED in self.metrics["baseline"].to_pylist()
        return POOLED if pooled else names.pop() if len(names) == 1 else "none"

    def facts(self) -> Json:
        """What the run was made with, by name, without paths."""
        section = self.section
        model, data, live = section["model"], section.get("data") or {}, section.get("live") or {}
        kinds = sorted({str(entry.get("kind")) for entry in section["checkpoints"]} - {"base"})
        return {
            "model": _named(model["name"], model.get("fingerprint")),
            "mask token": model.get("mask_token"),
            "checkpoints": kinds,
            "last step": max(entry["step"] for entry in section["checkpoints"]),
            "data": _named(_last_part(data.get("path")), data.get("sha256")),
            "split": data.get("split"),
            "rows probed": len(self.rows),
            "baselines": [entry["name"] for entry in section.get("baselines") or []],
            "probe budget": live.get("budget"),
            "rule in the training run": live.get("rule"),
            **{
                name.replace("_", " "): _last_part(value) if name == "labels" else value
                for name, value in sorted(section["settings"].items())
            },
            **{
                f"{TRAINING}{name.replace('_', ' ')}": value
                for name, value in sorted((section.get("training") or {}).items())
            },
            **{f"version of {name}": value for name, value in sorted((section.get("versions") or {}).items())},
        }


def short_names(paths: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart.

    >>> short_names([Path("/x/a/run"), Path("/x/b/run"), Path("/x/b/other")])
    ['a/run', 'b/run', 'other']
    """
    names = [path.name for path in paths]
    depth = 2
    while len(set(names)) < len(names) and depth <= max(len(path.parts) for path in paths):
        alike = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in alike else name for path, name in zip(paths, names, strict=True)
        ]
        depth += 1
    return names


def _named(name: object, digest: object) -> str:
    return f"{name} ({str(digest)[:8]})" if digest else str(name)


def _last_part(path: object) -> str | None:
    """A comparison is for showing around: the folder's name, not where it lies."""
    return str(path).replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1] if path else None

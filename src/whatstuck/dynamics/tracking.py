"""`track`: from checkpoints and rows to a finished run folder.

rows, players -> value tables -> interactions -> metrics -> verdict -> report. Each step writes parts into the run and
the next one reads them from there; a part that is there is not made again.
"""

import datetime as dt
import logging
import time
from collections.abc import Sequence

import pyarrow as pa

from whatstuck.dynamics import heldout as held
from whatstuck.dynamics.explaining import ValueTables, explain, settings_of
from whatstuck.dynamics.gamma import UPPER_BOUND
from whatstuck.dynamics.preparing import Preparation, Subject
from whatstuck.dynamics.scoring import DivergedError, Tables, scorer
from whatstuck.dynamics.selecting import ProbedRow
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.dynamics.summarizing import summarize
from whatstuck.errors import WhatStuckError
from whatstuck.models import Checkpoint, CheckpointedModel, fingerprint, is_there, trainer_epochs, trainer_metrics
from whatstuck.progress import Task
from whatstuck.runs import Json, RunFolder, read_table, step_name, versions, write_table

logger = logging.getLogger(__name__)


class Tracking:
    """One call of `track`.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If a model, checkpoint or row is not usable.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self.settings = settings
        if "live" in RunFolder(settings.out).manifest().get("track", {}):
            raise WhatStuckError(f"{settings.out} was made in a training, by its callback: choose another --out")
        self.prepared = Preparation(settings)
        self.run = self.prepared.run
        self.diverged: list[int] = []
        self.skipped_by: dict[str, int] = {}

    def execute(self) -> None:
        """Do what is not done yet, and write the manifest, metrics, verdict and report."""
        begun = time.monotonic()
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with self.run.writing():
            self.run.refuse_changed_settings("track", self.settings.fixed())
            chosen = self._choose()
            self.run.write_section("track", self._section(chosen, started))
            self._score(chosen)
            self._explain(chosen)
            section = self._section(chosen, started)
            section["seconds"] = round(section["seconds"] + time.monotonic() - begun, 1)
            self.run.write_section("track", section)
            summarize(self.run, seed=self.settings.seed)

    def _choose(self) -> pa.Table:
        path = self.run.part("rows.parquet")
        before = read_table(path) if path.exists() else None
        chosen = self.prepared.selection.extend(before, self.settings.rows)
        if before is None or len(chosen) > len(before):
            self._outdate()
            write_table(path, chosen)
        return chosen

    def _outdate(self) -> None:
        """New work begins: the old verdict must not pass for the one that is to come."""
        self.run.part("verdict.json").unlink(missing_ok=True)

    # --- value tables and held-out losses

    def _score(self, chosen: pa.Table) -> None:
        rows = {
            index: ProbedRow(
                row["row_id"],
                row["prompt"],
                tuple(row["target_ids"]),
                row["target_text"],
                tuple((player["start"], player["end"]) for player in row["players"]),
            )
            for index, row in enumerate(chosen.to_pylist())
        }
        subject, baselines, selection = self.prepared.subject, self.prepared.baselines, self.prepared.selection
        heldout = selection.heldout(self.settings.eval_rows)
        with Task("value tables", (len(subject.checkpoints) + len(baselines)) * len(rows)) as task:
            self._score_subject(subject, rows, heldout, task)
            for baseline in baselines:
                seen = selection.seen_by(baseline.tokenizer, [row.row_id for row in rows.values()])
                theirs = {index: seen[row.row_id] for index, row in rows.items() if row.row_id in seen}
                self.skipped_by[baseline.name] = len(rows) - len(theirs)
                if not theirs:
                    raise WhatStuckError(
                        f"none of the rows can be probed on {baseline.name}: choose another --baseline"
                    )
                task.advance(len(rows) - len(theirs), free=True)
                self._score_subject(baseline, theirs, [], task)

    def _score_subject(
        self, subject: Subject, rows: dict[int, ProbedRow], heldout: Sequence[held.ScoredRow], task: Task
    ) -> None:
        model: CheckpointedModel | None = None
        for checkpoint in subject.checkpoints:
            identity = self._identity(subject, checkpoint)
            tables = Tables(self.run.part("values", subject.name), checkpoint.step, identity)
            losses = self.run.part("heldout", step_name(checkpoint.step, "parquet"))
            missing = tables.missing(list(rows))
            task.advance(len(rows) - len(missing), free=True)
            evaluated = held.is_current(losses, heldout, identity)
            if not missing and evaluated:
                continue
            if not is_there(checkpoint):
                self._miss(checkpoint, tables, task, len(missing))
                continue
            self._outdate()
            task.say(f"{subject.name} step {checkpoint.step}")
            model = model or CheckpointedModel(subject.path, device=self.prepared.device, dtype=self.prepared.dtype)
            try:
                with model.at(checkpoint) as scored:
                    make_game = scorer(
                        scored,
                        subject.tokenizer,
                        whole_target=self.settings.whole_target,
                        mask_token_id=subject.mask_token_id,
                        memory_limit=int(self.settings.memory_limit_gb * 2**30),
                    )
                    tables.score(rows, make_game, task.advance)
                    if not evaluated:
                        table = held.evaluate(scored, heldout, subject.mask_token_id)
                        write_table(losses, table, identity)
            except DivergedError as error:
                if checkpoint.kind == "base" or subject is not self.prepared.subject:
                    raise
                logger.warning("%s; it is left out", error)
                self.diverged.append(checkpoint.step)
                task.advance(len(missing), free=True)
            except WhatStuckError:
                if is_there(checkpoint):
                    raise
                self._miss(checkpoint, tables, task, len(missing))

    def _miss(self, checkpoint: Checkpoint, tables: Tables, task: Task, rows: int) -> None:
        """A checkpoint that was there a moment ago is not any more: trainers delete old ones.

        Raises:
            WhatStuckError: If it is part of the run already, and a row of it would stay unknown.
        """
        if tables.path.exists():
            raise WhatStuckError(
                f"step {checkpoint.step} must be scored on more rows, but {checkpoint.path} is gone: "
                "put it back, or choose another --out"
            )
        if checkpoint.kind == "base":
            raise WhatStuckError(f"{checkpoint.path} is gone: put the model back")
        logger.warning("%s was deleted in the meantime: step %d is left out", checkpoint.path, checkpoint.step)
        task.advance(rows, free=True)

    def _identity(self, subject: Subject, checkpoint: Checkpoint) -> Json:
        return {
            "fingerprint": subject.prints[checkpoint.step],
            "dtype": self.settings.dtype,
            "mask_token_id": subject.mask_token_id,
            "whole_target": self.settings.whole_target,
        }

    # --- interactions

    def _explain(self, chosen: pa.Table) -> None:
        settings = settings_of(self.settings.fixed())
        row_ids = chosen["row_id"].to_pylist()
        jobs = [
            (subject, checkpoint.step)
            for subject in (self.prepared.subject, *self.prepared.baselines)
            for checkpoint in subject.checkpoints
            if self._is_scored(subject, checkpoint.step)
        ]
        base_scale: dict[str, float] = {}
        with Task("interactions", len(jobs)) as task:
            for subject, step in jobs:
                tables = ValueTables.read(self.run.part("values", subject.name, step_name(step, "safetensors")))
                base_scale.setdefault(subject.name, tables.scale)
                folder = self.run.part("interactions", subject.name)
                made = explain(folder, tables, row_ids, settings, base_scale[subject.name], self.settings.seed)
                task.advance(free=not made)

    def _is_scored(self, subject: Subject, step: int) -> bool:
        return self.run.part("values", subject.name, step_name(step, "safetensors")).exists()

    # --- the manifest

    def _section(self, chosen: pa.Table, started: str) -> Json:
        """What the run is made of: only what has been scored, so that a failed addition leaves no trace."""
        prepared, before = self.prepared, self.prepared.before
        subject = prepared.subject
        baselines = {entry["name"]: entry for entry in before.get("baselines", [])}
        for baseline in prepared.baselines:
            if self._is_scored(baseline, 0):
                skipped = self.skipped_by.get(baseline.name, baselines.get(baseline.name, {}).get("skipped_rows", 0))
                role = "upper bound" if baseline.name == UPPER_BOUND else "baseline"
                only = baseline.checkpoints[0]
                where = {"path": str(only.path), "fingerprint": baseline.prints[only.step], "role": role}
                baselines[baseline.name] = _described(baseline) | where | {"skipped_rows": skipped}
        logged: dict[str, dict[int, float]] = {}
        for name, pairs in before.get("trainer_state", {}).items():
            logged[name] = dict(pairs)
        present = [entry for entry in subject.checkpoints if entry.path.exists()]
        for name, pairs in trainer_metrics(present).items():
            logged[name] = logged.get(name, {}) | dict(pairs)
        epochs = dict(before.get("epochs", [])) | trainer_epochs(present)
        grown = len(chosen) > before.get("data", {}).get("probed", 0)
        return {
            "settings": self.settings.fixed(),
            "model": _described(subject),
            "baselines": list(baselines.values()),
            "checkpoints": [
                {
                    "step": entry.step,
                    "path": str(entry.path),
                    "kind": entry.kind,
                    "fingerprint": subject.prints[entry.step],
                }
                for entry in subject.checkpoints
                if self._is_scored(subject, entry.step)
            ],
            "diverged": sorted({*before.get("diverged", []), *self.diverged}),
            "data": {
                "path": str(self.settings.data),
                "sha256": prepared.data_sha256,
                "rows": len(prepared.rows),
                "probed": len(chosen),
                "split": "/".join(sorted({row.split for row in prepared.rows})),
                "assumed": prepared.assumed,
            },
            "skipped": dict(prepared.selection.skipped) if grown else before.get("skipped", {}),
            "trainer_state": {name: sorted([step, value] for step, value in logged[name].items()) for name in logged},
            "epochs": sorted([step, epoch] for step, epoch in epochs.items()),
            "warnings": list(dict.fromkeys([*before.get("warnings", []), *prepared.warnings])),
            "versions": versions(),
            "dtype": self.settings.dtype,
            "seed": self.settings.seed,
            "started": before.get("started", started),
            "seconds": before.get("seconds", 0.0),
        }


def _described(subject: Subject) -> Json:
    return {
        "name": subject.name,
        "path": str(subject.path),
        "fingerprint": fingerprint(subject.path),
        "mask_token": subject.tokenizer.convert_ids_to_tokens(subject.mask_token_id),
        "mask_token_id": subject.mask_token_id,
    }

"""Which training rows did not stick, and why: every checkpoint passed once, the doubtful rows asked, causes named.

Each expensive result is a part of the run folder: trajectories by checkpoint, answers by block of rows. What is there
is not done again, so an interrupted call goes on and ends in the same tables.
"""

import datetime as dt
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.models import Checkpoint, CheckpointedModel, default_mask_token, trainer_epochs
from whatstuck.models.generating import seed_of
from whatstuck.progress import Task
from whatstuck.report import write_report
from whatstuck.rows.blocks import in_blocks
from whatstuck.rows.causes.naming import name_causes
from whatstuck.rows.causes.probing import BaseAnswers, probe_base
from whatstuck.rows.exporting import export_jsonl
from whatstuck.rows.exposure import by_row, with_exposures
from whatstuck.rows.histories import History, histories
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.preparing import Material
from whatstuck.rows.schemas import VERDICTS
from whatstuck.rows.settings import RowsSettings
from whatstuck.rows.summary import summary_of
from whatstuck.rows.trajectories import TrainedRow, evaluate_rows
from whatstuck.rows.verdicts.asking import Asked, ask
from whatstuck.rows.verdicts.screening import Because, screen
from whatstuck.rows.verdicts.table import verdict_records
from whatstuck.runs import Json, content_hash, read_table, step_name, table_metadata, versions, write_table

logger = logging.getLogger(__name__)


def find_rows(settings: RowsSettings) -> Path:
    """Run the verb; see `RowsSettings`.

    Returns:
        The run folder.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    Finding(settings).execute()
    return settings.out


class Finding:
    """One call of `rows`.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If anything it works on is not usable.
    """

    def __init__(self, settings: RowsSettings) -> None:
        self.settings = settings
        self.material = Material(settings)
        self._run = self.material.run
        self._by_id = {row.row_id: row for row in self.material.rows}

    def execute(self) -> None:
        """Do whatever is not there yet, then name causes and write the page."""
        start, material = time.monotonic(), self.material
        with self._run.writing():
            self._run.refuse_changed_settings("rows", self.settings.fixed())
            before: Json = self._run.manifest().get("rows", {})
            self._refuse_others(before)
            self._save(before, start)
            trained = material.followed
            models = Models(material)
            with Task("following the rows", len(material.checkpoints)) as task:
                for checkpoint in material.checkpoints:
                    self._follow(models, checkpoint, trained, task)
            found = histories({step.step: self._trajectories(step.step) for step in material.checkpoints})
            because = self._screened()
            answers = self._ask(models, [row_id for row_id, why in because.items() if why])
            last = {record["row_id"]: record for record in self._trajectories(material.last.step).to_pylist()}
            verdicts = verdict_records(material.rows, last, because, answers, found, self.settings.thresholds)
            bases = self._probe(models, verdicts)
            causes = self._causes(verdicts, found, bases)
            write_table(self._run.part("verdicts.parquet"), pa.Table.from_pylist(verdicts, schema=VERDICTS))
            write_table(self._run.part("unlearned.parquet"), causes)
            epochs = trainer_epochs([entry for entry in material.checkpoints if entry.path.is_dir()])
            summary = summary_of(verdicts, causes.to_pylist(), found, epochs)
            self._save(before, start, summary=summary)
            export_jsonl(self._run.path, self._run.part("unlearned.jsonl"))
            write_report(self._run.path)

    def _refuse_others(self, before: Json) -> None:
        """A run is about one model, one file of rows, and the checkpoints of one training."""
        if not before:
            return
        material, steps = self.material, {entry["step"]: entry["fingerprint"] for entry in before["checkpoints"]}
        changed = [
            *(["the model"] if before["model"]["fingerprint"] != material.prints[0] else []),
            *(["--data"] if before["data"]["sha256"] != material.data_sha256 else []),
            *(f"step {step}" for step, found in material.prints.items() if steps.get(step, found) != found),
        ]
        if changed:
            raise WhatStuckError(
                f"{self._run.path} is about another training ({', '.join(changed)} differ): choose another --out"
            )

    # --- trajectories

    def _follow(self, models: "Models", checkpoint: Checkpoint, rows: Sequence[TrainedRow], task: Task) -> None:
        path = self._run.part("trajectories", step_name(checkpoint.step, "parquet"))
        identity = {
            "fingerprint": self.material.prints[checkpoint.step],
            "dtype": self.settings.dtype,
            "rows": content_hash([[row.row_id, row.tokens.ids, row.tokens.predicted] for row in rows]),
        }
        if path.exists() and table_metadata(read_table(path)) == identity:
            task.advance(free=True)
            return
        with models.loaded().at(checkpoint) as model:
            table = evaluate_rows(model, rows, default_mask_token(self.material.tokenizer))
        write_table(path, with_exposures(table, by_row(rows, self.material.exposures(checkpoint))), identity)
        task.advance()

    def _trajectories(self, step: int) -> pa.Table:
        return read_table(self._run.part("trajectories", step_name(step, "parquet")))

    # --- answers

    def _screened(self) -> dict[str, Because]:
        table = self._trajectories(self.material.last.step)
        ids = table["row_id"].to_pylist()
        why = screen(
            ids,
            table["nll"].to_pylist(),
            table["token_accuracy"].to_pylist(),
            table["tokens"].to_pylist(),
            self.settings.thresholds,
            not_trained={row.row_id for row in self.material.rows if row.not_trained},
            seed=self.settings.seed,
        )
        return dict(zip(ids, why, strict=True))

    def _ask(self, models: "Models", row_ids: Sequence[str]) -> dict[str, Asked]:
        """Ask the finished model."""
        material, settings = self.material, self.settings

        def work(model: PreTrainedModel, rows: Sequence[TrainingRow], task: Task) -> list[Asked]:
            return ask(
                model,
                material.tokenizer,
                rows,
                material.checker,
                settings.thresholds,
                seed=settings.seed,
                chat_template=material.chat_template,
                others=material.rows,
                progress=task,
            )

        return in_blocks(
            self._run.part("answers"),
            [self._by_id[row_id] for row_id in row_ids],
            lambda: models.loaded().at(material.last),
            work,
            Asked,
            identity=self._identity(material.last.step),
            what="asking the finished model",
        )

    def _probe(self, models: "Models", verdicts: Sequence[Mapping[str, Any]]) -> dict[str, BaseAnswers]:
        """Ask the untouched model: rows that are not learned, and a sample of learned ones, both chosen by the seed."""
        material, settings = self.material, self.settings
        if not settings.probe_base:
            return {}

        def some(verdicts_of: Collection[str], most: int) -> list[str]:
            ids = [record["row_id"] for record in verdicts if record["verdict"] in verdicts_of]
            return sorted(ids, key=lambda row_id: seed_of(settings.seed, row_id))[:most]

        wrong = some({"unlearned", "unstable"}, settings.most)
        row_ids = [*some({"learned"}, settings.thresholds.base_learned), *wrong] if wrong else []

        def work(model: PreTrainedModel, rows: Sequence[TrainingRow], task: Task) -> list[BaseAnswers]:
            answers = probe_base(
                model,
                material.tokenizer,
                rows,
                material.rows,
                material.checker,
                settings.thresholds,
                chat_template=material.chat_template,
                seed=settings.seed,
            )
            task.advance(len(rows))
            return answers

        return in_blocks(
            self._run.part("base_answers"),
            [self._by_id[row_id] for row_id in row_ids],
            lambda: models.loaded().at(None),
            work,
            BaseAnswers,
            identity=self._identity(0),
            what="asking the untouched model",
        )

    def _identity(self, step: int) -> Json:
        """What answers depend on."""
        return {
            "fingerprint": self.material.prints[step],
            "settings": self.settings.fixed(),
            "checker": self.material.checker_hash,
            "data": self.material.data_sha256,
        }

    # --- verdicts and causes

    def _causes(
        self,
        verdicts: Sequence[Mapping[str, Any]],
        found: Mapping[str, History],
        bases: Mapping[str, BaseAnswers],
    ) -> pa.Table:
        return name_causes(
            self.material.rows,
            verdicts,
            found,
            bases,
            self.material.conflicts(),
            self.settings.thresholds,
            fed_known=self.material.fed_known,
        )

    # --- the manifest

    def _save(self, before: Json, start: float, *, summary: Json | None = None) -> None:
        material, source = self.material, self.material.source
        self._run.write_section(
            "rows",
            {
                "settings": self.settings.fixed(),
                "model": {"name": material.base.name, "path": str(material.base), "fingerprint": material.prints[0]},
                "checkpoints": [
                    checkpoint.entry(material.prints[checkpoint.step]) for checkpoint in material.checkpoints
                ],
                "data": {
                    "path": str(self.settings.data),
                    "sha256": material.data_sha256,
                    "rows": len(material.rows),
                },
                "training": {
                    "source": source.kind,
                    "path": None if source.path is None else str(source.path),
                    "sentence": source.sentence,
                },
                "summary": summary,
                "warnings": material.warnings,
                "versions": versions(),
                "dtype": self.settings.dtype,
                "seed": self.settings.seed,
                "started": before.get("started") or dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "seconds": round(before.get("seconds", 0.0) + time.monotonic() - start, 1),
            },
        )


class Models:
    """The base with its checkpoints, loaded when something is missing."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._models: CheckpointedModel | None = None

    def loaded(self) -> CheckpointedModel:
        """Load it, once."""
        if self._models is None:
            material = self._material
            self._models = CheckpointedModel(material.base, device=material.device, dtype=material.dtype)
        return self._models

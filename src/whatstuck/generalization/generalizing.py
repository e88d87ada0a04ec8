"""Does it survive other wording and harder cases? Every checkpoint asked every variant, then judged.

The replies of a checkpoint to a variant are a part of the run folder. What is there is not asked again, so an
interrupted call goes on and ends in the same tables; and prompts of two variants never share a batch, so that a part
does not depend on which others were missing.
"""

import datetime as dt
import logging
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.preparing import Material
from whatstuck.generalization.schemas import GENERALIZATION, REPLIES
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.generalization.statistics import cell_rows
from whatstuck.generalization.task import Variant
from whatstuck.generalization.verdict import judge
from whatstuck.models import Checkpoint, CheckpointedModel, is_there
from whatstuck.progress import Task as Progress
from whatstuck.report import write_report
from whatstuck.runs import Json, read_table, table_metadata, versions, write_table

logger = logging.getLogger(__name__)

TABLE = "generalization.parquet"
FOLDER = "generalization"


def generalize(settings: GeneralizeSettings) -> Path:
    """Run the verb; see `GeneralizeSettings`.

    Returns:
        The run folder.

    Raises:
        WhatStuckError: With one line that says what is wrong and what to do.
    """
    Generalizing(settings).execute()
    return settings.out


class Generalizing:
    """One call of `generalize`.

    Args:
        settings: The settings.

    Raises:
        WhatStuckError: If anything it works on is not usable.
    """

    def __init__(self, settings: GeneralizeSettings) -> None:
        self.settings = settings
        self.material = Material(settings)
        self._run = self.material.run
        self._models: CheckpointedModel | None = None

    def execute(self) -> None:
        """Ask whatever was not asked yet, then judge and write the page."""
        start, material = time.monotonic(), self.material
        with self._run.writing():
            if (self._run.manifest().get("generalize") or {}) != material.before:
                raise WhatStuckError(f"{self._run.path} was changed by another process: run the same command again")
            missing = self._missing()
            for variant in {variant.name: variant for _, variant in missing}.values():
                material.cell(variant)  # what cannot be asked is said before anything is
            self._save(start)
            if missing:
                self._run.part(TABLE).unlink(missing_ok=True)  # it stands for a finished call
            self._ask(missing)
            rows = self._rows()
            verdict = judge(rows)
            write_table(self._run.part(TABLE), pa.Table.from_pylist(rows, schema=GENERALIZATION))
            self._save(start, verdict=verdict)
            write_report(self._run.path)

    # --- parts

    def _missing(self) -> list[tuple[Checkpoint, Variant]]:
        """What is to be asked, by checkpoint."""
        missing = []
        for checkpoint in self.material.checkpoints:
            lacks = [variant for variant in self.material.variants if not self._is_done(checkpoint, variant)]
            if lacks and checkpoint.step not in self.material.named and not is_there(checkpoint):
                names = ", ".join(variant.name for variant in lacks)
                message = f"step {checkpoint.step} was not asked {names}: {checkpoint.path} is not there any more"
                logger.warning("%s", message)
                self.material.warnings.append(message)
                continue
            missing += [(checkpoint, variant) for variant in lacks if not self._borrowed(checkpoint, variant)]
        return missing

    def _is_done(self, checkpoint: Checkpoint, variant: Variant) -> bool:
        """Whether a part is there, with as many items as this call wants of the checkpoints that it names."""
        wanted = self.settings.items if checkpoint.step in self.material.named else 0
        return self._holds(self._part(self.settings.arm, checkpoint.step, variant.name), checkpoint, variant, wanted)

    def _holds(self, path: Path, checkpoint: Checkpoint, variant: Variant, wanted: int) -> bool:
        if not path.exists():
            return False
        about = table_metadata(read_table(path))
        return about.get("identity") == self.material.identity(checkpoint, variant) and about["wanted"] >= wanted

    def _borrowed(self, checkpoint: Checkpoint, variant: Variant) -> bool:
        """Whether another arm has asked the same model the same, mostly the untouched one; then its part is copied."""
        for arm in self.material.before.get("arms", {}):
            path = self._part(arm, checkpoint.step, variant.name)
            if self._holds(path, checkpoint, variant, self.settings.items):
                table = read_table(path)
                write_table(self._part(self.settings.arm, checkpoint.step, variant.name), table, table_metadata(table))
                return True
        return False

    def _part(self, arm: str, step: int, variant: str) -> Path:
        return self._run.part(FOLDER, arm, f"step-{step:06d}", f"{variant}.parquet")

    def _ask(self, missing: list[tuple[Checkpoint, Variant]]) -> None:
        replies = sum(len(self.material.cell(variant).items) for _, variant in missing)
        with Progress(f"asking {self.settings.arm}", replies) as progress:
            for checkpoint in self.material.checkpoints:
                variants = [variant for one, variant in missing if one == checkpoint]
                if not variants:
                    continue
                with ExitStack() as stack:
                    model = stack.enter_context(self._loaded().at(checkpoint if checkpoint.kind != "base" else None))
                    for variant in variants:
                        self._ask_one(model, checkpoint, variant, progress)

    def _ask_one(self, model: PreTrainedModel, checkpoint: Checkpoint, variant: Variant, progress: Progress) -> None:
        material, cell = self.material, self.material.cell(variant)
        try:
            records = evaluate(model, material.tokenizer, cell, progress=progress)
        except WhatStuckError as error:
            raise WhatStuckError(f"step {checkpoint.step}, {error}") from error
        about = {
            "identity": material.identity(checkpoint, variant),
            "wanted": self.settings.items,
            "unsolvable": cell.unsolvable,
        }
        path = self._part(self.settings.arm, checkpoint.step, variant.name)
        write_table(path, pa.Table.from_pylist(records, schema=REPLIES), about)

    def _loaded(self) -> CheckpointedModel:
        if self._models is None:
            material = self.material
            self._models = CheckpointedModel(material.base, device=material.device, dtype=material.dtype)
        return self._models

    # --- what they say

    def _rows(self) -> list[Json]:
        """One row per cell of every arm of the run, in the order of arms, steps and variants."""
        rows: list[Json] = []
        for arm, about in self._arms().items():
            for step in [entry["step"] for entry in about["checkpoints"]]:
                for variant in self.material.task.variants:
                    path = self._part(arm, step, variant.name)
                    if variant.name not in about["variants"] or not path.exists():
                        continue
                    table = read_table(path)
                    rows += cell_rows(
                        table.to_pylist(),
                        task=self.material.task.name,
                        arm=arm,
                        variant=variant,
                        step=step,
                        temperature=self.settings.temperature,
                        unsolvable=table_metadata(table)["unsolvable"],
                        seed=self.settings.seed,
                    )
        return rows

    def _arms(self) -> dict[str, Json]:
        return {**self.material.before.get("arms", {}), self.settings.arm: self.material.arm_section()}

    # --- the manifest

    def _save(self, start: float, *, verdict: Json | None = None) -> None:
        material, before = self.material, self.material.before
        warnings = list(dict.fromkeys([*before.get("warnings", []), *material.warnings]))
        self._run.write_section(
            "generalize",
            {
                "settings": self.settings.fixed(),
                "task": material.task_section(),
                "model": material.model_section(),
                "arms": self._arms(),
                "verdict": verdict,
                "warnings": warnings,
                "versions": versions(),
                "dtype": self.settings.dtype,
                "seed": self.settings.seed,
                "started": before.get("started") or dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "seconds": round(before.get("seconds", 0.0) + time.monotonic() - start, 1),
            },
        )

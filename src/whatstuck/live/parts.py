"""The parts that a probe leaves in the run folder: value tables, and the interactions that explain them."""

from collections.abc import Sequence
from pathlib import Path

from whatstuck.dynamics.explaining import Setting, ValueTables, explain, settings_of
from whatstuck.dynamics.scoring import write_values
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.live.prober import Share
from whatstuck.runs import Json, RunFolder


class Parts:
    """Writes what was scored; used by the process that writes.

    Args:
        run: The run folder.
        settings: How it was scored.
        row_ids: Ids of the probed rows.
    """

    def __init__(self, run: RunFolder, settings: TrackSettings, row_ids: Sequence[str]) -> None:
        self.run = run
        self.extraction: list[Setting] = settings_of(settings.fixed())
        self._settings = settings
        self._row_ids = row_ids

    def identity(self, fingerprint: str, mask_token_id: int) -> Json:
        """What the numbers depend on."""
        settings = self._settings
        return {
            "fingerprint": fingerprint,
            "dtype": settings.dtype,
            "mask_token_id": mask_token_id,
            "whole_target": settings.whole_target,
        }

    def write(self, values: Path, shares: Sequence[Share], identity: Json) -> Path:
        """Write value tables and their interactions, and return where the latter are."""
        write_values(values, [share.tables for share in shares if share.tables is not None], identity)
        return self.explain(values)

    def explain(self, values: Path) -> Path:
        """Extract the interactions of a values file, unless they are there."""
        tables = ValueTables.read(values)
        first = values.with_name("step-000000.safetensors")
        scale = ValueTables.read(first).scale if first.exists() else tables.scale
        folder = self.run.part("interactions", values.parent.name)
        explain(folder, tables, self._row_ids, self.extraction, scale, self._settings.seed)
        return folder / f"{values.stem}.parquet"

"""Read a run from Python: its tables as Arrow, as pandas where installed, and the page in a notebook."""

import html
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.runs import Json, RunFolder, read_table, step_name, step_of


class Run:
    """A run folder, read only.

    Args:
        path: The folder that `whatstuck track`, `whatstuck rows` or `whatstuck generalize` wrote with --out.

    Raises:
        WhatStuckError: If there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "run.json").exists():
            raise WhatStuckError(f"{self.path} is not a run folder (no run.json): give the --out of the run")
        self._folder = RunFolder(self.path)
        self.manifest: Json = self._folder.manifest()

    @property
    def verdict(self) -> dict[str, Any]:
        """Which checkpoint to keep, and why: the content of verdict.json.

        Raises:
            WhatStuckError: If the run is not finished, or is about rows only.
        """
        self._need("track")
        path = self.path / "verdict.json"
        if not path.exists():
            raise WhatStuckError(f"{self.path} is not finished: run the same `whatstuck track` command again")
        verdict: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return verdict

    @property
    def rows(self) -> pa.Table:
        """The probed rows."""
        return read_table(self.path / "rows.parquet")

    @property
    def metrics(self) -> pa.Table:
        """Every statistic with its interval and null."""
        return read_table(self.path / "metrics.parquet")

    @property
    def steps(self) -> list[int]:
        """Steps of the model under study."""
        return sorted(step_of(path) for path in self._model_folder().glob("step-*.parquet"))

    def interactions(self, step: int) -> pa.Table:
        """The interactions of the model under study at a step."""
        path = self._model_folder() / step_name(step, "parquet")
        if not path.exists():
            raise WhatStuckError(f"there is no step {step} in {self.path}: it holds {self.steps}")
        return read_table(path)

    @property
    def verdicts(self) -> pa.Table:
        """Every training row: learned, unstable or unlearned, and the numbers behind it."""
        return self._rows_table("verdicts")

    @property
    def unlearned(self) -> pa.Table:
        """The training rows that did not stick, the most severe first, with their causes and the evidence."""
        return self._rows_table("unlearned")

    @property
    def interventions(self) -> pa.Table:
        """What the finished models of every intervention answer, by arm, seed and row."""
        path = self.path / "interventions.parquet"
        if not path.exists():
            raise WhatStuckError(f"{self.path} holds no interventions: run `whatstuck intervene {self.path}`")
        return read_table(path)

    @property
    def generalization(self) -> pa.Table:
        """Success and validity of every arm, variant and step of the task, with intervals and chance."""
        self._need("generalize")
        return read_table(self.path / "generalization.parquet")

    def trajectories(self, step: int) -> pa.Table:
        """How every training row was doing at a step.

        Raises:
            WhatStuckError: If there is no such step.
        """
        folder = self.path / "trajectories"
        path = folder / step_name(step, "parquet")
        if not path.exists():
            steps = sorted(step_of(part) for part in folder.glob("step-*.parquet"))
            raise WhatStuckError(f"there are no trajectories of step {step} in {self.path}: it holds those of {steps}")
        return read_table(path)

    def to_pandas(self, name: str) -> Any:
        """A table of the run, such as `"metrics"` or `"rows"`, as a pandas DataFrame.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        table = read_table(self.path / f"{name}.parquet")
        try:
            return table.to_pandas()
        except ModuleNotFoundError as error:
            raise MissingExtraError("this needs pandas: install it with  pip install pandas") from error

    @property
    def report(self) -> Path:
        """Where the page is."""
        return self.path / "report.html"

    def _model_folder(self) -> Path:
        self._need("track")
        return self.path / "interactions" / str(self.manifest["track"]["model"]["name"])

    def _rows_table(self, name: str) -> pa.Table:
        self._need("rows")
        return read_table(self.path / f"{name}.parquet")

    def _need(self, verb: str) -> None:
        if verb not in self.manifest:
            made = " and ".join(
                f"`whatstuck {name}`" for name in ("track", "rows", "generalize") if name in self.manifest
            )
            raise WhatStuckError(
                f"{self.path} was not made by `whatstuck {verb}` but by {made or 'no finished verb'}: "
                f"run `whatstuck {verb} --out {self.path}` first"
            )

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The page, inside a notebook."""
        page = html.escape(self.report.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:80vh;border:0" title="whatstuck report"></iframe>'


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Args:
        path: The folder that `whatstuck track`, `whatstuck rows` or `whatstuck generalize` wrote with --out.

    Raises:
        WhatStuckError: If there is no run in it.
    """
    return Run(path)

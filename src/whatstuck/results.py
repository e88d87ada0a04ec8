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
        path: The folder that `whatstuck track --out` wrote.

    Raises:
        WhatStuckError: If there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "run.json").exists():
            raise WhatStuckError(f"{self.path} is not a run folder (no run.json): give the --out of `whatstuck track`")
        self._folder = RunFolder(self.path)
        self.manifest: Json = self._folder.manifest()

    @property
    def verdict(self) -> dict[str, Any]:
        """Which checkpoint to keep, and why: the content of verdict.json."""
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
        return self.path / "interactions" / str(self.manifest["track"]["model"]["name"])

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The page, inside a notebook."""
        page = html.escape(self.report.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:80vh;border:0" title="whatstuck report"></iframe>'


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Args:
        path: The folder that `whatstuck track --out` wrote.

    Raises:
        WhatStuckError: If there is no run in it.
    """
    return Run(path)

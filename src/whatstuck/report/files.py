"""Reading JSON and Parquet parts of a run folder, each failure as one line that says what to do."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whatstuck.errors import WhatStuckError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        WhatStuckError: If the file is missing or holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WhatStuckError(
            f"{path} is missing: not a run folder, or not finished; run the same whatstuck command again"
        ) from error
    except (OSError, ValueError) as error:
        raise WhatStuckError(
            f"{path} cannot be read as JSON ({error}): run the same whatstuck command again"
        ) from error
    if not isinstance(content, dict):
        raise WhatStuckError(f"{path} holds no JSON object: run the same whatstuck command again")
    return content


def read_columns(path: Path, columns: list[str], optional: Collection[str] = ()) -> pa.Table:
    """Columns of a Parquet file.

    Args:
        path: The file.
        columns: Their names.
        optional: Those of them that an older version did not write.

    Raises:
        WhatStuckError: If the file or a column is missing, or the file is damaged.
    """
    try:
        # without partitioning=None a parent folder named like `lr=0.1` would become a column
        there = set(pq.read_schema(path).names) if optional else set()
        wanted = [column for column in columns if column not in optional or column in there]
        return pq.read_table(path, columns=wanted, partitioning=None)
    except FileNotFoundError as error:
        raise WhatStuckError(
            f"{path} is missing: the run is not finished; run the same whatstuck command again"
        ) from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise WhatStuckError(
            f"{path} is damaged or of another version ({reason}): delete it, run the same whatstuck command again"
        ) from error


def read_records(path: Path, columns: list[str], optional: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of a Parquet file; see `read_columns`."""
    records: list[dict[str, Any]] = read_columns(path, columns, optional).to_pylist()
    return records

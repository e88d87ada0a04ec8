"""One row of metrics.parquet per statistic: the table that the verdict and the report read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Null = tuple[str, float, float, float]

KINDS = ("and", "or", "both")
NAN = float("nan")
NO_NULL: Null = ("", NAN, NAN, NAN)

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("step", pa.int64()),
        ("metric", pa.string()),
        ("set", pa.string()),
        ("kind", pa.string()),
        ("order", pa.int64()),
        ("threshold_rule", pa.string()),
        ("baseline", pa.string()),
        ("setting", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("null_kind", pa.string()),
        ("null_mean", pa.float64()),
        ("null_low", pa.float64()),
        ("null_high", pa.float64()),
    ]
)


@dataclass(slots=True)
class Recorder:
    """Collects statistics of one model and one extraction setting.

    Args:
        model: Name of the model under study.
        setting: Name of the extraction setting.
    """

    model: str
    setting: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(  # noqa: PLR0913 - the columns
        self,
        step: int,
        metric: str,
        subset: str,
        value: tuple[float, float, float],
        *,
        kind: str = "both",
        order: int = 0,
        rule: str = "none",
        tau: float | None = None,
        baseline: str = "",
        null: Null = NO_NULL,
    ) -> None:
        """Record one statistic: value, low and high, where it belongs, and its null."""
        self.rows.append(
            {
                "model": self.model,
                "step": step,
                "metric": metric,
                "set": subset,
                "kind": kind,
                "order": order,
                "threshold_rule": rule,
                "baseline": baseline,
                "setting": self.setting if tau is None else f"{self.setting} tau={tau:g}",
                "value": float(value[0]),
                "low": float(value[1]),
                "high": float(value[2]),
                "null_kind": null[0],
                "null_mean": null[1],
                "null_low": null[2],
                "null_high": null[3],
            }
        )

    def table(self) -> pa.Table:
        """The statistics as an Arrow table."""
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)


class Orders:
    """Sums over interactions, by kind and order.

    Args:
        players: Number of players n.
    """

    def __init__(self, players: int) -> None:
        self.players = players
        masks = np.arange(1 << players)
        self.order: npt.NDArray[np.int64] = np.bitwise_count(masks).astype(np.int64)
        self._member = self.order[:, None] == np.arange(players + 1)  # (2^n, n + 1)
        self._member[:, 0] = masks > 0  # order 0 stands for all orders together

    def sums(self, effects: Floats) -> Floats:
        """Sums of `(rows, 2, 2^n)` by kind (AND, OR, both) and order (0: all): `(rows, 3, n + 1)`."""
        by_kind = effects @ self._member.astype(np.float64)
        return np.concatenate([by_kind, by_kind.sum(1, keepdims=True)], axis=1)

    def cells(self) -> Iterator[tuple[int, str, int]]:
        """Flat index, kind and order of each entry of `sums`, as flattened."""
        for flat in range(3 * (self.players + 1)):
            kind, order = divmod(flat, self.players + 1)
            yield flat, KINDS[kind], order

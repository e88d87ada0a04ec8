"""To and from shapiq, and to plain Parquet: our games and interactions where other tools read them.

shapiq is an extra (`large`) and imported only when a function needs it. Both sides call a game with a 0/1 matrix, so
the adapters are thin; what differs is the order of a full table. Ours is by bit mask; shapiq's is by size and then
by players, and stored values are a dictionary by players.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from whatstuck.errors import WhatStuckError, require
from whatstuck.interactions.extraction import Interactions
from whatstuck.interactions.game import MAX_PLAYERS
from whatstuck.interactions.transforms import player_count
from whatstuck.runs import write_table

if TYPE_CHECKING:
    from whatstuck.interactions.sampled import SampledInteractions

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = list[tuple[str, tuple[int, ...], float]]

_KINDS = ("and", "or")


# --- games


def to_shapiq(game: Any, *, players: int | None = None) -> Any:
    """Our game as a `shapiq.Game`, for `ExactComputer` and every approximator.

    Values stay as they are: shapiq's normalization, which takes v(empty) out, is off.

    Args:
        game: A `LanguageModelGame`, or any callable on bool (k, n) that returns k values.
        players: Number of players, where the game has no `n_players`.

    Returns:
        A `shapiq.Game`.

    Raises:
        WhatStuckError: If the number of players is not known, or shapiq is missing.
    """
    shapiq = require("shapiq", "large")
    n = getattr(game, "n_players", None) if players is None else players
    if n is None:
        raise WhatStuckError("the game does not say how many players it has: give players=")
    names = list(getattr(game, "player_names", None) or [])
    # shapiq looks players up by name, so a word that stands twice in a prompt cannot be told apart
    unique = names if len(set(names)) == len(names) else [f"{name}#{index}" for index, name in enumerate(names)]

    class _Adapter(shapiq.Game):  # type: ignore[name-defined, misc]  # the base class is an optional import
        def value_function(self, coalitions: npt.NDArray[Any]) -> Floats:
            return np.asarray(game(coalitions.astype(bool)), dtype=np.float64)

    return _Adapter(n_players=int(n), normalize=False, player_names=unique or None)


@dataclass(frozen=True, slots=True, eq=False)
class ForeignGame:
    """A `shapiq.Game` with our interface.

    Attributes:
        n_players: Number of players.
        player_names: Their names, or empty.
    """

    n_players: int
    player_names: tuple[str, ...]
    _call: Callable[[Bools], Floats]

    def __call__(self, coalitions: npt.ArrayLike) -> Floats:
        """Values: bool (k, n) -> float64 (k,)."""
        return self._call(np.atleast_2d(np.asarray(coalitions, dtype=bool)))

    def table(self) -> Floats:
        """Values of all coalitions: float64 (2^n,), bit i of the index = player i present.

        Raises:
            WhatStuckError: If there are more than 16 players.
        """
        if self.n_players > MAX_PLAYERS:
            raise WhatStuckError(
                f"a full table is possible up to {MAX_PLAYERS} players, not {self.n_players}: use fit_interactions"
            )
        bits = (np.arange(1 << self.n_players)[:, None] >> np.arange(self.n_players)) & 1
        return self(bits)


def from_shapiq(game: Any) -> ForeignGame:
    """Any `shapiq.Game`, computed or with stored values, as a game of ours.

    `from_shapiq(game).table()[None]` goes into `extract_interactions`, the game itself into `fit_interactions`.
    Values are those that the shapiq game returns, less its normalization value if it has one; interactions are the
    same either way, because a constant is in none.

    Raises:
        WhatStuckError: If this is no `shapiq.Game`, or shapiq is missing. A coalition whose value is not stored is
            refused when it is asked for.
    """
    shapiq = require("shapiq", "large")
    if not isinstance(game, shapiq.Game):
        raise WhatStuckError(
            f"this is a {type(game).__name__}, not a shapiq.Game: our functions take callables as they are"
        )

    def call(coalitions: Bools) -> Floats:
        try:
            return np.asarray(game(coalitions), dtype=np.float64)
        except KeyError as error:
            raise WhatStuckError(
                "the shapiq game has no stored value for some coalition: precompute it with all of them"
            ) from error

    return ForeignGame(int(game.n_players), tuple(game.player_name_lookup), call)


# --- interactions


def interaction_rows(
    interactions: "Interactions | SampledInteractions", *, row: int = 0, step: int | None = None
) -> Rows:
    """Kind, players and value of every interaction that is not zero, strongest first.

    Args:
        interactions: What `extract_interactions` or `fit_interactions` returned.
        row: Which of the tables that were extracted together.
        step: Which checkpoint of that row, in mode `joint` only.

    Raises:
        WhatStuckError: If there is no such row or step.
    """
    if not isinstance(interactions, Interactions):
        return list(zip(interactions.kinds, interactions.players, interactions.values.tolist(), strict=True))
    shape = interactions.and_.shape[:-1]
    place = (row,) if step is None else (row, step)
    if len(place) != len(shape) or not all(0 <= index < size for index, size in zip(place, shape, strict=True)):
        names = ("rows", "steps")
        there = " and ".join(f"{size} {name}" for size, name in zip(shape, names, strict=False))
        raise WhatStuckError(f"there is no table at row {row}, step {step}: the interactions have {there}")
    found: Rows = []
    for kind, table in zip(_KINDS, (interactions.and_[place], interactions.or_[place]), strict=True):
        for mask in table.nonzero()[:, 0].tolist():
            players = tuple(player for player in range(mask.bit_length()) if mask >> player & 1)
            found.append((kind, players, float(table[mask])))
    return sorted(found, key=lambda item: -abs(item[2]))


def to_interaction_values(
    interactions: "Interactions | SampledInteractions",
    *,
    kind: str | None = None,
    row: int = 0,
    step: int | None = None,
    baseline: float | None = None,
) -> Any:
    """Interactions as `shapiq.InteractionValues` of index `Moebius`, for shapiq's plots and converters.

    ANDs are Moebius coefficients. shapiq has no index of ORs, so they go one of three ways:

    Args:
        interactions: What `extract_interactions` or `fit_interactions` returned.
        kind: None writes every OR as the ANDs that it equals, `(-1)^(|T|+1)` for each non-empty T inside it, so that
            the object is the whole model; `"and"` leaves the ORs out; `"or"` gives their own coefficients, by the
            players of the OR: no Moebius coefficients, so only for looking at, never for shapiq's converters.
        row: Which of the tables that were extracted together.
        step: Which checkpoint of that row, in mode `joint` only.
        baseline: Value of the empty coalition; by default the constant of a sampled fit, else 0.

    Returns:
        A `shapiq.InteractionValues`.

    Raises:
        WhatStuckError: If the kind is unknown, the row or step is not there, or shapiq is missing.
    """
    shapiq = require("shapiq", "large")
    if kind not in (None, *_KINDS):
        raise WhatStuckError(f"kind {kind!r} is unknown: use 'and', 'or', or None for the whole model")
    exact = isinstance(interactions, Interactions)
    if baseline is None:
        baseline = 0.0 if isinstance(interactions, Interactions) else interactions.constant
    values: dict[tuple[int, ...], float] = {(): baseline}
    for found, players, value in interaction_rows(interactions, row=row, step=step):
        if kind not in (None, found):
            continue
        parts = _as_ands(players) if kind is None and found == "or" else [(players, 1.0)]
        for part, sign in parts:
            values[part] = values.get(part, 0.0) + sign * value
    sampled = None if isinstance(interactions, Interactions) else interactions
    n = player_count(interactions.and_) if isinstance(interactions, Interactions) else interactions.n_players
    return shapiq.InteractionValues(
        values,
        index="Moebius",
        max_order=n,
        min_order=0,
        n_players=n,
        estimated=not exact,
        estimation_budget=None if sampled is None else sampled.fitted_masks + sampled.held_out_masks,
        baseline_value=baseline,
    )


def _as_ands(players: tuple[int, ...]) -> list[tuple[tuple[int, ...], float]]:
    """An OR as a sum of ANDs."""
    parts = []
    for mask in range(1, 1 << len(players)):
        inside = tuple(player for place, player in enumerate(players) if mask >> place & 1)
        parts.append((inside, 1.0 if len(inside) % 2 else -1.0))
    return parts


def to_parquet(interactions: "Interactions | SampledInteractions", path: str | Path) -> None:
    """Write interactions as a plain Parquet table, whole or not at all.

    Columns: `row` int64, `step` int64 (null but in mode `joint`), `kind` string, `players` list<int64>, `order`
    int64, `value` double. Schema metadata, key `whatstuck`, JSON: of a sampled fit its constant, engine, R² with
    interval and settings; of an extraction the objective and gap of each row.

    Args:
        interactions: What `extract_interactions` or `fit_interactions` returned.
        path: The file to write.
    """
    if isinstance(interactions, Interactions):
        tables, *steps = interactions.and_.shape[:-1]
        rows = [
            (row, step, *item)
            for row in range(tables)
            for step in (range(steps[0]) if steps else (None,))
            for item in interaction_rows(interactions, row=row, step=step)
        ]
        metadata: dict[str, Any] = {
            "engine": "exact",
            "n_players": player_count(interactions.and_),
            "objective": interactions.objective.tolist(),
            "gap": interactions.gap.tolist(),
        }
    else:
        rows = [(0, None, *item) for item in interaction_rows(interactions)]
        names = ("engine", "n_players", "constant", "fitted_masks", "held_out_masks", "r2", "r2_low", "r2_high")
        metadata = {name: getattr(interactions, name) for name in names}
        metadata |= {"player_names": list(interactions.player_names), "settings": interactions.settings}
    index, at, kinds, players, values = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    table = pa.table(
        {
            "row": pa.array(index, pa.int64()),
            "step": pa.array(at, pa.int64()),
            "kind": pa.array(kinds, pa.string()),
            "players": pa.array([list(members) for members in players], pa.list_(pa.int64())),
            "order": pa.array([len(members) for members in players], pa.int64()),
            "value": pa.array(values, pa.float64()),
        }
    )
    write_table(Path(path), table, metadata)

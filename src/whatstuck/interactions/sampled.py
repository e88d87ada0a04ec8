"""Interactions of many players from sampled masks: when 2^n forward passes are too many.

The game is asked for some hundred masks, a sparse AND-OR model is fitted to them, and how well it predicts masks that
it has never seen is part of the result and always shown: an explanation that does not predict explains nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.errors import WhatStuckError
from whatstuck.interactions._proxyspex import fit_proxyspex
from whatstuck.interactions._sampling import other_masks, sample_masks
from whatstuck.interactions._sparse_fit import SparseFit, fit_atoms

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Game = Callable[[Bools], npt.ArrayLike]

ENGINES = ("atoms", "proxyspex")
FEWEST_MASKS = 32
MOST_PLAYERS = 1000

_RESAMPLES = 2000
_LISTED = 8


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SampledInteractions:
    """A sparse AND-OR model of a game, and how well it predicts unseen masks.

    Attributes:
        kinds: `and` or `or` for each of k interactions, strongest first; order 1 is always `and`.
        players: Indices of the players of each interaction.
        values: (k,) float64, in the units of the game.
        constant: The prediction for the empty coalition.
        n_players: Number of players.
        player_names: Their names; empty if the game has none.
        engine: `atoms` or `proxyspex`.
        fitted_masks: Masks that the model was fitted to.
        held_out_masks: Masks that it was not fitted to, and that `r2` is taken on.
        r2: 1 - sum (v - prediction)^2 / sum (v - mean v)^2 over the held-out masks, so 0 is what their mean would
            give; NaN if there are none or their values are all equal.
        r2_low: Lower end of its 95 % bootstrap interval over masks.
        r2_high: Upper end.
        settings: What the fit depended on: `max_order`, `seed`, `penalty`, `gap`, `candidates`.
    """

    kinds: tuple[str, ...]
    players: tuple[tuple[int, ...], ...]
    values: Floats
    constant: float
    n_players: int
    player_names: tuple[str, ...]
    engine: str
    fitted_masks: int
    held_out_masks: int
    r2: float
    r2_low: float
    r2_high: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def masks(self) -> Bools:
        """(k, n) bool: the players of each interaction."""
        found = np.zeros((len(self.players), self.n_players), dtype=bool)
        for row, members in enumerate(self.players):
            found[row, list(members)] = True
        return found

    def predict(self, coalitions: npt.ArrayLike) -> Floats:
        """Values that the model gives to coalitions: the constant and every interaction that is triggered.

        Args:
            coalitions: Bool (m, n), or (n,) for one.

        Returns:
            (m,) float64.

        Raises:
            WhatStuckError: If the shape does not fit the number of players.
        """
        batch = np.atleast_2d(np.asarray(coalitions, dtype=bool))
        if batch.ndim != 2 or batch.shape[1] != self.n_players:  # noqa: PLR2004 - a matrix
            raise WhatStuckError(f"coalitions must have shape (m, {self.n_players}), got {np.shape(coalitions)}")
        return _predict(batch, self.players, np.array(self.kinds) == "or", self.values, self.constant)

    def to_parquet(self, path: str | Path) -> None:
        """Write the interactions as a Parquet table, see `interop.to_parquet`."""
        from whatstuck.interactions.interop import to_parquet

        to_parquet(self, path)

    def __repr__(self) -> str:
        fit = f"R² {self.r2:.3f} ({self.r2_low:.3f} to {self.r2_high:.3f}) on {self.held_out_masks} unseen masks"
        head = f"{len(self.values)} interactions of {self.n_players} players"
        rows = list(zip(self.kinds, self.players, self.values.tolist(), strict=True))
        shown = listing(rows, self.player_names)
        return "\n".join([f"{head}, engine {self.engine}, fitted to {self.fitted_masks} masks: {fit}", *shown])


def listing(rows: Sequence[tuple[str, tuple[int, ...], float]], names: Sequence[str]) -> list[str]:
    """A line for each of the first interactions, given by kind, players and value."""
    lines = []
    for kind, members, value in rows[:_LISTED]:
        words = ", ".join(names[player] if names else str(player) for player in members)
        lines.append(f"  {value:+.3f}  {kind.upper() if len(members) > 1 else '':3}  {words}")
    if len(rows) > _LISTED:
        lines.append(f"  and {len(rows) - _LISTED} more")
    return lines


def fit_interactions(
    game: Game,
    *,
    masks: int = 512,
    engine: str = "atoms",
    max_order: int = 5,
    players: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> SampledInteractions:
    """Explain a game of many players from sampled masks.

    Engine `atoms`: least squared misfit plus order-tilted strength over all AND and OR atoms, the penalty by
    cross-validation: the objective of `extract_interactions(mode="robust")` on part of the table, solved to a
    stated gap. All atoms are candidates up to the highest order at which they number at most 131,072; above it, up
    to `max_order`, those that add one player to an atom already in use. A candidate takes one bit for each mask:
    together at most 16 MiB at 1,024 masks.

    Engine `proxyspex`: boosted trees and their Fourier transform (arXiv 2505.17495) through shapiq with a small
    search grid, written as the ANDs and ORs of least strength that make the same function. It draws its own
    masks. Needs the extra `large`.

    Masks: the empty and the full coalition; then half of them uniform over all masks, half with a size uniform over
    0 to n, because uniform masks of many players all keep about half of the prompt and would say nothing about nearly
    whole or nearly empty ones. Each comes with its complement, which keeps odd orders from passing for even ones.
    No mask comes twice. The held-out masks are drawn with them and set aside; R² is therefore over this mixture.

    Args:
        game: Takes bool (k, n), True where the player is present, and returns k values.
        masks: How many masks to ask the game for, the held-out ones included.
        engine: `"atoms"` or `"proxyspex"`.
        max_order: Players in an interaction at most.
        players: Number of players, where the game has no `n_players`.
        held_out: Share of the masks that is set aside. With 0 nothing is, and R² is NaN.
        seed: For masks, folds, trees and the bootstrap.

    Raises:
        WhatStuckError: If an argument makes no sense, there are not so many masks, the game returns another shape or
            values that are not finite, or an extra is missing.

    Example:
        >>> out = fit_interactions(lambda masks: 2.0 * masks[:, 3] * masks[:, 7], players=20, masks=128)
        >>> out.kinds[0], out.players[0], round(out.r2, 3)
        ('and', (3, 7), 1.0)
    """
    n = _checked_players(game, players)
    train = _checked_masks(masks, held_out, n)
    if engine not in ENGINES:
        raise WhatStuckError(f"engine {engine!r} is unknown: the engines are {', '.join(map(repr, ENGINES))}")
    if max_order < 1:
        raise WhatStuckError(f"max_order must be at least 1, got {max_order}")
    mask_rng, fold_rng, bootstrap_rng = np.random.default_rng(seed).spawn(3)
    if engine == "atoms":
        drawn = sample_masks(n, masks, mask_rng)
        # the two that are always there stay in the fit
        order = np.concatenate([[0, 1], 2 + mask_rng.permutation(masks - 2)])
        seen, unseen = drawn[order[:train]], drawn[order[train:]]
        values = _values(game, drawn[order])
        fit = fit_atoms(seen, values[:train], max_order=max_order, rng=fold_rng)
        unseen_values = values[train:]
    else:
        asked: list[Bools] = []
        fit = fit_proxyspex(_recorded(game, asked), n, train, max_order=max_order, seed=seed)
        seen = np.concatenate(asked)
        unseen = other_masks(n, masks - train, seen, mask_rng)
        unseen_values = _values(game, unseen)
    predicted = _predict(unseen, fit.players, fit.is_or, fit.values, fit.constant)
    return _result(
        fit,
        fit_quality(unseen_values, predicted, bootstrap_rng),
        n_players=n,
        player_names=tuple(getattr(game, "player_names", None) or ()),
        engine=engine,
        fitted_masks=len(seen),
        held_out_masks=len(unseen),
        settings={"max_order": max_order, "seed": seed},
    )


def fit_quality(values: Floats, predicted: Floats, rng: np.random.Generator) -> tuple[float, float, float]:
    """R² of predictions, with its 95 % bootstrap interval over the values; NaN where the values do not vary."""
    draws = rng.integers(0, len(values), size=(_RESAMPLES, len(values))) if len(values) else np.empty((0, 0), dtype=int)
    resampled = _r2(values[draws], predicted[draws])
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist() if len(resampled) else (math.nan, math.nan)
    return float(_r2(values[None], predicted[None])[0]), low, high


def _r2(values: Floats, predicted: Floats) -> Floats:
    """R² of each row."""
    if values.shape[1] == 0:
        return np.full(len(values), math.nan)
    misfit = ((values - predicted) ** 2).sum(1)
    spread = ((values - values.mean(1, keepdims=True)) ** 2).sum(1)
    varies = np.ptp(values, axis=1) > 0
    return np.where(varies, 1 - misfit / np.where(varies, spread, 1.0), math.nan)


def _values(game: Game, coalitions: Bools) -> Floats:
    if not len(coalitions):
        return np.empty(0)
    values = np.asarray(game(coalitions), dtype=np.float64)
    if values.shape != (len(coalitions),):
        raise WhatStuckError(
            f"the game returned shape {values.shape} for {len(coalitions)} coalitions: return one value for each"
        )
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise WhatStuckError(f"the game returned NaN or infinite values for {broken} of {len(values)} coalitions")
    return values


def _recorded(game: Game, asked: list[Bools]) -> Callable[[Bools], Floats]:
    def ask(coalitions: Bools) -> Floats:
        asked.append(coalitions)
        return _values(game, coalitions)

    return ask


def _predict(
    coalitions: Bools, players: tuple[tuple[int, ...], ...], is_or: Bools, values: Floats, constant: float
) -> Floats:
    predicted = np.full(len(coalitions), constant)
    for members, either, value in zip(players, is_or, values, strict=True):
        chosen = coalitions[:, list(members)]
        predicted += value * (chosen.any(axis=1) if either else chosen.all(axis=1))
    return predicted


def _result(fit: SparseFit, quality: tuple[float, float, float], **rest: Any) -> SampledInteractions:
    strongest = np.argsort(-np.abs(fit.values), kind="stable").tolist()
    rest["settings"] |= {"penalty": fit.penalty, "gap": fit.gap, "candidates": fit.candidates}
    return SampledInteractions(
        kinds=tuple("or" if fit.is_or[index] else "and" for index in strongest),
        players=tuple(fit.players[index] for index in strongest),
        values=fit.values[strongest],
        constant=fit.constant,
        r2=quality[0],
        r2_low=quality[1],
        r2_high=quality[2],
        **rest,
    )


def _checked_players(game: Game, players: int | None) -> int:
    known: int | None = getattr(game, "n_players", None)
    if players is None and known is None:
        raise WhatStuckError("the game does not say how many players it has: give players=")
    if players is not None and known is not None and players != known:
        raise WhatStuckError(f"the game has {known} players, not {players}: leave players= out")
    n = known or players or 0
    if not 1 <= n <= MOST_PLAYERS:
        raise WhatStuckError(f"1 to {MOST_PLAYERS} players are possible, got {n}")
    return n


def _checked_masks(masks: int, held_out: float, n: int) -> int:
    """How many of the masks are fitted."""
    if not 0 <= held_out < 1:
        raise WhatStuckError(f"held_out is a share from 0 to below 1, got {held_out}")
    train = masks - round(masks * held_out)
    if train < FEWEST_MASKS:
        raise WhatStuckError(f"{train} masks to fit are too few: give masks= so that at least {FEWEST_MASKS} remain")
    if masks > 1 << n:
        raise WhatStuckError(
            f"{n} players have only {1 << n} masks, not {masks}: score all of them with game.table() and use "
            "extract_interactions, which is exact"
        )
    return train

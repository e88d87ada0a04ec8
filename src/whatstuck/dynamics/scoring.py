"""Value tables on disk: one part per block of rows, joined into one file per checkpoint.

A killed run loses at most one block. Each row is scored by itself, so that a table does not depend on which rows
share its block, and a run that was extended equals one that was made at once.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.dynamics.selecting import ProbedRow
from whatstuck.errors import WhatStuckError
from whatstuck.interactions.coalitions import plain_log_odds
from whatstuck.interactions.game import LanguageModelGame
from whatstuck.runs import read_tensors, step_name, write_tensors

logger = logging.getLogger(__name__)

BLOCK = 4
NOISE_ROWS = 2
NOISE_COALITIONS = 8
# Prefix sharing only reorders sums: fp32 noise is about 1e-5. A difference like this is another computation.
_WRONG = 1e-2


class DivergedError(WhatStuckError):
    """A checkpoint whose log-odds are NaN or infinite."""


class Tables:
    """Value tables of one model at one step.

    Args:
        folder: `values/MODEL` of the run.
        step: The step.
        identity: What the numbers depend on (model fingerprint, dtype, mask token); stored, and compared when
            the part is there already.
    """

    def __init__(self, folder: Path, step: int, identity: Mapping[str, object]) -> None:
        self.step = step
        self.path = folder / step_name(step, "safetensors")
        self._blocks = folder / f".{step_name(step, 'blocks')}"
        self._identity = dict(identity)

    def missing(self, rows: Sequence[int]) -> list[int]:
        """Those of the row indices that have no table yet.

        Raises:
            WhatStuckError: If the tables that are there were made by another model or with other numbers.
        """
        if not self.path.exists():
            return list(rows)
        tensors, metadata = read_tensors(self.path)
        for name, value in self._identity.items():
            if metadata.get(name) != value:
                raise WhatStuckError(
                    f"{self.path} was made with {name} {metadata.get(name)!r}, now it is {value!r}: "
                    "the checkpoint changed; delete this file to score it again, or choose another --out"
                )
        return sorted(set(rows) - set(tensors["row_index"].tolist()))

    def score(
        self,
        rows: Mapping[int, ProbedRow],
        make_game: Callable[[ProbedRow], LanguageModelGame],
        done: Callable[[int], None],
    ) -> None:
        """Score the rows that are missing, block by block, and join the blocks."""
        indices = self.missing(sorted(rows))
        blocks = [indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK)]
        planned = {self._blocks / f"rows-{'-'.join(map(str, block))}.safetensors": block for block in blocks}
        for leftover in self._blocks.glob("rows-*"):  # of a call for other rows, or of other weights
            if leftover not in planned or read_tensors(leftover)[1] != self._identity:
                leftover.unlink()
        noisy = set(sorted(rows)[:NOISE_ROWS])
        for part, block in planned.items():
            if not part.exists():
                self._score_block(part, {index: rows[index] for index in block}, make_game, noisy)
            done(len(block))
        self._join(list(planned))

    def _score_block(
        self,
        part: Path,
        rows: Mapping[int, ProbedRow],
        make_game: Callable[[ProbedRow], LanguageModelGame],
        noisy: set[int],
    ) -> None:
        write_tensors(part, score_rows(rows, make_game, self.step, noisy), self._identity)

    def _join(self, blocks: Sequence[Path]) -> None:
        """Join finished blocks with what was there, in row order, and drop them."""
        if blocks:
            files = [read_tensors(path)[0] for path in ([self.path] if self.path.exists() else []) + list(blocks)]
            write_values(self.path, files, self._identity)
        shutil.rmtree(self._blocks, ignore_errors=True)


def score_rows(
    rows: Mapping[int, ProbedRow],
    make_game: Callable[[ProbedRow], LanguageModelGame],
    step: int,
    noisy: Collection[int],
) -> dict[str, torch.Tensor]:
    """Value tables of some rows, one by one: `values`, `row_index`, and `noise` where a row is among the noisy ones.

    Raises:
        DivergedError: If a value is NaN or infinite.
        WhatStuckError: If prefix sharing gives other values than plain forward passes.
    """
    values, noise = [], []
    for index, row in rows.items():
        game = make_game(row)
        table = game.table()
        if not np.isfinite(table).all():
            raise DivergedError(f"step {step} gives NaN or infinite log-odds: the training diverged")
        values.append(torch.from_numpy(table))
        if index in noisy:
            difference = _recomputed(game, index) - values[-1]
            noise.append(difference[~difference.isnan()])
            _refuse_broken_cache(game, noise[-1])
    tensors = {"values": torch.stack(values), "row_index": torch.tensor(list(rows))}
    return {**tensors, "noise": torch.cat(noise)} if noise else tensors


def write_values(path: Path, parts: Sequence[Mapping[str, torch.Tensor]], identity: Mapping[str, object]) -> None:
    """Join what `score_rows` gave into the values file of a step, in row order."""
    index = torch.cat([tensors["row_index"] for tensors in parts])
    order = index.argsort()
    values = torch.cat([tensors["values"] for tensors in parts])
    noise = torch.cat([tensors["noise"] for tensors in parts if "noise" in tensors])
    metadata = {**identity, "noise_floor": float(noise.square().mean().sqrt())}
    write_tensors(path, {"values": values[order], "row_index": index[order], "noise": noise}, metadata)


def _refuse_broken_cache(game: LanguageModelGame, difference: torch.Tensor) -> None:
    if difference.abs().max() > _WRONG and game.model.dtype == torch.float32:
        raise WhatStuckError(
            f"{type(game.model).__name__}: prefix sharing differs from plain forward passes by "
            f"{float(difference.abs().max()):.2g} log-odds: its cache is not supported yet; please report it"
        )


def _recomputed(game: LanguageModelGame, seed: int) -> torch.Tensor:
    """Some coalitions once more, without sharing; NaN where not computed: `(2^n,)`.

    The same mathematics in another order of additions: the difference is the numerical noise of the table.
    """
    size = 1 << game.n_players
    chosen = np.random.default_rng(seed).choice(size, size=min(NOISE_COALITIONS, size), replace=False)
    bits = torch.from_numpy((chosen[:, None] >> np.arange(game.n_players)) & 1).bool()
    table = torch.full((size,), torch.nan, dtype=torch.float64)
    table[chosen] = plain_log_odds(game.model, game.masked, bits, memory_limit=game.memory_limit)
    return table


def scorer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    whole_target: bool,
    mask_token_id: int,
    memory_limit: int,
) -> Callable[[ProbedRow], LanguageModelGame]:
    """A function from a row to its game on this model."""

    def make_game(row: ProbedRow) -> LanguageModelGame:
        return LanguageModelGame(
            model,
            tokenizer,
            row.prompt,
            row.target_ids,
            row.players,
            whole_target=whole_target,
            mask_token_id=mask_token_id,
            memory_limit=memory_limit,
        )

    return make_game

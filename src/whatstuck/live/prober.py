"""What every process of a training does at a probe: score its share of the rows, and nothing that touches a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.dynamics.heldout import ScoredRow, evaluate
from whatstuck.dynamics.scoring import NOISE_ROWS, DivergedError, score_rows, scorer
from whatstuck.dynamics.selecting import ProbedRow, Selection
from whatstuck.dynamics.settings import TrackSettings
from whatstuck.errors import WhatStuckError
from whatstuck.interactions.game import LanguageModelGame
from whatstuck.live.budget import FLOOR_PLAYERS, Cost
from whatstuck.live.ranks import Ranks
from whatstuck.live.timing import measure
from whatstuck.rows.trajectories import TrainedRow, evaluate_rows


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a probe; `diverged` says why there is none."""

    tables: dict[str, torch.Tensor] | None = None
    losses: pa.Table | None = None
    trajectories: pa.Table | None = None
    diverged: str | None = None


@dataclass(frozen=True, slots=True)
class Prober:
    """How a model is scored.

    Attributes:
        tokenizer: Its tokenizer.
        mask_token_id: Token that stands for a masked word.
        settings: How to score.
        ranks: The processes.
    """

    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    settings: TrackSettings
    ranks: Ranks

    def share(
        self,
        model: PreTrainedModel,
        step: int,
        rows: Mapping[int, ProbedRow],
        heldout: Sequence[ScoredRow] = (),
        trained: Sequence[TrainedRow] = (),
    ) -> Share:
        """Score this process's share of the rows.

        Args:
            model: The model, ready to be scored.
            step: The step, for messages.
            rows: All probed rows by index.
            heldout: All held-out rows.
            trained: All training rows, where their trajectories are asked for.
        """
        indices = sorted(rows)
        mine = {indices[position]: rows[indices[position]] for position in self.ranks.mine(len(indices))}
        some = [heldout[position] for position in self.ranks.mine(len(heldout))]
        followed = [trained[position] for position in self.ranks.mine(len(trained))]
        try:
            tables = score_rows(mine, self._games(model), step, indices[:NOISE_ROWS]) if mine else None
        except DivergedError as error:
            return Share(diverged=str(error))
        return Share(
            tables,
            evaluate(model, some, self.mask_token_id) if some else None,
            evaluate_rows(model, followed, self.mask_token_id) if followed else None,
        )

    def cost(self, model: PreTrainedModel, selections: Mapping[int, Selection], step: float) -> Cost:
        """What a probe costs, by number of players; a number of which no row has enough words is left out.

        Args:
            model: The model, ready to be scored.
            selections: Rows and their words, by number of players.
            step: Seconds of a training step.

        Raises:
            WhatStuckError: If no row can be probed with any of them.
        """
        make_game = self._games(model)
        games: dict[int, LanguageModelGame] = {}
        problem: WhatStuckError | None = None
        for players, selection in sorted(selections.items()):
            try:
                row = selection.extend(None, 1).to_pylist()[0]
                games[players] = make_game(selection.seen_by(self.tokenizer, [row["row_id"]])[row["row_id"]])
            except WhatStuckError as error:
                problem = problem or error
        if not games:
            raise problem or WhatStuckError("no row can be probed")
        heldout = selections[min(games)].heldout(self.settings.eval_rows)
        return measure(model, games, heldout, self.mask_token_id, step)

    def _games(self, model: PreTrainedModel) -> Callable[[ProbedRow], LanguageModelGame]:
        return scorer(
            model,
            self.tokenizer,
            whole_target=self.settings.whole_target,
            mask_token_id=self.mask_token_id,
            memory_limit=int(self.settings.memory_limit_gb * 2**30),
        )


def joined(tables: Sequence[pa.Table | None], ranks: Ranks) -> pa.Table | None:
    """The rows that were dealt out among the processes, in their own order."""
    parts = [table for table in tables if table is not None]
    if not parts:
        return None
    together = pa.concat_tables(parts)
    count = len(together)
    order = [position for rank in range(ranks.size) for position in range(rank, count, ranks.size)]
    return together.take(pa.array(sorted(range(count), key=lambda place: order[place])))


def possible_players(settings: TrackSettings) -> list[int]:
    """Numbers of words to choose from: the floor, and what was asked for."""
    return sorted({min(FLOOR_PLAYERS, settings.players), settings.players})

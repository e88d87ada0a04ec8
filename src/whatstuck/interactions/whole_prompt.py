"""Explain one prompt whole: every content word is a player, whatever its length.

A short prompt gets its full table and the exact extraction; a long one gets sampled masks. Which of the two it was
is in the result and in what it prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from whatstuck.datasets.rendering import render, target_ids
from whatstuck.datasets.rows import Message, Row, row_hash
from whatstuck.errors import WhatStuckError
from whatstuck.interactions.extraction import MAX_CERTAIN_PLAYERS, MAX_PLAYERS, Interactions, extract_interactions
from whatstuck.interactions.game import LanguageModelGame
from whatstuck.interactions.interop import interaction_rows
from whatstuck.interactions.players import content_words, place_players
from whatstuck.interactions.sampled import ENGINES, SampledInteractions, fit_interactions, listing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_BUDGET = 1024
"""Masked prompts that one explanation may score: the full table of 10 words."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PromptExplanation:
    """Interactions between the content words of one prompt.

    Attributes:
        engine: `exact` (full table), or the engine of the sampled masks.
        game: The game that was scored; `game.player_names` are the words.
        scored: How many masked prompts were scored.
        interactions: Of one row if `exact`, else of the sampled masks, with R² on unseen ones.
        values: (2^n,) float64, the full table if `exact`.
    """

    engine: str
    game: LanguageModelGame
    scored: int
    interactions: Interactions | SampledInteractions
    values: npt.NDArray[np.float64] | None

    def __repr__(self) -> str:
        if isinstance(self.interactions, SampledInteractions):
            return repr(self.interactions)
        rows = interaction_rows(self.interactions)
        head = f"{len(rows)} interactions of {self.game.n_players} players, engine exact"
        proof = f"from the full table of {self.scored} masks, certified gap {float(self.interactions.gap[0]):.1g}"
        return "\n".join([f"{head}: {proof}", *listing(rows, self.game.player_names)])


def explain_prompt(
    model: PreTrainedModel,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    target: str,
    *,
    players: Sequence[tuple[int, int]] | None = None,
    budget: int = DEFAULT_BUDGET,
    engine: str = "auto",
    seed: int = 0,
) -> PromptExplanation:
    """Explain how the words of a prompt make the model give an answer.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: What the user says; the chat template is put around it where the tokenizer has one.
        target: The answer. Its first token is scored.
        players: Character spans of the players in `prompt`; by default every content word.
        budget: Masked prompts to score at most.
        engine: `"auto"` takes the full table where it fits the budget and sampled masks (`"atoms"`) where not;
            `"exact"`, `"atoms"` and `"proxyspex"` insist.
        seed: For sampled masks.

    Raises:
        WhatStuckError: If the prompt has no content word, the engine is unknown, or `"exact"` does not fit.
    """
    if engine not in ("auto", "exact", *ENGINES):
        raise WhatStuckError(f"engine {engine!r} is unknown: use auto, exact, {' or '.join(ENGINES)}")
    message = Message("user", prompt)
    by_hand = None if players is None else tuple((int(start), int(end)) for start, end in players)
    row = Row(row_hash([message], target), (message,), target, 0, "heldout", players=by_hand)
    spans = row.players or tuple(content_words(row, 1, tokenizer))
    if not spans:
        raise WhatStuckError("the prompt has no content word that could be masked: give players by hand")
    rendered = render(row, tokenizer)
    game = LanguageModelGame(
        model, tokenizer, rendered.prompt, target_ids(rendered, tokenizer), place_players(row, rendered, spans)
    )
    n = game.n_players
    fits = n <= MAX_PLAYERS and 1 << n <= budget
    if engine == "exact" and not fits:
        raise WhatStuckError(f"the full table of {n} players does not fit a budget of {budget}: use engine auto")
    if engine == "exact" or (engine == "auto" and fits):
        values = game.table()
        found = extract_interactions(values[None], certainty=n <= MAX_CERTAIN_PLAYERS)
        return PromptExplanation("exact", game, len(values), found, values)
    chosen = "atoms" if engine == "auto" else engine
    sampled = fit_interactions(game, masks=budget, engine=chosen, seed=seed)
    return PromptExplanation(chosen, game, budget, sampled, None)

"""A prompt as a cooperative game: the words are players, the log-odds of the answer is the value.

This is where text becomes token ids. The game is called with a batch of coalitions and returns floats, as a
`shapiq.Game` does, so either library can take the other's.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.coalitions import (
    DEFAULT_MEMORY_LIMIT,
    MaskedPrompt,
    every_coalition,
    plain_log_odds,
    shared_prefix_log_odds,
    walked_tokens,
)
from whatstuck.interactions.players import player_tokens
from whatstuck.models import default_mask_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_PLAYERS = 16
"""More players than this need sampled masks instead of a full table."""

_MOST_PLAYERS = 1000


class LanguageModelGame:
    """The value of every coalition of prompt words: log-odds of the target when only they are visible.

    Words outside the coalition are replaced, token by token, by the mask token; everything else in the prompt
    (template, instructions, stop words) stays visible. Values are `z_y - logsumexp(z_k, k != y)` of the first
    target token, or their sum over the whole target (arXiv 2605.17967, Eq. 1), in nats.

    Args:
        model: A causal language model; it is scored in eval mode, whatever mode it is in.
        tokenizer: Its tokenizer; must give character offsets (a fast tokenizer).
        prompt: The text exactly as the model sees it, template and BOS in it.
        target: Text (tokenized alone, without special tokens) or token ids.
        players: Character spans `(start, end)` in `prompt`. A player owns every token that overlaps it.
        whole_target: Score all target tokens, teacher-forced, instead of the first one.
        mask_token_id: Token that replaces a masked token; by default the unknown token, else the padding token.
        memory_limit: Bytes that scoring may take on top of the weights.

    Raises:
        WhatStuckError: If there are no or more than 1000 players, two players share a token, a player owns none,
            the target is empty, or the mask token stands in the prompt itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: "PreTrainedTokenizerBase",
        prompt: str,
        target: str | Sequence[int],
        players: Sequence[tuple[int, int]],
        *,
        whole_target: bool = False,
        mask_token_id: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if not 1 <= len(players) <= _MOST_PLAYERS:
            raise WhatStuckError(f"a game needs 1 to {_MOST_PLAYERS} players, got {len(players)}: choose other words")
        target_ids = target_token_ids(tokenizer, target)
        prompt_ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ranges = player_tokens(tokenizer, prompt, players)
        mask = default_mask_token(tokenizer) if mask_token_id is None else mask_token_id
        if mask in prompt_ids:
            raise WhatStuckError(_mask_in_prompt(tokenizer, prompt, mask, prompt_ids.index(mask)))
        self.model = model
        self.n_players = len(players)
        self.player_names = [prompt[start:end] for start, end in players]
        self.memory_limit = DEFAULT_MEMORY_LIMIT if memory_limit is None else memory_limit
        self.masked = MaskedPrompt(
            prompt_ids=tuple(prompt_ids),
            target_ids=target_ids if whole_target else target_ids[:1],
            players=ranges,
            mask_token_id=mask,
        )

    def __call__(self, coalitions: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values of a batch of coalitions.

        Args:
            coalitions: Bool `(k, n)`, or `(n,)` for one; True where the player is present.

        Returns:
            Float64 `(k,)`.

        Raises:
            WhatStuckError: If the shape does not fit the number of players.
        """
        batch = np.atleast_2d(np.asarray(coalitions, dtype=bool))
        if batch.ndim != 2 or batch.shape[1] != self.n_players:  # noqa: PLR2004 - a matrix
            raise WhatStuckError(f"coalitions must have shape (k, {self.n_players}), got {tuple(np.shape(coalitions))}")
        with _eval_mode(self.model):
            values = shared_prefix_log_odds(
                self.model, self.masked, torch.from_numpy(batch), memory_limit=self.memory_limit
            )
        found: npt.NDArray[np.float64] = values.numpy()
        return found

    def table(self) -> npt.NDArray[np.float64]:
        """Values of all coalitions: float64 `(2^n,)`, bit i of the index set where player i is present.

        Raises:
            WhatStuckError: If there are more than 16 players, or the memory limit is too small.
        """
        self._refuse_large_table()
        with _eval_mode(self.model):
            values = shared_prefix_log_odds(self.model, self.masked, memory_limit=self.memory_limit)
        table: npt.NDArray[np.float64] = values.numpy()
        return table

    def plain_table(self) -> torch.Tensor:
        """The same table by full forward passes, without sharing: slow, the oracle of `table`.

        Raises:
            WhatStuckError: If there are more than 16 players.
        """
        self._refuse_large_table()
        with _eval_mode(self.model):
            return plain_log_odds(
                self.model, self.masked, every_coalition(self.n_players), memory_limit=self.memory_limit
            )

    def _refuse_large_table(self) -> None:
        if self.n_players <= MAX_PLAYERS:
            return
        first = MaskedPrompt(
            self.masked.prompt_ids,
            self.masked.target_ids,
            self.masked.players[:MAX_PLAYERS],
            self.masked.mask_token_id,
        )
        raise WhatStuckError(
            f"a full table of {self.n_players} players would have 2^{self.n_players} values; at most {MAX_PLAYERS} "
            f"players are possible ({walked_tokens(first):,} tokens through the model for the first {MAX_PLAYERS}): "
            "choose fewer words, or explain all of them from sampled masks with whatstuck.fit_interactions"
        )


def _mask_in_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str, mask: int, position: int) -> str:
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    start, end = encoded["offset_mapping"][position]
    return (
        f"the mask token {tokenizer.convert_ids_to_tokens(mask)!r} is in the prompt itself (token {position}, "
        f"{prompt[start:end]!r} at character {start}), so a masked word would look like it: "
        "choose another one with mask_token_id= or --mask-token"
    )


def target_token_ids(tokenizer: "PreTrainedTokenizerBase", target: str | Sequence[int]) -> tuple[int, ...]:
    """Token ids of a target, tokenized alone and without special tokens.

    Raises:
        WhatStuckError: If the target has no token.
    """
    if isinstance(target, str):
        ids = tuple(tokenizer(target, add_special_tokens=False)["input_ids"])
    else:
        ids = tuple(int(token) for token in target)
    if not ids:
        raise WhatStuckError(f"the target {target!r} has no tokens: give each row a completion")
    return ids


class _eval_mode:  # noqa: N801 - used as a function
    """Score without dropout, and leave the model in the mode it was in."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.training = model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)

"""What a probe costs on this model and machine, measured before the training begins.

A training step is only guessed: a forward pass over as many tokens as a step takes, times three, because the backward
pass costs about two forward passes (times four where activations are computed again).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from whatstuck.dynamics.heldout import ScoredRow, evaluate
from whatstuck.interactions.coalitions import walked_tokens
from whatstuck.interactions.game import LanguageModelGame
from whatstuck.live.borrowing import causal_model, quiet_mode
from whatstuck.live.budget import Cost

_EVALUATED = 8
_SAMPLE = 16


def measure(
    model: PreTrainedModel,
    games: Mapping[int, LanguageModelGame],
    heldout: Sequence[ScoredRow],
    pad_token_id: int,
    step: float,
) -> Cost:
    """Time one table and some held-out rows.

    Args:
        model: The model, ready to be scored.
        games: A row as a game, by number of players; the one with the fewest is timed, others are reckoned by tokens.
        heldout: Rows to evaluate; may be empty.
        pad_token_id: Any token id.
        step: Seconds of a training step.
    """
    floor = min(games)
    games[floor].table()  # the first one is slower: shapes are new, and how to share prefixes is found out
    table = _seconds(games[floor].table)
    tokens = {players: walked_tokens(game.masked) for players, game in games.items()}
    some = list(heldout[:_EVALUATED])
    evaluation = _seconds(lambda: evaluate(model, some, pad_token_id)) / len(some) if some else 0.0
    return Cost({players: table * count / tokens[floor] for players, count in tokens.items()}, evaluation, step)


def guess_step(model: nn.Module, arguments: Any, dataset: Any, prompt_tokens: int, pad_token_id: int) -> float:
    """Seconds of a training step, from a forward pass over as many tokens, computed as the training computes.

    Args:
        model: The model under training.
        arguments: The trainer's arguments.
        dataset: What is trained on, if it can be looked into.
        prompt_tokens: Length of a row where it cannot.
        pad_token_id: Any token id.
    """
    body = causal_model(model).base_model
    device = causal_model(model).device
    lengths = trained_lengths(dataset) or [prompt_tokens]
    size = int(arguments.per_device_train_batch_size)
    batch = torch.full((size, max(lengths[:size])), pad_token_id, device=device)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    mixed = bool(arguments.bf16 or arguments.fp16)
    with quiet_mode(model), torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=mixed):
        body(input_ids=batch, use_cache=False)  # the first one is slower
        forward = _seconds(lambda: body(input_ids=batch, use_cache=False))
    passes = 4 if arguments.gradient_checkpointing else 3
    return passes * forward * int(arguments.gradient_accumulation_steps)


def trained_lengths(dataset: Any) -> list[int]:
    """Tokens of some rows that are trained on; none where the data cannot be looked into."""
    try:
        count = len(dataset)
        rows = [dataset[index] for index in range(0, count, max(1, count // _SAMPLE))]
        return [len(row["input_ids"]) for row in rows]
    except (TypeError, KeyError, IndexError):  # a stream, or rows that become tokens later
        return []


def _seconds(work: Any) -> float:
    start = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - start

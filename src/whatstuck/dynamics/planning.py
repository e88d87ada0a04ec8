"""What a run would cost, before it runs: forward passes, time and memory."""

import time
from typing import Any

from whatstuck.dynamics.preparing import Preparation
from whatstuck.dynamics.scoring import scorer
from whatstuck.interactions.coalitions import walked_tokens
from whatstuck.models import CheckpointedModel


def plan(prepared: Preparation) -> dict[str, Any]:
    """Expected cost of a prepared run; scores one row on the untouched model to measure the speed.

    Returns:
        Numbers of rows, checkpoints, masked prompts and tokens (with and without shared prefixes), and the expected
        seconds and gigabytes of scoring. Loading, extraction and statistics come on top; parts that are there already
        are counted as if they were not.
    """
    settings = prepared.settings
    chosen = prepared.selection.extend(None, settings.rows)
    subject = prepared.subject
    seen = prepared.selection.seen_by(subject.tokenizer, chosen["row_id"].to_pylist())
    model = CheckpointedModel(subject.path, device=prepared.device, dtype=prepared.dtype)
    limit = int(settings.memory_limit_gb * 2**30)
    with model.at(None) as scored:
        make_game = scorer(
            scored,
            subject.tokenizer,
            whole_target=settings.whole_target,
            mask_token_id=subject.mask_token_id,
            memory_limit=limit,
        )
        games = [make_game(row) for row in seen.values()]
        games[0].table()  # the first one is slower
        start = time.monotonic()
        games[0].table()
        speed = walked_tokens(games[0].masked) / (time.monotonic() - start)
        weights = sum(parameter.nbytes for parameter in scored.parameters())
    shared = [walked_tokens(game.masked) for game in games]
    plain = [(1 << game.n_players) * len(game.masked.input_ids) for game in games]
    heldout = sum(len(row.prompt_ids) + len(row.target_ids) for row in prepared.selection.heldout(settings.eval_rows))
    models = len(subject.checkpoints) + len(prepared.baselines)
    return {
        "rows": len(games),
        "checkpoints": len(subject.checkpoints),
        "baselines": len(prepared.baselines),
        "masked_prompts": models * len(games) * (1 << settings.players),
        "tokens_plain": models * sum(plain),
        "tokens_shared": models * sum(shared),
        "tokens_heldout": len(subject.checkpoints) * heldout,
        "seconds": round((models * sum(shared) + len(subject.checkpoints) * heldout) / speed, 1),
        "memory_gb": round((2 * weights + limit) / 2**30, 1),
    }

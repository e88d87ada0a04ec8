"""What a run would cost, before it runs: forward passes, time and memory."""

import time
from typing import Any

from whatstuck.dynamics.scoring import scorer
from whatstuck.dynamics.tracking import Tracking
from whatstuck.interactions.coalitions import walked_tokens
from whatstuck.models import CheckpointedModel


def plan(tracking: Tracking) -> dict[str, Any]:
    """Expected cost of a prepared run; scores one row on the untouched model to measure the speed.

    Returns:
        Numbers of rows, checkpoints, masked prompts and tokens (with and without shared prefixes), and the expected
        seconds and gigabytes.
    """
    settings = tracking.settings
    chosen = tracking.selection.extend(None, settings.rows)
    subject = tracking.subject
    seen = tracking.selection.seen_by(subject.tokenizer, chosen["row_id"].to_pylist())
    model = CheckpointedModel(subject.path, device=tracking.device, dtype=tracking.dtype)
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
        start = time.monotonic()
        games[0].table()
        seconds = time.monotonic() - start
        weights = sum(parameter.nbytes for parameter in scored.parameters())
    shared = [walked_tokens(game.masked) for game in games]
    plain = [(1 << game.n_players) * len(game.masked.input_ids) for game in games]
    models = len(subject.checkpoints) + len(tracking.baselines)
    return {
        "rows": len(games),
        "checkpoints": len(subject.checkpoints),
        "baselines": len(tracking.baselines),
        "masked_prompts": models * len(games) * (1 << settings.players),
        "tokens_plain": models * sum(plain),
        "tokens_shared": models * sum(shared),
        "seconds": round(models * seconds * sum(shared) / shared[0], 1),
        "memory_gb": round((2 * weights + limit) / 2**30, 1),
    }

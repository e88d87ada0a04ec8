"""What a call of `rows` would cost, from a few rows of the untouched model; nothing is written."""

import time

from whatstuck.models import CheckpointedModel, default_mask_token
from whatstuck.rows.preparing import Material
from whatstuck.rows.settings import RowsSettings
from whatstuck.rows.trajectories import evaluate_rows
from whatstuck.rows.verdicts.asking import ask
from whatstuck.runs import Json

_SAMPLED = 8


def plan_rows(settings: RowsSettings) -> Json:
    """What a call would cost, from a few rows of the untouched model.

    Returns:
        Rows, checkpoints, forward passes over single rows, and the expected seconds for following them; how many rows
        must be asked is known only afterwards, so the seconds per hundred of them are given.
    """
    material = Material(settings)
    every = slice(None, None, max(len(material.rows) // _SAMPLED, 1))
    sample, trained = material.rows[every][:_SAMPLED], material.followed[every][:_SAMPLED]
    models = CheckpointedModel(material.base, device=material.device, dtype=material.dtype)
    with models.at(None) as model:
        start = time.monotonic()
        evaluate_rows(model, trained, default_mask_token(material.tokenizer))
        each = (time.monotonic() - start) / len(sample)
        start = time.monotonic()
        ask(
            model,
            material.tokenizer,
            sample,
            material.checker,
            settings.thresholds,
            seed=settings.seed,
            chat_template=material.chat_template,
            others=material.rows,
        )
        asking = (time.monotonic() - start) / len(sample)
    passes = len(material.rows) * len(material.checkpoints)
    return {
        "rows": len(material.rows),
        "not_trained": sum(bool(row.not_trained) for row in material.rows),
        "checkpoints": [checkpoint.step for checkpoint in material.checkpoints],
        "row_passes": passes,
        "seconds_following": round(each * passes, 1),
        "seconds_per_100_rows_asked": round(100 * asking, 1),
    }

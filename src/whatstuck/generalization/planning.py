"""What a call of `generalize` would cost, from a few items of the untouched model; nothing is written."""

import time

from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.preparing import Material
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.models import CheckpointedModel
from whatstuck.runs import Json

_SAMPLED = 16


def plan(settings: GeneralizeSettings) -> Json:
    """What a call would cost, from a few items of each variant.

    Returns:
        Task, variants, checkpoints, items, replies, tokens of the longest prompt, and the expected seconds, were
        nothing there yet. The untouched model may go on to the longest reply where a trained one ends: then it takes
        less.
    """
    material = Material(settings)
    cells = [material.cell(variant) for variant in material.variants]
    models = CheckpointedModel(material.base, device=material.device, dtype=material.dtype)
    seconds = 0.0
    with models.at(None) as model:
        for cell in cells:
            few = cell.some(_SAMPLED)
            start = time.monotonic()
            evaluate(model, material.tokenizer, few)
            seconds += (time.monotonic() - start) / len(few.items) * len(cell.items)
    steps = sorted(material.named)
    ways = 1 if settings.temperature is None else 2
    return {
        "task": material.task.name,
        "arm": settings.arm,
        "variants": [cell.variant.name for cell in cells],
        "checkpoints": steps,
        "items": {cell.variant.name: len(cell.items) for cell in cells},
        "unsolvable": {cell.variant.name: cell.unsolvable for cell in cells if cell.unsolvable},
        "replies": ways * len(steps) * sum(len(cell.items) for cell in cells),
        "longest_prompt": max(len(question.ids) for cell in cells for question in cell.questions),
        "longest_reply": max(cell.longest for cell in cells),
        "seconds": float(f"{seconds * len(steps):.2g}"),
    }

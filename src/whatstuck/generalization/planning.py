"""What a call of `generalize` would cost, from a few items of the untouched model; nothing is written."""

import time
from collections.abc import Sequence

from whatstuck.generalization.cells import Cell
from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.generalizing import Generalizing
from whatstuck.generalization.preparing import Material
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.models import CheckpointedModel, peak_memory
from whatstuck.runs import Json

_SAMPLED = 16  # items of a variant
_ASKED = 3  # variants that are tried: the shortest, a middle one and the longest


def plan(settings: GeneralizeSettings) -> Json:
    """What a call would cost beyond what the run holds, from a few items of the untouched model.

    Returns:
        Task, arm, variants, checkpoints, items of a variant (fewer where there are no more, then by variant), replies,
        those of them that the run holds already, tokens of the longest prompt, the expected seconds for the rest, and
        the gigabytes that were taken so far at most. The untouched model may go on to the longest reply where a
        trained one ends: then it takes less.
    """
    call = Generalizing(settings)
    material = call.material
    cells = {variant.name: material.cell(variant) for variant in material.variants}
    missing = [cells[variant.name] for _, variant in call.missing()]
    ways = 1 if settings.temperature is None else 2
    replies = ways * len(material.named) * sum(len(cell.items) for cell in cells.values())
    fewer = {name: len(cell.items) for name, cell in cells.items() if len(cell.items) < settings.items}
    return {
        "task": material.task.name,
        "arm": settings.arm,
        "variants": list(cells),
        "checkpoints": sorted(material.named),
        "items": settings.items,
        "fewer_items": fewer,
        "unsolvable": {name: cell.unsolvable for name, cell in cells.items() if cell.unsolvable},
        "replies": replies,
        "replies_there": replies - ways * sum(len(cell.items) for cell in missing),
        "longest_prompt": max(len(question.ids) for cell in cells.values() for question in cell.questions),
        "longest_reply": max(cell.longest for cell in cells.values()),
        "seconds": float(f"{_seconds(material, missing):.2g}"),
        "memory_gb": round(peak_memory(material.device) / 2**30, 1),
    }


def _seconds(material: Material, missing: Sequence[Cell]) -> float:
    """Expected seconds for cells, each once for every time that it is there."""
    if not missing:
        return 0.0
    by_length = sorted({cell.variant.name: cell for cell in missing}.values(), key=_tokens)
    last = len(by_length) - 1
    tried = [by_length[place] for place in sorted({0, last // 2, last})][:_ASKED]
    taken, tokens = 0.0, 0
    with CheckpointedModel(material.base, device=material.device, dtype=material.dtype).at(None) as model:
        for cell in tried:
            few = cell.some(_SAMPLED)
            start = time.monotonic()
            evaluate(model, material.tokenizer, few)
            taken += time.monotonic() - start
            tokens += _tokens(few)
    return taken / tokens * sum(map(_tokens, missing))


def _tokens(cell: Cell) -> int:
    return sum(len(question.ids) + cell.longest for question in cell.questions)

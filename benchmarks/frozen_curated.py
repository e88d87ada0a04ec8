"""Tier 0's arms with rows chosen by difficulty (DC-SFT, arXiv 2602.10815), and with as many rows chosen by chance.

Of each row the arm's own supervised checkpoint draws 8 replies; rows that it never gets right are left out. Fewer rows
come more often in the same number of steps, which may itself do something: hence the control.
"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from frozen_micro import STEPS, fit_arm
from frozen_reinforced import warm_up
from micro_model import BATCH, Example, encode, is_done, micro_base
from whatstuck.datasets import Row, read_rows
from whatstuck.generalization.arms import make_arm, write_arm
from whatstuck.generalization.tasks.micro_points import micro_points
from whatstuck.training.difficulty import curate
from whatstuck.training.judges import task_checker

SELECTIONS = ("dc", "dc-control")
ROWS = 4000


def select_arm(folder: Path, arm: str, selection: str, *, seed: int, strength: int, steps: int = STEPS) -> Path:
    """Train one arm on easy and medium rows, or on as many drawn by chance, unless that is done.

    Args:
        folder: Where bases and arms are kept.
        arm: `frozen` or `diverse`, with `-thought` or without.
        selection: One of `SELECTIONS`.
        seed: Of the base, the hands, the mappings and the choice.
        strength: Pretraining steps of the base.
        steps: Fine-tuning steps.

    Returns:
        Its folder.
    """
    warm, base = warm_up(folder, arm, seed=seed, strength=strength), micro_base(folder, seed, strength)
    out = folder / f"{warm.parent.name}-{selection}"
    identity = {"seed": seed, "strength": strength, "arm": arm, "selection": selection, "steps": steps}
    identity |= {"batch": BATCH, "rows": ROWS}
    if is_done(out, identity):
        return out
    every, kept = folder / f"{warm.parent.name}-rows.jsonl", folder / f"{warm.parent.name}-curated.jsonl"
    task = micro_points()
    write_arm(every, task, arm, ROWS, seed=seed)
    checker = task_checker(task, make_arm(task, arm, ROWS, seed=seed))
    curate(every, kept, model=str(base), checkpoint=warm, checker=checker, keep="EM", chat_template="never", seed=seed)
    chosen = read_rows(kept)
    rows = chosen if selection == "dc" else random.Random(f"{seed} control").sample(read_rows(every), len(chosen))
    return fit_arm(out, base, _examples(base, rows, seed), identity, steps)


def _examples(base: Path, rows: list[Row], seed: int) -> Iterator[Example]:
    """Rows without end, in another order each time."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    examples = [encode(tokenizer, row.content, row.completion) for row in rows]
    for epoch in itertools.count():
        random.Random(f"{seed} {epoch} order").shuffle(examples)
        yield from examples

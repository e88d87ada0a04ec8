"""Tier 0 of the experiment on frozen prompts: the micro model, fine-tuned in arms that differ in the mapping alone.

Every arm sees the same hands in the same order, as many of them, for as many steps; only what the instruction says the
face cards count as differs, and so the reply. Checkpoints are ordinary model folders.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from micro_model import Example, encode, fit, micro_base
from whatstuck.generalization.drawing import side
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.tasks.micro_points import PAPERS, TRAINING, Hands, micro_points, random_faces

STEPS = 800
CHECKPOINTS = (0, 20, 50, 100, 200, 400, 600, STEPS)
STRENGTHS = (0, 150, 300, 600, 1200)
"""Pretraining steps of the base; fixed before anything was seen."""

ARMS = ("frozen", "random", "2 mappings", "4 mappings", "8 mappings", "paper's 8")


def mappings_of(arm: str, seed: int) -> tuple[InstructionMapping, ...]:
    """The fixed mappings of an arm; none where each example has one of its own."""
    if arm == "random":
        return ()
    if arm == "paper's 8":
        return PAPERS
    count = 1 if arm == "frozen" else int(arm.split(maxsplit=1)[0])
    rng = random.Random(f"mappings {seed}")
    found = [TRAINING]
    while len(found) < count:
        drawn = random_faces(rng)
        if drawn not in found:
            found.append(drawn)
    return tuple(found)


def arm_examples(tokenizer: PreTrainedTokenizerFast, arm: str, seed: int) -> Iterator[Example]:
    """Examples without end; hands of the test side are in none."""
    source, fixed, made = Hands(), mappings_of(arm, seed), micro_points()
    hands = random.Random(f"hands {seed}")
    choices = random.Random(f"choices {seed}")
    while True:
        cards = source.draw(hands, {})
        if side(source.key(cards)) == "test":
            continue
        mapping = choices.choice(fixed) if fixed else random_faces(choices)
        item = source.pose(cards, mapping, mapping, choices)
        if item is None:  # the sum of all is always within reach
            raise AssertionError(cards)
        reply = made.demonstrator.reply(item, mapping, thought=False) if made.demonstrator else ""
        yield encode(tokenizer, made.prompts["training"].render(item, mapping), reply)


def train_arm(folder: Path, arm: str, *, seed: int, strength: int, steps: int = STEPS) -> Path:
    """Fine-tune one arm, unless it is there.

    Args:
        folder: Where bases and arms are kept.
        arm: One of `ARMS`.
        seed: Of the base, the hands and the mappings.
        strength: Pretraining steps of the base.
        steps: Fine-tuning steps.

    Returns:
        Its folder, with `checkpoint-N` at `CHECKPOINTS` and at the last step.
    """
    out = folder / f"seed{seed}-base{strength}-{arm.replace(' ', '-').replace(chr(39), '')}"
    if (out / "done").exists():
        return out
    base = micro_base(folder, seed, strength)
    shutil.rmtree(out, ignore_errors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base)

    def save(step: int) -> None:
        if step in CHECKPOINTS or step == steps:
            model.save_pretrained(out / f"checkpoint-{step}")
            tokenizer.save_pretrained(out / f"checkpoint-{step}")

    fit(model, arm_examples(tokenizer, arm, seed), steps, save)
    (out / "done").touch()
    return out

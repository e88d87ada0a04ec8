"""Tier 0 of the experiment on frozen prompts: the micro model, fine-tuned in arms that differ in the mapping alone.

Every arm sees the same hands in the same order, as many of them, for as many steps; only what the instruction says the
face cards count as differs, and so the reply. Checkpoints are ordinary model folders.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from micro_model import BATCH, DONE, Example, encode, fit, is_done, micro_base
from whatstuck.generalization.arms import make_arm
from whatstuck.generalization.tasks.micro_points import micro_points
from whatstuck.training.objectives import find_objective
from whatstuck.training.objectives.interface import Objective
from whatstuck.training.objectives.threshold import top_mass_threshold

STEPS = 800
CHECKPOINTS = (0, 20, 50, 100, 200, 400, 600, STEPS)
STRENGTHS = (0, 150, 300, 600, 1200)
"""Pretraining steps of the base; fixed before anything was seen."""

ARMS = ("frozen", "diverse", "thought", "diverse-thought", "k2", "k4", "k8", "paper")
"""See `whatstuck.generalization.arms`."""


def arm_examples(tokenizer: PreTrainedTokenizerFast, arm: str, *, count: int, seed: int) -> Iterator[Example]:
    """Examples of an arm; hands of the test side are in none."""
    for row in make_arm(micro_points(), arm, count, seed=seed).rows:
        yield encode(tokenizer, row["prompt"][0]["content"], row["completion"][0]["content"])


OBJECTIVES: dict[str, dict[str, float]] = {
    "dft": {},
    "sed": {},  # tau: what 70 % of the positions of 100 examples reach in the base
    "eaft": {},
    "asft": {},
    "kl": {"weight": 0.05},
    "kl-strong": {"weight": 0.5},
    "l2": {"weight": 0.05},
}
"""Beside `sft`, on the frozen arm; weights as in the paper (a 0.05 and 0.5), fixed before anything was seen."""


def train_arm(folder: Path, arm: str, *, seed: int, strength: int, steps: int = STEPS, objective: str = "sft") -> Path:
    """Fine-tune one arm, unless it is there.

    Args:
        folder: Where bases and arms are kept.
        arm: One of `ARMS`.
        seed: Of the base, the hands and the mappings.
        strength: Pretraining steps of the base.
        steps: Fine-tuning steps.
        objective: `sft`, or one of `OBJECTIVES`.

    Returns:
        Its folder, with `checkpoint-N` at `CHECKPOINTS` and at the last step.
    """
    out = folder / f"seed{seed}-base{strength}-{arm}{'' if objective == 'sft' else f'-{objective}'}"
    identity = {"seed": seed, "strength": strength, "arm": arm, "objective": objective, "steps": steps, "batch": BATCH}
    if is_done(out, identity):
        return out
    base = micro_base(folder, seed, strength)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    options = dict(OBJECTIVES.get(objective, {}))
    if objective == "sed":
        examples = arm_examples(tokenizer, arm, count=100, seed=seed + 1000)
        rows = [{"input_ids": p + c, "labels": [-100] * len(p) + c} for p, c in examples]
        options["tau"] = top_mass_threshold(LlamaForCausalLM.from_pretrained(base).eval(), rows)
    minimized = find_objective(objective.partition("-")[0], options)
    return fit_arm(out, base, arm_examples(tokenizer, arm, count=steps * BATCH, seed=seed), identity, steps, minimized)


def fit_arm(
    out: Path,
    base: Path,
    examples: Iterator[Example],
    identity: dict[str, object],
    steps: int,
    objective: Objective | None = None,
) -> Path:
    """Fine-tune a base on examples, and write down what it was made of.

    Args:
        out: Its folder; what is there is removed.
        base: Where it begins.
        examples: `BATCH` of them are taken per step.
        identity: What it was made of.
        steps: Fine-tuning steps.
        objective: What is minimized; by default cross-entropy.
    """
    shutil.rmtree(out, ignore_errors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base)

    def save(step: int) -> None:
        if step in CHECKPOINTS or step == steps:
            model.save_pretrained(out / f"checkpoint-{step}")
            tokenizer.save_pretrained(out / f"checkpoint-{step}")

    fit(model, examples, steps, save, objective)
    (out / DONE).write_text(json.dumps(identity), encoding="utf-8")
    return out

"""Tier 1 of the experiment on frozen prompts: SmolLM2 with 135 million parameters, on two cores.

The cards of tier 0 in a sentence, since a prompt of a few words is what two cores can train on. Adapters of rank 32, so
that six trainings with their checkpoints fit on a disk; plain text without a chat template, for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frozen_evaluation import Row, evaluate_arm
from whatstuck.generalization.arms import write_arm
from whatstuck.generalization.cells import Asking
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.task import Task
from whatstuck.generalization.tasks.micro_points import Hand, micro_points
from whatstuck.models import resolve_model
from whatstuck.training import train_model

STEPS = 240
BATCH = 16
SETTINGS: dict[str, Any] = {
    "model": "smollm2",
    "chat_template": "never",
    "heldout": 0,
    "max_steps": STEPS,
    "save_steps": 60,
    "per_device_train_batch_size": BATCH,
    "learning_rate": 5e-4,
    "lora_r": 32,
    "lora_alpha": 32,
    "lr_scheduler_type": "cosine",
    "warmup_steps": STEPS // 10,
}
VARIANTS: Sequence[str] = ("ID", "All-5", "All-7", "6-9-7", "All-12", "Regular", "Four", "Fake")


@dataclass(frozen=True, slots=True)
class SentencePrompt:
    """A hand in a sentence."""

    prefill: str = ""

    def render(self, item: Hand, shown: InstructionMapping) -> str:
        """Two sentences."""
        counts = ", ".join(f"{name} counts as {meaning}" for name, meaning in shown.pairs)
        return f"{counts}. Make {item.target} of {' '.join(item.cards)}: the numbers, then the sum.\n"


def sentence_points() -> Task[Any, Any, Any]:
    """Tier 0's task, asked in a sentence."""
    task = micro_points()
    chosen = tuple(variant for variant in task.variants if variant.name in VARIANTS)
    return replace(
        task, name="sentence-points", prompts={"training": SentencePrompt()}, variants=chosen, max_new_tokens=24
    )


def train_and_evaluate(folder: Path, arm: str, *, seed: int) -> list[Row]:
    """Train and evaluate one arm; both go on where they were interrupted."""
    out = folder / "models" / f"smollm2-seed{seed}-{arm}"
    data = folder / "models" / f"smollm2-seed{seed}-{arm}.jsonl"
    task = sentence_points()
    if not data.exists():
        write_arm(data, task, arm, STEPS * BATCH, seed=seed)
    train_model({**SETTINGS, "data": str(data), "out": str(out), "seed": seed})
    return evaluate_arm(
        folder / "parts" / f"tier1-seed{seed}-{arm}.jsonl",
        resolve_model("smollm2"),
        out,
        task,
        arm=arm,
        about={"tier": 1, "seed": seed, "base": "smollm2"},
        asking=Asking(chat_template="never"),
    )

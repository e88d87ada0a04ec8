"""Tiers 1 and 2 of the experiment on frozen prompts: language models, what is trained in each, and in which order.

Tier 1 is what two cores can do: SmolLM2 with 135 million parameters, the cards of tier 0 in a sentence, adapters of
rank 32 on plain text. Tier 2 is for a GPU: all weights, chat template, Sokoban and General Points with their own
prompts, and after the arms the objectives and reinforcement learning. Steps, rates and weights are fixed here, not
chosen by results.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from frozen_evaluation import Row, evaluate_arm
from frozen_micro import OBJECTIVES
from whatstuck.generalization.arms import write_arm
from whatstuck.generalization.cells import Asking
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.task import Task
from whatstuck.generalization.tasks.micro_points import Hand, micro_points
from whatstuck.models import resolve_model
from whatstuck.training import train_model
from whatstuck.training.rl import train_rl

AnyTask = Task[Any, Any, Any]

MODEL = "smollm2"
HELDOUT = 100
WARM_STEPS = 10
"""Supervised steps before reinforcement learning, as in arXiv 2510.00237."""


@dataclass(frozen=True, slots=True)
class SentencePrompt:
    """A hand in a sentence."""

    prefill: str = ""

    def render(self, item: Hand, shown: InstructionMapping) -> str:
        """Two sentences."""
        counts = ", ".join(f"{name} counts as {meaning}" for name, meaning in shown.pairs)
        return f"{counts}. Make {item.target} of {' '.join(item.cards)}: the numbers, then the sum.\n"


def sentence_points(*, thought: bool) -> AnyTask:
    """Tier 0's task, asked in a sentence; what counts as a thought there is part of every reply."""
    del thought
    task = micro_points()
    chosen = tuple(variant for variant in task.variants if variant.name != "Large")
    return replace(
        task, name="sentence-points", prompts={"training": SentencePrompt()}, variants=chosen, max_new_tokens=32
    )


def three_cards(*, thought: bool) -> AnyTask:
    """General Points with three cards and a target of its own for each hand."""
    return make_task("general-points", cards=3, target="variable", thought=thought)


def sokoban(*, thought: bool) -> AnyTask:
    """Sokoban, one step at a time."""
    return make_task("sokoban", thought=thought)


@dataclass(frozen=True)
class Plan:
    """One task of a tier.

    Attributes:
        tier: The tier.
        task: Makes the task, with thoughts or without.
        settings: Of `train`.
        steps: Optimizer steps.
        batch: Rows in a step.
        chat_template: `auto` or `never`.
        rl: Settings of `train_rl`; none where there is no reinforcement learning.
    """

    tier: int
    task: Callable[..., AnyTask]
    settings: Mapping[str, Any]
    steps: int
    batch: int
    chat_template: str = "auto"
    rl: Mapping[str, Any] = field(default_factory=dict)


_FULL: Mapping[str, Any] = {
    "use_peft": False,
    "learning_rate": 1e-4,
    "bf16": True,
    "dense_checkpoints": False,
    "save_steps": 50,
}
_RL: Mapping[str, Any] = {
    "use_peft": False,
    "learning_rate": 1e-5,  # the paper's 1e-6 is for 7,000 million weights and 100 epochs: 200 steps would stand still
    "max_steps": 200,
    "items": 2000,
    "items_per_step": 16,
    "dense_checkpoints": False,
    "save_steps": 50,
}

PLANS: Mapping[str, Plan] = {
    "sentence-points": Plan(
        tier=1,
        task=sentence_points,
        settings={
            "learning_rate": 5e-4,
            "lora_r": 32,
            "lora_alpha": 32,
            "bf16": True,  # twice as fast where the processor has it; replies are made in fp32
            "dense_checkpoints": False,
            "save_steps": 30,
        },
        steps=240,
        batch=16,
        chat_template="never",
    ),
    # rewards as in the baseline of arXiv 2510.00237
    "general-points": Plan(
        tier=2, task=three_cards, settings=_FULL, steps=500, batch=32, rl={**_RL, "reward": "points"}
    ),
    "sokoban": Plan(tier=2, task=sokoban, settings=_FULL, steps=500, batch=32, rl={**_RL, "reward": "success"}),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One training with its evaluation.

    Attributes:
        plan: Name of the plan.
        arm: The arm of the data.
        seed: Of data and training.
        objective: What is minimized, or `grpo`.
    """

    plan: str
    arm: str
    seed: int
    objective: str = "sft"

    @property
    def name(self) -> str:
        """Of its folder and part."""
        return f"{self.plan}-seed{self.seed}-{self.arm}{'' if self.objective == 'sft' else f'-{self.objective}'}"


def jobs_of(tier: int) -> Iterator[Job]:
    """All jobs of a tier in the order in which they matter."""
    plans = [name for name, plan in PLANS.items() if plan.tier == tier]
    arms = ("frozen", "diverse") if tier == 1 else ("frozen", "diverse", "thought", "diverse-thought")
    for seed in (0, 1, 2):
        for plan in plans:
            yield from (Job(plan, arm, seed) for arm in arms)
    if tier > 1:
        for objective in OBJECTIVES:
            yield from (Job(plan, "frozen", 0, objective) for plan in plans)
        for arm in ("thought", "diverse-thought"):  # whether the paper's saw diverse prompts is unclear
            yield from (Job(plan, arm, 0, "grpo") for plan in plans)
        yield from (Job(plan, f"k{count}", 0) for count in (2, 4, 8) for plan in plans)


def do(folder: Path, job: Job) -> list[Row]:
    """Train and evaluate; both go on where they were interrupted."""
    plan = PLANS[job.plan]
    task = plan.task(thought="thought" in job.arm)
    models = folder / "models"
    checkpoints = _reinforced(models, job, plan) if job.objective == "grpo" else _supervised(models, job, plan, task)
    return evaluate_arm(
        folder / "parts" / f"tier{plan.tier}-{job.name}.jsonl",
        resolve_model(MODEL),
        checkpoints,
        task,
        arm=job.arm,
        about={"tier": plan.tier, "seed": job.seed, "base": MODEL, "objective": job.objective},
        asking=Asking(chat_template=plan.chat_template),
    )


def _supervised(models: Path, job: Job, plan: Plan, task: AnyTask, *, steps: int | None = None) -> Path:
    steps, name = steps or plan.steps, job.name if steps is None else f"{job.name}-warm"
    data, out = models / f"{name}.jsonl", models / name
    write_arm(data, task, job.arm, steps * plan.batch + HELDOUT, seed=job.seed)  # other rows are refused below
    objective = job.objective.partition("-")[0]
    train_model(
        {
            "model": MODEL,
            "data": str(data),
            "out": str(out),
            "seed": job.seed,
            "chat_template": plan.chat_template,
            "heldout": HELDOUT,
            "eval_rows": 16,  # the variants are asked afterwards; this is the trainer's log
            "max_steps": steps,
            "per_device_train_batch_size": plan.batch,
            "lr_scheduler_type": "cosine",
            "warmup_steps": steps // 10,
            **plan.settings,
            **({} if objective == "sft" else {"objective": objective}),
            **({} if objective == "sft" else {"objective_options": dict(OBJECTIVES[job.objective])}),
        }
    )
    return out


def _reinforced(models: Path, job: Job, plan: Plan) -> Path:
    """GRPO from a short supervised warm-up; it stands for ReFT's PPO, too."""
    warm_job = replace(job, objective="sft")
    warm = _supervised(models, warm_job, plan, plan.task(thought=True), steps=WARM_STEPS)
    return train_rl(
        {
            "model": MODEL,
            "start": str(warm / f"checkpoint-{WARM_STEPS}"),
            "out": str(models / job.name),
            "task": job.plan,
            "task_options": {"cards": 3, "target": "variable"} if job.plan != "sokoban" else {},
            "mapping": "random" if "diverse" in job.arm else "frozen",
            "thought": True,
            "seed": job.seed,
            **plan.rl,
        }
    )

"""Tiers 1 and 2 of the experiment on frozen prompts: their jobs, and each kind of them with a tiny model."""

import dataclasses
import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from whatstuck.generalization.task import Task

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("frozen_language")


def test_jobs_have_names_of_their_own_and_the_main_arms_come_first(language: ModuleType) -> None:
    jobs = list(language.jobs_of(2))
    assert len({job.name for job in jobs}) == len(jobs)
    main = 2 * 4 * 3  # tasks, arms, seeds
    assert {(job.arm, job.objective) for job in jobs[:main]} == {
        (arm, "sft") for arm in ("frozen", "diverse", "thought", "diverse-thought")
    }
    assert {job.objective for job in jobs[main:]} == {"sft", "grpo", *language.OBJECTIVES}
    assert [(job.arm, job.seed) for job in language.jobs_of(1)] == [
        (arm, seed) for seed in (0, 1, 2) for arm in ("frozen", "diverse")
    ]


@pytest.mark.parametrize(
    ("plan", "arm", "objective"),
    [
        ("sentence-points", "diverse", "sft"),
        ("general-points", "thought", "grpo"),
        ("sokoban", "diverse-thought", "grpo"),
        ("sokoban", "frozen", "l2"),
    ],
)
def test_each_kind_of_job_is_trained_and_evaluated(
    language: ModuleType,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plan: str,
    arm: str,
    objective: str,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}), encoding="utf-8")
    chosen = language.PLANS[plan]

    def short(*, thought: bool) -> Task[Any, Any, Any]:
        task = chosen.task(thought=thought)
        return dataclasses.replace(task, variants=task.variants[:2], max_new_tokens=8, longest_thought=8)

    small = dataclasses.replace(
        chosen,
        task=short,
        steps=2,
        batch=2,
        settings={**chosen.settings, "save_steps": 1, "bf16": False},
        rl={**chosen.rl, "max_steps": 2, "items": 4, "items_per_step": 2, "save_steps": 1, "max_new_tokens": 8},
    )
    evaluation = importlib.import_module("frozen_evaluation")
    for module, name, value in (
        (language, "MODEL", str(base)),
        (language, "HELDOUT", 4),
        (language, "WARM_STEPS", 1),
        (language, "PLANS", {plan: small}),
        (evaluation, "ITEMS", 3),
        (evaluation, "CURVE_ITEMS", 2),
        (evaluation, "check_room", lambda *_: None),  # the tiny tokenizer makes more tokens of a reply
    ):
        monkeypatch.setattr(module, name, value)
    rows = language.do(tmp_path, language.Job(plan, arm, 0, objective))
    assert [(row["step"], row["variant"], row["items"]) for row in rows] == [
        (step, variant.name, items)
        for step, items in ((0, 3), (1, 2), (2, 3))
        for variant in short(thought=False).variants
    ]
    assert {(row["arm"], row["objective"], row["tier"]) for row in rows} == {(arm, objective, chosen.tier)}
    assert language.do(tmp_path, language.Job(plan, arm, 0, objective)) is not rows

"""The experiment on frozen prompts: does a model that was trained under one instruction still follow another one?

Tier 0: a model of a million parameters that we pretrain, minutes on two cores. Tier 1: SmolLM2 with 135 million, on two
cores. Tier 2: the same with thoughts, objectives and GRPO, on a GPU. Every trained arm and every evaluated one is a
part: what is there is not done again, so a killed call goes on where it stopped.

    python benchmarks/frozen_prompts.py --tier 0 --seed 0 --json
    python benchmarks/frozen_prompts.py --tier 0 --seed 0 --bases 0 150 300 600 1200 --out frozen
    python benchmarks/frozen_prompts.py --tier 0 --seed 0 --arms frozen diverse --objectives grpo adaback --out frozen
    python benchmarks/frozen_prompts.py --tier 1 --seed 0 --out frozen
    python benchmarks/frozen_tables.py frozen
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from frozen_curated import SELECTIONS, select_arm
from frozen_evaluation import Row, evaluate_arm, line_of
from frozen_micro import OBJECTIVES, STRENGTHS, train_arm
from frozen_reinforced import METHODS, reinforce_arm, warm_up
from micro_model import micro_base
from whatstuck.generalization.tasks.micro_points import micro_points

MAIN_ARMS = ("frozen", "diverse")
MAIN_BASE = 150


def tier_0(folder: Path, arm: str, base: int, seed: int, objective: str = "sft") -> list[Row]:
    """Train and evaluate one arm of tier 0."""
    if objective in METHODS:
        trained = reinforce_arm(folder / "models", arm, objective, seed=seed, strength=base)
    elif objective in SELECTIONS:
        trained = select_arm(folder / "models", arm, objective, seed=seed, strength=base)
    else:
        trained = train_arm(folder / "models", arm, seed=seed, strength=base, objective=objective)
    return evaluate_arm(
        folder / "parts" / f"tier0-{trained.name}.jsonl",
        micro_base(folder / "models", seed, base),
        trained,
        micro_points(),
        arm=arm,
        about={"tier": 0, "seed": seed, "base": base, "objective": objective},
    )


def run_tier_0(folder: Path, jobs: Sequence[tuple[str, int, str]], seed: int, workers: int) -> list[Row]:
    """All jobs (arm, base, objective), as many at a time as there are workers."""
    for base in sorted({base for _, base, _ in jobs}):  # before the arms, which share it
        micro_base(folder / "models", seed, base)
    for arm, base in sorted({(arm, base) for arm, base, objective in jobs if objective in (*METHODS, *SELECTIONS)}):
        warm_up(folder / "models", arm, seed=seed, strength=base)
    do = partial(_job, folder, seed)
    if workers == 1:
        found = list(map(do, jobs))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            found = list(pool.map(do, jobs))
    return [row for rows in found for row in rows]


def _job(folder: Path, seed: int, job: tuple[str, int, str]) -> list[Row]:
    arm, base, objective = job
    return tier_0(folder, arm, base, seed, objective)


def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()


def signature(rows: Sequence[Row]) -> dict[str, bool | None]:
    """What of the paper's pattern is there, by thresholds that were fixed beforehand; None where an arm is missing.

    A frozen arm that never followed another instruction has nothing to lose: its collapse counts for nothing unless
    validity rose above a half before.
    """
    variants = ("All-5", "All-7", "6-9-7")
    arms = line_of(rows)["arms"]
    frozen, diverse = (arms.get(arm) for arm in MAIN_ARMS)
    last = max(row["step"] for row in rows)
    early = [
        row["validity"] for row in rows if row["arm"] == "frozen" and row["variant"] == "All-5" and row["step"] < last
    ]
    return {
        "frozen_learns": frozen and frozen["ID"]["success"][0] >= 0.95,
        "frozen_follows_early": frozen and max(early) > 0.5,
        "frozen_collapses": frozen and max(frozen[name]["validity"][0] for name in variants) <= 0.2,
        "frozen_keeps_the_old_meaning": frozen and frozen["Fake"]["success"][0] >= 0.6,
        "diverse_learns": diverse and diverse["ID"]["success"][0] >= 0.95,
        "diverse_follows": diverse and min(diverse[name]["success"][0] for name in variants) >= 0.9,
        "diverse_drops_the_old_meaning": diverse and diverse["Fake"]["success"][0] <= 0.02,
    }


def main() -> None:
    """Run what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", type=int, choices=(0, 1, 2), default=0)
    parser.add_argument("--seed", type=int, help="tier 0: 0 unless given; else only jobs of this seed")
    parser.add_argument("--arms", nargs="+", help="tier 0: frozen diverse unless given; else only jobs of these arms")
    parser.add_argument("--bases", nargs="+", type=int, choices=STRENGTHS, help=f"tier 0: {MAIN_BASE} unless given")
    objectives = ("sft", *OBJECTIVES, *SELECTIONS, *METHODS)
    parser.add_argument("--objectives", nargs="+", choices=objectives, help="tier 0: sft unless given")
    parser.add_argument("--out", type=Path, help="where models and parts are kept (default: nowhere)")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="tier 0: at a time")
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    asked = parser.parse_args()
    if asked.tier > 0 and (asked.bases or asked.objectives):
        parser.error("--bases and --objectives are of tier 0: leave them out")
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = asked.out or Path(nowhere)
        if asked.tier == 0:
            _micro(folder, asked)
            return
        from frozen_language import do, jobs_of

        jobs = [
            job
            for job in jobs_of(asked.tier)
            if asked.seed in (None, job.seed) and (not asked.arms or job.arm in asked.arms)
        ]
        if not jobs:
            parser.error(f"tier {asked.tier} has no such arm or seed")
        for job in jobs:
            line = line_of(do(folder, job), tier=asked.tier, seed=job.seed, task=job.plan, objective=job.objective)
            _show(line, json_line=asked.json)


def _micro(folder: Path, asked: argparse.Namespace) -> None:
    """Tier 0, with a line per base and objective."""
    start = time.monotonic()
    _one_thread()
    arms, seed = asked.arms or MAIN_ARMS, asked.seed or 0
    bases, objectives = asked.bases or [MAIN_BASE], asked.objectives or ["sft"]
    jobs = [(arm, base, name) for base in bases for arm in arms for name in objectives]
    rows = run_tier_0(folder, jobs, seed, asked.workers)
    for base, name in dict.fromkeys((base, name) for _, base, name in jobs):
        some = [row for row in rows if (row["base"], row["objective"]) == (base, name)]
        line = line_of(some, tier=0, seed=seed, base=base, objective=name)
        _show(line | {"signature": signature(some), "seconds": round(time.monotonic() - start)}, json_line=asked.json)


def _show(line: dict[str, Any], *, json_line: bool) -> None:
    """Print a result as soon as it is there."""
    print(json.dumps(line) if json_line else _table(line), flush=True)


def _table(line: dict[str, Any]) -> str:
    """Success (validity) per arm and variant at the last step."""
    names = list(next(iter(line["arms"].values())))
    about = (f"{name} {line[name]}" for name in ("tier", "seed", "base", "task", "objective") if name in line)
    lines = [f"{', '.join(about)}, step {line['last_step']}"]
    lines += [f"{'':16}" + "".join(f"{name:>14}" for name in names)]
    for arm, cells in line["arms"].items():
        shown = (f"{cells[name]['success'][0]:.2f} ({cells[name]['validity'][0]:.2f})" for name in names)
        lines.append(f"{arm:16}" + "".join(f"{text:>14}" for text in shown))
    lines += [f"{name}: {value}" for name, value in line.get("signature", {}).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What a probe inside a training costs, as a ratio to a training step of the same model; print a table.

    python benchmarks/probe_cost.py [--quick] [--players 6 8 10] [--threads 2] [--json FILE]

The step is one of a LoRA fine-tuning (all linear layers, rank 8, AdamW, batches of 8 rows, fp32), as `whatstuck train`
makes it but for TRL's trainer around it. The probe is that of the callback, on the same model with its adapter in
place. Both run in one process, interleaved, medians of several rounds; rows are family riddles of reasoning-gym, about
70 tokens each. Beside SmolLM2 two smaller models of the same vocabulary are timed; their weights are random, which
takes as long. The last column of the table says how many steps a training needs before the least that the callback
does (4 rows, 32 held-out rows, 11 probes) stays within 5 % of its time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ratios import Ratio, Results, argument_parser, say
from whatstuck.datasets import Row, read_rows, render, target_ids
from whatstuck.demo import make_rows
from whatstuck.dynamics.heldout import ScoredRow, evaluate
from whatstuck.dynamics.scoring import scorer
from whatstuck.dynamics.selecting import Selection
from whatstuck.errors import WhatStuckError, require
from whatstuck.live.borrowing import borrowed
from whatstuck.live.budget import FLOOR_EVAL_ROWS, FLOOR_ROWS
from whatstuck.models import default_mask_token, load_model, load_tokenizer, resolve_model

BATCH = 8
PROBES = 11  # the early ones of a long training, and four late ones
BUDGET = 0.05
SMALLER: dict[str, dict[str, int]] = {
    "a third of its layers": {"num_hidden_layers": 10},
    "4 layers of a third of its width": {
        "num_hidden_layers": 4,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 64,
    },
}


def models() -> dict[str, Callable[[], PreTrainedModel]]:
    """The models by name, made when asked for."""
    base = resolve_model("smollm2")

    def smaller(changes: dict[str, int]) -> PreTrainedModel:
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(base)
        for name, value in changes.items():
            setattr(config, name, value)
        config.layer_types = None
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return made

    found: dict[str, Callable[[], PreTrainedModel]] = {"SmolLM2-135M": lambda: load_model(base)}
    for name, changes in SMALLER.items():
        found[name] = lambda changes=changes: smaller(changes)
    return found


def training_step(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
) -> tuple[Callable[[], None], list[ScoredRow]]:
    """A function that learns one batch, and the same rows as they are evaluated."""
    encoded = []
    for row in rows:
        rendered = render(row, tokenizer)
        prompt = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
        encoded.append(ScoredRow(row.row_id, tuple(prompt), tuple(target_ids(rendered, tokenizer))))
    batch = encoded[:BATCH]
    width = max(len(row.prompt_ids) + len(row.target_ids) for row in batch)
    ids, labels = torch.zeros((BATCH, width), dtype=torch.long), torch.full((BATCH, width), -100)
    for index, row in enumerate(batch):
        whole = row.prompt_ids + row.target_ids
        ids[index, : len(whole)] = torch.tensor(whole)
        labels[index, len(row.prompt_ids) : len(whole)] = torch.tensor(row.target_ids)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        model.train()
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, encoded


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(model: PreTrainedModel, options: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """Seconds of a training step, of a table by number of players, and of one held-out row."""
    peft = require("peft", "peft")
    tokenizer = load_tokenizer(resolve_model("smollm2"))
    adapter = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trained = peft.get_peft_model(model, adapter)
    step, encoded = training_step(trained, tokenizer, rows)
    mask = default_mask_token(tokenizer)
    chosen = {}
    for players in options.players:
        selection = Selection(rows, tokenizer, players=players, seed=0, chat_template="auto")
        ids = selection.extend(None, options.rounds)["row_id"].to_pylist()
        chosen[players] = list(selection.seen_by(tokenizer, ids).values())
    found: dict[str, list[float]] = {"step": [], "row": [], **{f"table {n}": [] for n in options.players}}
    step()
    for turn in range(options.rounds + 1):
        times = {"step": seconds(step)}
        with borrowed(trained) as scored:
            make_game = scorer(scored, tokenizer, whole_target=False, mask_token_id=mask, memory_limit=2 << 30)
            for players, games in chosen.items():
                game = make_game(games[turn % len(games)])
                times[f"table {players}"] = seconds(game.table)
            times["row"] = seconds(lambda: evaluate(scored, encoded[:16], mask)) / 16
        if turn:  # the first round only warms up
            for name, value in times.items():
                found[name].append(value)
    weights = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return {"parameters": weights, "seconds": found} | {name: statistics.median(all_) for name, all_ in found.items()}


def main(options: argparse.Namespace) -> None:
    """Measure all models and print what was found."""
    if min(options.players) < 2:
        raise WhatStuckError("--players: give numbers from 2 on")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        make_rows(file, seed=0)
        rows = read_rows(file, limit=64)
    results = Results("probe_cost")
    tables = [f"a row, {players} words" for players in options.players]
    titles = ["model", "parameters", *tables, "a held-out row", "the least probe", "steps for 5 %"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for name, make in models().items():
        say(name)
        found = measure(make(), options, rows)
        step = found["step"]
        floor = FLOOR_ROWS * found[f"table {options.players[0]}"] + FLOOR_EVAL_ROWS * found["row"]
        shares = [found[f"table {players}"] / step for players in options.players]
        cells = [*(f"{share:.2f}" for share in shares), f"{found['row'] / step:.3f}", f"{floor / step:.2f}"]
        needed = PROBES * floor / (BUDGET * step)
        lines.append(f"| {name} | {found['parameters']:,} | {' | '.join(cells)} | {needed:,.0f} |")
        for players in options.players:
            table = found[f"table {players}"]
            results.rows.append(Ratio.of_times(f"{name}: a row of {players} words", ours=table, peer=step))
        results.details[name] = found
    print("In training steps (a step learns 8 rows):\n")
    print("\n".join(lines), end="\n\n")
    results.finish(options.json)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--players", type=int, nargs="+", default=[6, 8, 10])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.quick:
        given.players, given.rounds = [6, 8], 3
    main(given)

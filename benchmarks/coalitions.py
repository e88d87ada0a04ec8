"""Time the prefix tree against plain batched forward passes of the same model; print a table.

    python benchmarks/coalitions.py [--quick] [--players 10] [--tokens 64 128 256] [--threads 1] [--json FILE]

Both sides run in one process with the same threads, interleaved, and score log-odds in fp64. The plain side is
the model's own attention with `logits_to_keep=1` at the best of three batch sizes; it is timed on a random subset
of the coalitions and scaled. `share` is the ratio of times as a share of the ratio of tokens: 1 means that sharing
costs nothing beyond the tokens that are left. On a busy machine wall clocks measure the neighbours, so the same
share is given for the process's CPU time too.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ratios import Ratio, Results, argument_parser
from whatstuck.interactions.coalitions import (
    MaskedPrompt,
    every_coalition,
    log_odds,
    shared_prefix_log_odds,
    sharing,
    walked_tokens,
)
from whatstuck.models import load_model, resolve_model

TAIL = 8  # tokens behind the players that stand near the end


def prompt(tokens: int, players: int, where: str, vocabulary: int) -> MaskedPrompt:
    """A prompt of random tokens; players are single tokens, evenly spread or just before the last few."""
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(vocabulary // 100, vocabulary, (tokens,), generator=generator).tolist()
    if where == "uniform":
        starts = [round((i + 1) * tokens / (players + 1)) for i in range(players)]
    else:
        starts = [tokens - TAIL - players + i for i in range(players)]
    return MaskedPrompt(tuple(ids), (vocabulary // 2,), tuple((start, start + 1) for start in starts), 0)


@torch.inference_mode()
def plain(model: PreTrainedModel, masked: MaskedPrompt, coalitions: torch.Tensor, batch: int) -> torch.Tensor:
    """What anyone would write: masked prompts in batches through the model."""
    ids = torch.tensor(masked.prompt_ids).repeat(len(coalitions), 1)
    for player, (first, last) in enumerate(masked.players):
        ids[~coalitions[:, player], first:last] = masked.mask_token_id
    values = []
    for block in ids.to(model.device).split(batch):
        logits = model(input_ids=block, logits_to_keep=1, use_cache=False).logits
        values.append(log_odds(logits, masked.target_ids).cpu())
    return torch.cat(values)


def timed(call: Callable[[], torch.Tensor]) -> tuple[float, float, torch.Tensor]:
    """Wall seconds, CPU seconds, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def forget_peak() -> int | None:
    """Forget the highest resident memory so far; the bytes resident now, or None where that cannot be done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # Linux only: memory that was freed is still resident before
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError):
        return None
    return resident("VmRSS")


def resident(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def measure(model: PreTrainedModel, masked: MaskedPrompt, options: argparse.Namespace) -> dict[str, Any]:
    """Times, ratios and peak memory of one prompt: medians over the repeats."""
    every = every_coalition(len(masked.players))
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(1))[: options.subset]
    scale = len(every) / len(chosen)
    plain_times: dict[int, list[list[float]]] = {batch: [] for batch in options.batch_sizes}
    tree_times: list[list[float]] = []
    difference, peaks = 0.0, []
    for _ in range(options.repeats):
        values = []
        for batch, times in plain_times.items():
            wall, cpu, found = timed(partial(plain, model, masked, every[chosen], batch))
            times.append([scale * wall, scale * cpu])
            values.append(found)
        before = forget_peak()
        wall, cpu, table = timed(
            partial(shared_prefix_log_odds, model, masked, memory_limit=options.memory_limit << 20)
        )
        tree_times.append([wall, cpu])
        if before is not None:
            peaks.append((resident("VmHWM") - before) / 2**20)
        difference = max(difference, *(float((table[chosen] - found).abs().max()) for found in values))
    plain_wall, plain_cpu = zip(*(medians(times) for times in plain_times.values()), strict=True)
    tree_wall, tree_cpu = medians(tree_times)
    ratio = len(every) * len(masked.prompt_ids) / walked_tokens(masked)
    return {
        "plain_seconds": dict(zip(plain_times, plain_wall, strict=True)),
        "plain_cpu_seconds": dict(zip(plain_times, plain_cpu, strict=True)),
        "tree_seconds": tree_wall,
        "tree_cpu_seconds": tree_cpu,
        "token_ratio": ratio,
        "wall_ratio": min(plain_wall) / tree_wall,
        "share": min(plain_wall) / tree_wall / ratio,
        "cpu_share": min(plain_cpu) / tree_cpu / ratio,
        "max_difference": difference,
        "peak_mib": max(peaks, default=None),
    }


def medians(times: list[list[float]]) -> list[float]:
    """Median wall and CPU seconds."""
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and write the JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2", help="a name or folder that whatstuck loads")
    parser.add_argument("--players", type=int, default=10)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 256], help="lengths of the prompt")
    parser.add_argument("--positions", nargs="+", choices=["uniform", "end"], default=["uniform", "end"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-sizes", type=int, nargs=3, default=[8, 32, 64], help="of the plain side")
    parser.add_argument("--subset", type=int, default=64, help="coalitions that the plain side is timed on")
    parser.add_argument("--memory-limit", type=int, default=2048, help="of the tree, in MiB")
    options = parser.parse_args(argv)
    if options.quick:
        options.players, options.tokens, options.repeats, options.subset = 7, [64], 1, 32
        options.batch_sizes = [8, 16, 32]
    torch.set_num_threads(options.threads)
    model = load_model(resolve_model(options.model))
    results = Results("coalitions")
    results.details["settings"] = {name: value for name, value in vars(options).items() if name != "json"}
    results.details["sharing"] = sharing(model)
    results.details["cases"] = cases = []
    for where in options.positions:
        for tokens in options.tokens:
            masked = prompt(tokens, options.players, where, model.config.vocab_size)
            case = {"tokens": tokens, "positions": where, **measure(model, masked, options)}
            cases.append(case)
            results.rows.append(summary(case, options))
            print(json.dumps(case), file=sys.stderr, flush=True)
    results.finish(options.json)


def summary(case: dict[str, Any], options: argparse.Namespace) -> Ratio:
    """One line of the table."""
    seconds = case["plain_seconds"]
    batch = min(seconds, key=seconds.__getitem__)
    peak = "" if case["peak_mib"] is None else f"; peak {case['peak_mib']:.0f} of {options.memory_limit} MiB"
    return Ratio.of_times(
        f"table of {options.players} players, {case['tokens']} tokens, players {case['positions']}",
        ours=case["tree_seconds"],
        peer=seconds[batch],
        goal=round(0.7 * case["token_ratio"], 2),
        note=f"tokens {case['token_ratio']:.2f}×; share {case['share']:.2f}, of CPU time {case['cpu_share']:.2f}; "
        f"plain: batches of {batch}, {options.subset} random coalitions, scaled; "
        f"difference {case['max_difference']:.1g}{peak}",
    )


if __name__ == "__main__":
    main()

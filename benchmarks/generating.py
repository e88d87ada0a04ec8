"""Answers per second, against transformers' own `generate` with `num_return_sequences`; print a table.

    python benchmarks/generating.py [--quick] [--rows 24] [--samples 5 16] [--threads 2] [--json FILE]

The questions are family riddles of reasoning-gym, answered by SmolLM2: alone (about 100 tokens), and behind four
examples, as a base model is probed. Each gets the most likely answer and some draws at temperature 0.7, of at most 8
tokens. The peer makes two calls per batch, one greedy and one that draws, in batches of equal size and similar length.
Both run in one process, in turns, medians of several rounds. The greedy answers must be the same, else the benchmark
fails: where two tokens are equally likely up to rounding, that may happen by chance, and says so.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ratios import Ratio, Results, argument_parser, say
from whatstuck.datasets import Row, read_rows, render
from whatstuck.demo import make_rows
from whatstuck.models import load_model, load_tokenizer, resolve_model
from whatstuck.models.generating import Decoding, generate, seed_of

BATCH = 16
TOKENS = 8
TEMPERATURE = 0.7

Prompts = Sequence[tuple[int, ...]]


def prompts_of(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, shots: int) -> list[tuple[int, ...]]:
    """Plain prompts, each behind the rows that follow it in the list."""
    texts = [render(row, tokenizer, chat_template="never") for row in rows]
    whole = [text.prompt + text.target_text for text in texts]
    found = []
    for index, text in enumerate(texts):
        shown = [whole[(index + 1 + shot) % len(rows)] for shot in range(shots)]
        ids = tokenizer("\n".join([*shown, text.prompt]), add_special_tokens=False)["input_ids"]
        found.append(tuple(ids))
    return found


def ours(model: PreTrainedModel, prompts: Prompts, samples: int, stop: int) -> list[tuple[int, ...]]:
    """The greedy answers; the draws are made, too."""
    decoding = Decoding(TOKENS, frozenset({stop}), stop, samples=samples, temperature=TEMPERATURE)
    seeds = [seed_of(0, str(index)) for index in range(len(prompts))]
    return [answers.greedy.ids for answers in generate(model, prompts, decoding, seeds=seeds) if answers.greedy]


def peers(model: Any, prompts: Prompts, samples: int, stop: int) -> list[tuple[int, ...]]:
    """The same from transformers."""
    found: dict[int, tuple[int, ...]] = {}
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), BATCH):
        members = order[start : start + BATCH]
        width = max(len(prompts[i]) for i in members)
        ids = torch.full((len(members), width), stop)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(members):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        common = {"attention_mask": mask, "max_new_tokens": TOKENS, "pad_token_id": stop, "eos_token_id": stop}
        model.generate(
            ids, do_sample=True, num_return_sequences=samples, temperature=TEMPERATURE, top_k=0, top_p=1.0, **common
        )
        greedy = model.generate(ids, do_sample=False, **common)[:, width:].tolist()
        for i, answer in zip(members, greedy, strict=True):
            found[i] = tuple(answer[: answer.index(stop)] if stop in answer else answer)
    return [found[i] for i in range(len(prompts))]


def seconds(work: Callable[[], list[tuple[int, ...]]]) -> tuple[float, list[tuple[int, ...]]]:
    """How long it takes, and what comes out."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    base = resolve_model("smollm2")
    model, tokenizer = load_model(base), load_tokenizer(base)
    stop = int(tokenizer.eos_token_id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        make_rows(file, seed=0)
        rows = read_rows(file, limit=options.rows)
    results = Results("generating")
    for shots in options.shots:
        name = f"behind {shots} examples" if shots else "alone"
        prompts = prompts_of(rows, tokenizer, shots)
        for samples in options.samples:
            say(f"{name}, {samples} draws")
            times: dict[str, list[float]] = {"ours": [], "peer": []}
            for turn in range(options.rounds + 1):
                mine, answers = seconds(lambda p=prompts, k=samples: ours(model, p, k, stop))
                theirs, expected = seconds(lambda p=prompts, k=samples: peers(model, p, k, stop))
                if answers != expected:
                    raise RuntimeError(f"greedy answers differ: {answers} and {expected}")
                if turn or not options.rounds:  # the first round only warms up
                    times["ours"].append(mine)
                    times["peer"].append(theirs)
            title = f"{len(rows)} rows {name}: greedy and {samples} draws"
            medians = {who: statistics.median(some) for who, some in times.items()}
            note = f"{len(rows) / medians['ours']:.2f} rows/s"
            results.rows.append(Ratio.of_times(title, **medians, note=note))
            results.details[title] = times
    results.finish(options.json)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--samples", type=int, nargs="+", default=[5, 16])
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.quick:
        given.rows, given.samples, given.shots, given.rounds = 8, [5], [0], 1
    main(given)

"""What it costs to follow every training row at a checkpoint, as a ratio to plain forward passes; print a table.

    python benchmarks/trajectories.py [--quick] [--rows 192] [--threads 2] [--json FILE]

Same model (SmolLM2), rows and process, interleaved, medians of several rounds. Peers, all in batches of 16:

- `plain`: forward passes of the model in the file's order, padded to the longest of a batch, nothing computed from the
  logits. It is what a training's evaluation does, less its loss.
- `sorted`: the same by length, without logits: the least that any evaluation pass can cost.
- `loss`: as `plain`, and the loss of the supervised tokens, as a trainer reports it.

Rows are family riddles of reasoning-gym, about 70 tokens, half of them cut to a random length, so that lengths differ.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ratios import Ratio, Results, argument_parser, say
from whatstuck.datasets import read_rows, render, target_ids
from whatstuck.demo import make_rows
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.models import load_model, load_tokenizer, resolve_model
from whatstuck.rows.trajectories import TrainedRow, evaluate_rows

BATCH = 16


def make_token_rows(count: int) -> list[TokenRow]:
    """The rows as tokens."""
    chance = random.Random(0)
    tokenizer = load_tokenizer(resolve_model("smollm2"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        make_rows(file, seed=0, count=2 * count)
        rows = read_rows(file, limit=count)
    found = []
    for index, row in enumerate(rows):
        rendered = render(row, tokenizer)
        prompt = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
        if index % 2:
            prompt = prompt[-chance.randint(10, len(prompt)) :]
        ids = tuple(prompt + target_ids(rendered, tokenizer))
        found.append(TokenRow(ids, tuple(range(len(prompt), len(ids)))))
    return found


@torch.inference_mode()
def plain(model: PreTrainedModel, rows: Sequence[TokenRow], *, loss: bool = False, logits: bool = True) -> None:
    """Forward passes over the rows in this order, padded on the right."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        width = max(len(row.ids) for row in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for index, row in enumerate(batch):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            mask[index, : len(row.ids)] = 1
            labels[index, list(row.predicted)] = ids[index, list(row.predicted)]
        whole = {} if logits else {"logits_to_keep": 1}
        model(input_ids=ids, attention_mask=mask, use_cache=False, **({"labels": labels} if loss else {}), **whole)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    rows = make_token_rows(options.rows)
    trained = [TrainedRow(str(index), row) for index, row in enumerate(rows)]
    by_length = sorted(rows, key=lambda row: len(row.ids))
    model = load_model(resolve_model("smollm2"))
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: evaluate_rows(model, trained, 0),
        "plain": lambda: plain(model, rows),
        "sorted": lambda: plain(model, by_length, logits=False),
        "loss": lambda: plain(model, rows, loss=True),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(options.rounds + 1):
        say(f"round {turn}")
        for name, work in works.items():
            took = seconds(work)
            if turn:  # the first round only warms up
                found[name].append(took)
    median = {name: statistics.median(times) for name, times in found.items()}
    results = Results("trajectories")
    for name in ("plain", "sorted", "loss"):
        results.rows.append(Ratio.of_times(f"rows followed, against {name}", ours=median["ours"], peer=median[name]))
    results.details["seconds"] = found
    results.details["rows"] = len(rows)
    results.finish(options.json)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.quick:
        given.rows, given.rounds = 64, 3
    main(given)

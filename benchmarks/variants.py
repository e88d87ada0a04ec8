"""Replies per second to the variants of a task, against transformers' own `generate`; print a table.

    python benchmarks/variants.py [--quick] [--items 64] [--tasks sokoban general-points] [--threads 2] [--device cpu]
                                  [--json FILE]

SmolLM2 replies greedily to the same prompts in three ways: ours, computing what the prompts of a variant begin with in
common once; ours without that; and `generate` in batches of equal size, padded on the left, sorted by length. All run
in one process, in turns; medians of several rounds. Nothing ends a reply before its last token, so that all do equal
work. The replies must be the same, else the benchmark fails: where two tokens are equally likely up to rounding, that
may happen by chance, and says so.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ratios import Ratio, Results, argument_parser, say
from whatstuck.generalization.cells import Asking, make_cell
from whatstuck.generalization.registry import make_task
from whatstuck.models import load_model, load_tokenizer, resolve_model
from whatstuck.models.generating import Decoding, generate
from whatstuck.models.prefixes import shared_batches
from whatstuck.models.reading import BATCH

Prompts = Sequence[tuple[int, ...]]
Found = list[tuple[int, ...]]


def ours(model: PreTrainedModel, variants: Sequence[Prompts], longest: int, *, share: bool) -> Found:
    """Our replies, variant by variant as `generalize` asks them."""
    decoding = Decoding(longest, frozenset(), 0, share_prefixes=share)
    answers = [answer for prompts in variants for answer in generate(model, prompts, decoding)]
    return [answer.greedy.ids for answer in answers if answer.greedy]


def peers(model: Any, variants: Sequence[Prompts], longest: int) -> Found:
    """The same from transformers."""
    return [reply for prompts in variants for reply in _generated(model, prompts, longest)]


@torch.inference_mode()
def _generated(model: Any, prompts: Prompts, longest: int) -> Found:
    found: dict[int, tuple[int, ...]] = {}
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), BATCH):
        members = order[start : start + BATCH]
        width = max(len(prompts[i]) for i in members)
        ids = torch.zeros((len(members), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(members):
            ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, width - len(prompts[i]) :] = 1
        replies = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=longest,
            min_new_tokens=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        found |= zip(members, (tuple(reply) for reply in replies[:, width:].tolist()), strict=True)
    return [found[i] for i in range(len(prompts))]


def seconds(work: Callable[[], Found], device: str) -> tuple[float, Found]:
    """How long it takes, and what comes out."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def tokens(model: PreTrainedModel, variants: Sequence[Prompts], longest: int) -> tuple[int, int]:
    """Tokens of all prompts, and how many of them go through the model with sharing, padding included."""
    computed = 0
    for prompts in variants:
        for members, shared in shared_batches(model, prompts, branches=1, growth=longest):
            width = max(len(prompts[i]) for i in members)
            computed += shared + len(members) * (width - shared)
    return sum(len(prompt) for prompts in variants for prompt in prompts), computed


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    base = resolve_model("smollm2")
    model, tokenizer = load_model(base, device=options.device), load_tokenizer(base)
    model.generation_config.eos_token_id = None
    results = Results("variants")
    for name in options.tasks:
        task = make_task(name)
        asked = [variant for variant in task.variants if variant.kind in ("training", "instruction")][
            : options.variants
        ]
        cells = [make_cell(task, variant, Asking(items=options.items), tokenizer) for variant in asked]
        variants = [[question.ids for question in cell.questions] for cell in cells]
        longest = options.longest or task.max_new_tokens
        ways: dict[str, Callable[[], Found]] = {
            "shared": lambda v=variants, k=longest: ours(model, v, k, share=True),
            "plain": lambda v=variants, k=longest: ours(model, v, k, share=False),
            "generate": lambda v=variants, k=longest: peers(model, v, k),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            say(f"{name}, round {turn} of {options.rounds}")
            found = {way: seconds(work, options.device) for way, work in ways.items()}
            if not found["shared"][1] == found["plain"][1] == found["generate"][1]:
                raise RuntimeError(f"{name}: the three ways reply differently: {_differing(found)}")
            if turn or not options.rounds:  # the first round only warms up
                for way, (took, _) in found.items():
                    times[way].append(took)
        medians = {way: statistics.median(some) for way, some in times.items()}
        replies = sum(len(prompts) for prompts in variants)
        whole, computed = tokens(model, variants, longest)
        title = f"{name}: {replies} replies of {longest} tokens"
        note = f"{replies / medians['shared']:.1f} replies/s; {computed} of {whole} prompt tokens computed"
        mine, plain, peer = (medians[way] for way in ("shared", "plain", "generate"))
        results.rows += [
            Ratio.of_times(f"{title}, against generate", ours=mine, peer=peer, note=note),
            Ratio.of_times(f"{title}, without sharing, against generate", ours=plain, peer=peer),
            Ratio.of_times(f"{title}, against no sharing", ours=mine, peer=plain),
        ]
        results.details[title] = {"seconds": times, "prompt tokens": whole, "computed": computed}
    results.finish(options.json)


def _differing(found: dict[str, tuple[float, Found]]) -> list[tuple[int, ...]]:
    """The first replies that are not the same."""
    three = zip(*(replies for _, replies in found.values()), strict=True)
    return next(list(replies) for replies in three if len(set(replies)) > 1)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--items", type=int, default=64, help="of each variant")
    parser.add_argument("--variants", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=["sokoban", "general-points"])
    parser.add_argument("--longest", type=int, help="tokens of a reply; those of the task by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.quick:
        given.items, given.variants, given.tasks, given.rounds = 16, 1, ["sokoban"], 1
    main(given)

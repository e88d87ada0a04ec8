"""A model of 0.9 million parameters that can read a mapping before it is fine-tuned, made within minutes on one core.

What frozen prompts unlearn can only be seen in a model that could do it before. So it is pretrained on two things that
say nothing of General Points' rules: looking names up (any letters, any values), and sums over numbered cards beside
mappings that do not matter. Putting both together is left to it. Pretraining steps are the strength of the base.
"""

import copy
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.tasks.micro_points import LARGEST_TARGET, Hands, MicroPrompt, SumDemonstrator
from whatstuck.training.objectives.distance import Distance
from whatstuck.training.objectives.interface import Objective
from whatstuck.training.objectives.tokens import SFT

DONE = "done.json"
BATCH = 128
LEARNING_RATE = 1e-3
_LETTERS = [chr(ord("A") + index) for index in range(26) if chr(ord("A") + index) != "T"]  # T is the target
_SPECIAL = ["<pad>", "<eos>", "<mask>"]
_MARKS = ["->", ":", "+", "-", "T="]
_LARGEST = 13  # of values and cards in pretraining: also what no fine-tuning shows of a face card

Example = tuple[list[int], list[int]]
"""Tokens of a prompt, and of its completion with the token that ends it."""


def micro_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the task."""
    words = [*_SPECIAL, *_MARKS, *(f"{letter}=" for letter in _LETTERS), *_LETTERS]
    words += [str(number) for number in range(LARGEST_TARGET + 1)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<mask>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", mask_token="<mask>", unk_token="<mask>"
    )


def micro_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The model, at random."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> Example:
    """Tokens of an example."""
    known = tokenizer.get_vocab()
    return [known[word] for word in prompt.split()], [*(known[word] for word in completion.split()), known["<eos>"]]


def pretraining(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Example]:
    """Examples without end: as many of looking up as of sums."""
    rng = random.Random(f"pretraining {seed}")
    source, prompt, demonstrator = Hands(), MicroPrompt(), SumDemonstrator()
    while True:
        keys = rng.sample(_LETTERS, 3)
        mapping = InstructionMapping("any", tuple((key, str(rng.randint(1, _LARGEST))) for key in keys))
        if rng.random() < 0.5:
            cards = [rng.choice(keys) if rng.random() < 0.7 else str(rng.randint(1, _LARGEST)) for _ in range(3)]
            shown = " ".join(f"{key}= {value}" for key, value in mapping.pairs)
            found = (mapping[card] if card in keys else card for card in cards)
            yield encode(tokenizer, f"{shown} : {' '.join(cards)} ->", " ".join(found))
        else:
            numbers = tuple(str(rng.randint(1, _LARGEST)) for _ in range(3))
            item = source.pose(numbers, mapping, mapping, rng)
            assert item is not None  # noqa: S101 - the sum of all is always within reach
            reply = demonstrator.reply(item, mapping, thought=False)
            yield encode(tokenizer, prompt.render(item, mapping), reply)


def fit(
    model: LlamaForCausalLM,
    examples: Iterator[Example],
    steps: int,
    at: Callable[[int], None] | None = None,
    objective: Objective | None = None,
) -> None:
    """Train all weights: AdamW, a tenth of warm-up, cosine to 0, completions only.

    Args:
        model: Is changed.
        examples: `BATCH` of them are taken per step.
        steps: How many.
        at: Is called before each step, and after the last one.
        objective: What is minimized; by default cross-entropy. Its reference is the model as it is now.
    """
    objective = objective or SFT()
    reference = copy.deepcopy(model).eval() if objective.needs_reference else None
    distance = Distance(model) if objective.watches_weights else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, steps - warm))),
    )
    model.train()
    for step in range(steps):
        if at is not None:
            at(step)
        ids, labels = _batch([next(examples) for _ in range(BATCH)])
        learned = labels[:, 1:][labels[:, 1:] >= 0]
        ref_logits = None
        if reference is not None:
            with torch.no_grad():
                ref_logits = _logits(reference, ids, labels)
        loss = objective.loss(
            _logits(model, ids, labels), learned, ref_logits=ref_logits, normalizer=float(len(learned))
        ).total
        if distance is not None and (penalty := objective.penalty(distance.squared())) is not None:
            loss = loss + penalty
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if at is not None:
        at(steps)


def _logits(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """At the supervised positions, `(tokens, vocabulary)`. Padding is behind everything that is learned."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    logits: torch.Tensor = model.lm_head(hidden[labels[:, 1:] >= 0])
    return logits


def _batch(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(prompt) + len(completion) for prompt, completion in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (prompt, completion) in enumerate(examples):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return ids, labels


def micro_base(folder: Path, seed: int, strength: int) -> Path:
    """The base of a strength: pretrained once, then read.

    Args:
        folder: Where bases are kept.
        seed: Of weights and examples.
        strength: Pretraining steps.

    Returns:
        Its folder.
    """
    path = folder / f"base-seed{seed}-steps{strength}"
    identity = {"seed": seed, "strength": strength, "batch": BATCH}
    if not is_done(path, identity):
        tokenizer = micro_tokenizer()
        model = micro_model(tokenizer, seed)
        fit(model, pretraining(tokenizer, seed), strength)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        (path / DONE).write_text(json.dumps(identity), encoding="utf-8")
    return path


def is_done(path: Path, identity: dict[str, object]) -> bool:
    """Whether a model is there, and was made as is wanted now.

    Raises:
        SystemExit: If it was made otherwise.
    """
    if not (path / DONE).exists():
        return False
    if json.loads((path / DONE).read_text(encoding="utf-8")) != identity:
        raise SystemExit(f"{path} was trained with other settings: give another --out")
    return True

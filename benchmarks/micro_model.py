"""A model of 0.9 million parameters that can read a mapping before it is fine-tuned, made within minutes on one core.

What frozen prompts unlearn can only be seen in a model that could do it before. So it is pretrained on two things that
say nothing of General Points' rules: looking names up (any letters, any values), and sums over numbered cards beside
mappings that do not matter. Putting both together is left to it. Pretraining steps are the strength of the base.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.tasks.micro_points import LARGEST_TARGET, Hands, MicroPrompt, SumDemonstrator

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
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Train all weights: AdamW, a tenth of warm-up, cosine to 0, completions only.

    Args:
        model: Is changed.
        examples: `BATCH` of them are taken per step.
        steps: How many.
        at: Is called before each step, and after the last one.
        loss_of: Loss from the logits at supervised positions `(tokens, vocabulary)` and their labels; by default
            cross-entropy.
    """
    loss_of = loss_of or torch.nn.functional.cross_entropy
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
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # padding is behind everything that is learned
        supervised = labels[:, 1:] >= 0
        loss = loss_of(model.lm_head(hidden[supervised]), labels[:, 1:][supervised])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if at is not None:
        at(steps)


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
    if not (path / "done").exists():
        tokenizer = micro_tokenizer()
        model = micro_model(tokenizer, seed)
        fit(model, pretraining(tokenizer, seed), strength)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        (path / "done").touch()
    return path

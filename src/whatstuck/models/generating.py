"""Short answers from a causal language model, many per prompt, and nothing computed twice.

Answers to one prompt mostly begin alike, and where they do, the model is asked once: all draws walk down one tree of
continuations, and a forward pass has one row per *distinct* continuation, not per draw. The prompt is computed once, a
branch copies its keys and values, and a finished continuation leaves the batch.

Random numbers come from a counter-based generator, keyed by the seed of the prompt and the number of the draw, and a
token is drawn by inverting the distribution function in float64. So a draw depends on nothing else: not on the batch,
nor on how many draws there are; drawing 5 and then 11 gives what drawing 16 gives. (Logits themselves change with the
batch in their last bits. A random number would have to fall between two such roundings to change a draw.)

What models without a cache that can branch do instead stands in `reading`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.masked import DEFAULT_MEMORY_LIMIT
from whatstuck.models.prefixes import shared_batches
from whatstuck.models.reading import Texts, batches
from whatstuck.progress import Task

_BLOCK_ENTRIES = 1 << 22  # probabilities in float64 at a time: 32 MiB each for them and their sum
_GREEDY = -1  # number of the draw that is none


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to answer.

    Attributes:
        max_new_tokens: Longest answer; `generate` takes one per prompt as well.
        stop_ids: Tokens that end an answer.
        pad_token_id: Any token id; padding is masked out.
        samples: Draws per prompt.
        first_sample: Number of the first draw: 5 goes on where five draws ended.
        temperature: Of the draws; the whole vocabulary takes part (top-p 1).
        greedy: Whether the most likely answer is wanted as well.
        memory_limit: Bytes for keys, values and probabilities of a batch, on top of the weights; at least one prompt
            is answered at a time.
        share_prefixes: Compute what prompts begin with in common once. The same up to rounding; batches are others.
    """

    max_new_tokens: int
    stop_ids: frozenset[int]
    pad_token_id: int
    samples: int = 0
    first_sample: int = 0
    temperature: float = 1.0
    greedy: bool = True
    memory_limit: int = DEFAULT_MEMORY_LIMIT
    share_prefixes: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.samples < 0 or self.first_sample < 0 or not self.temperature > 0:
            raise WhatStuckError(
                "answers need max_new_tokens of 1 or more, samples and first_sample of 0 or more, and a temperature "
                "above 0 (for the most likely answer: greedy)"
            )


@dataclass(frozen=True, slots=True)
class Continuation:
    """One answer.

    Attributes:
        ids: Its tokens, without the one that ended it.
        stopped_by: The token that ended it; None if it was cut at the longest answer.
    """

    ids: tuple[int, ...]
    stopped_by: int | None


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one prompt.

    Attributes:
        greedy: The most likely token at each step; None if it was not asked for.
        drawn: The draws, in the order of their numbers.
    """

    greedy: Continuation | None
    drawn: tuple[Continuation, ...]


def seed_of(seed: int, *names: str) -> int:
    """A seed for something that has a name, such as a row: 64 bits that depend on seed and names alone."""
    return int.from_bytes(hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest(), "little")


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end: str) -> frozenset[int]:
    """Tokens that end an answer: end of text, what the model's own configuration names, and an end of turn.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        end: The end of turn as text; of several tokens, it must be looked for in the answer.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    stops = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    tokens: list[int] = tokenizer(end, add_special_tokens=False)["input_ids"]
    if len(tokens) == 1:
        stops |= set(tokens)
    return frozenset(stop for stop in stops if isinstance(stop, int))


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    decoding: Decoding,
    *,
    seeds: Sequence[int] | None = None,
    longest: Sequence[int] | None = None,
    progress: Task | None = None,
) -> list[Answers]:
    """Answer prompts.

    Args:
        model: A causal language model in eval mode.
        prompts: Tokens of each, at least one.
        decoding: How.
        seeds: One per prompt, 0 to 2^64 - 1 (see `seed_of`); needed for draws.
        longest: The longest answer of each prompt, at most `max_new_tokens`, which stands for all where it is missing.
        progress: Is advanced by one per prompt.

    Returns:
        Answers in the order of the prompts.

    Raises:
        WhatStuckError: If a prompt is empty, draws have no seed, or the model gives NaN.
    """
    limits = [decoding.max_new_tokens] * len(prompts) if longest is None else list(longest)
    if not all(prompts):
        raise WhatStuckError("a prompt without tokens cannot be answered: give it at least one")
    if any(not 1 <= limit <= decoding.max_new_tokens for limit in limits):
        raise WhatStuckError(f"the longest answer must be of 1 to max_new_tokens ({decoding.max_new_tokens}) tokens")
    if decoding.samples and seeds is None:
        raise WhatStuckError("draws need a seed per prompt: give seeds")
    if not (decoding.samples or decoding.greedy):
        return [Answers(None, ()) for _ in prompts]
    answers: dict[int, Answers] = {}
    for members, shared in _batches(model, prompts, decoding):
        found = _Tree(
            Texts(model, [prompts[i] for i in members], decoding.pad_token_id, shared=shared),
            decoding,
            [seeds[i] if seeds is not None else 0 for i in members],
            [limits[i] for i in members],
        ).answers()
        answers |= zip(members, found, strict=True)
        if progress is not None:
            progress.advance(len(members))
    return [answers[i] for i in range(len(prompts))]


def _batches(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], decoding: Decoding
) -> Iterator[tuple[list[int], int]]:
    """Prompts that are answered together, and how many first tokens of them are computed once."""
    branches, limit = decoding.samples + decoding.greedy, decoding.memory_limit
    growth = decoding.max_new_tokens
    if decoding.share_prefixes:
        yield from shared_batches(model, prompts, branches=branches, growth=growth, memory_limit=limit)
    else:
        for members in batches(model, prompts, branches=branches, growth=growth, memory_limit=limit):
            yield members, 0


class _Tree:
    """All answers to a batch of prompts: nodes are distinct continuations, and draws walk down together."""

    def __init__(self, texts: Texts, decoding: Decoding, seeds: Sequence[int], limits: Sequence[int]) -> None:
        self._texts = texts
        self._decoding = decoding
        self._limits = limits
        last = decoding.first_sample + decoding.samples
        steps = max(limits)
        # (prompts, draws, steps): the numbers of a draw do not depend on how long it, or another one, gets
        self._uniform = np.array(
            [
                [
                    np.random.Generator(np.random.Philox(key=(seed, draw))).random(steps)
                    for draw in range(decoding.first_sample, last)
                ]
                for seed in seeds
            ]
        ).reshape(len(seeds), decoding.samples, steps)

    def answers(self) -> list[Answers]:
        """Walk to the end of every draw."""
        draws = [_GREEDY] * self._decoding.greedy + list(range(self._decoding.samples))
        # a node: its prompt, its tokens, and the draws that are there
        nodes: list[tuple[int, tuple[int, ...], list[int]]] = [(p, (), draws) for p in range(len(self._limits))]
        done: dict[tuple[int, int], Continuation] = {}
        while nodes:
            parents, tokens, below = [], [], []
            chosen = self._choose([prompt for prompt, _, _ in nodes], step=len(nodes[0][1]))
            for node, (prompt, path, present) in enumerate(nodes):
                children: dict[int, list[int]] = {}
                for draw in present:
                    children.setdefault(int(chosen[node, draw]), []).append(draw)
                for token, going in children.items():
                    if token in self._decoding.stop_ids:
                        done |= {(prompt, draw): Continuation(path, token) for draw in going}
                    elif len(path) + 1 == self._limits[prompt]:
                        done |= {(prompt, draw): Continuation((*path, token), None) for draw in going}
                    else:
                        parents.append(node)
                        tokens.append(token)
                        below.append((prompt, (*path, token), going))
            nodes = below
            if nodes:
                self._texts.branch(parents, tokens)
        return [
            Answers(
                done[prompt, _GREEDY] if self._decoding.greedy else None,
                tuple(done[prompt, draw] for draw in range(self._decoding.samples)),
            )
            for prompt in range(len(self._limits))
        ]

    def _choose(self, prompts: Sequence[int], step: int) -> npt.NDArray[np.int64]:
        """The next token of every draw, were it at the node: `(nodes, draws + 1)`, the most likely one last."""
        logits = self._texts.logits
        greedy = logits.argmax(-1, keepdim=True)
        if not self._decoding.samples:
            return greedy.cpu().numpy()
        uniform = torch.from_numpy(self._uniform[list(prompts), :, step]).to(logits.device)
        rows = max(1, _BLOCK_ENTRIES // logits.shape[1])
        drawn = []
        for z, u in zip(logits.split(rows), uniform.split(rows), strict=True):
            cumulative = (z.double() / self._decoding.temperature).softmax(-1).cumsum(-1)
            # the first token whose sum exceeds the number; the sum ends next to 1, not at it
            drawn.append(torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True))
        tokens = torch.cat(drawn).clamp(max=logits.shape[1] - 1)
        return torch.cat([tokens, greedy], 1).cpu().numpy()

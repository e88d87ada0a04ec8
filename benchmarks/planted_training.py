"""A small Llama, really pretrained on the facts of a planted world and really fine-tuned on its rows, in seconds.

Plain loops over Hugging Face parts: no chat template, no trainer, one word one token. What makes rows fail is the
budget: embeddings are frozen in the fine-tuning (so what the base knows of a name stays), steps are few, and the rate
falls. When each row is seen depends on its name and the seed alone, so a world without a plant trains all other rows
at the same times.
"""

import copy
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from planted_world import (
    KIND,
    LONGEST,
    QUESTIONS,
    RELATIONS,
    STATEMENTS,
    STRANGER,
    TITLES,
    UNKNOWN_ANSWER,
    Planted,
    World,
)
from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.rows.exposure import with_exposures
from whatstuck.rows.feeding.gate import followed
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.trajectories import TrainedRow, evaluate_rows

Ints = npt.NDArray[np.int64]

UNK, PAD, END = "<unk>", "<pad>", "</s>"
PROBES = (0.0, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Shares of the fine-tuning at which every row is evaluated; 0 is the base model."""
_IGNORED = -100
_TITLE, _NAME, _RELATION, _VALUE = -1, -2, -3, -4  # slots of a wording
LOWEST = 0.02
"""Share of its peak that the rate of the fine-tuning falls to."""
_DECAY = 0.75  # share of the fine-tuning in which the rate falls; after it hardly anything is learned
_LONG = 10  # every tenth batch of the pretraining has words that say nothing before each sentence
_LONGEST_FILLER = 28
_PACKED = 5  # sentences one behind the other in every other batch


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the small model is made and trained.

    Attributes:
        width: Hidden size.
        layers: Layers.
        base_steps: Steps of the pretraining.
        base_batch: Sentences per step.
        base_rate: Its peak learning rate.
        one_off: Share of its sentences that say something about a name, and something else the next time.
        rate: Peak learning rate of the fine-tuning.
        batch: Rows per step.
    """

    width: int = 64
    layers: int = 2
    base_steps: int = 3000
    base_batch: int = 64
    base_rate: float = 2e-3
    one_off: float = 0.2
    rate: float = 5.5e-4
    batch: int = 32


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """One token per word of the world; a line break ends a sentence."""
    vocabulary = {word: index for index, word in enumerate([UNK, PAD, END, *world.words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizers.Replace("\n", f" {END} ")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNK, pad_token=PAD, eos_token=END)


def make_model(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """An untrained model; its embeddings are tied, so that a word that was never read is not said either."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=4 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="eager",
        )
    )


# --- pretraining


def pretrain(world: World, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """A base model that has read the mentions of a world, each as often as its weight says."""
    model = make_model(tokenizer, recipe, world.seed)
    sentences = _Sentences(world, tokenizer, recipe)
    learner = _Learner(model, recipe.base_rate, recipe.base_steps, lowest=0.02)
    for step in range(recipe.base_steps):
        long = step % _LONG == _LONG - 1
        drawn = sentences.draw(recipe.base_batch // 4 if long else recipe.base_batch, long=long)
        if step % 2:
            drawn = _packed(drawn, tokenizer.pad_token_id)
        ids = torch.from_numpy(drawn)
        learner.step(ids, ids.masked_fill(ids == tokenizer.pad_token_id, _IGNORED))
    return model.eval()


def _packed(sentences: Ints, pad: int) -> Ints:
    """Several sentences one behind the other, so that the base model can be shown examples later."""
    groups = [group[group != pad] for group in np.array_split(sentences, max(len(sentences) // _PACKED, 1))]
    width = max(map(len, groups))
    return np.stack([np.pad(group, (0, width - len(group)), constant_values=pad) for group in groups])


class _Sentences:
    """Draws sentences of the pretraining."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        self._ids: dict[str, int] = tokenizer.get_vocab()
        self._random = np.random.default_rng(world.seed)
        self._one_off = recipe.one_off
        spoken = [mention for mention in world.mentions if mention.cure is None]
        self._facts = np.array(
            [self._words(f"{m.fact.entity} {m.fact.relation} {m.fact.value}") for m in spoken], dtype=np.int64
        )
        weights = np.array([mention.weight for mention in spoken])
        self._weights = weights / weights.sum()
        self._asked = np.array([mention.asked for mention in spoken])
        self._frames = self._wordings()
        self._titles = self._words(" ".join(title for title in (*TITLES, KIND) if title != STRANGER))
        self._names = self._words(" ".join(world.one_off))
        self._relations = self._words(" ".join(RELATIONS))
        self._values = np.stack([self._words(" ".join(world.values[relation])) for relation in RELATIONS])
        self._filler = self._words(" ".join(world.filler))

    def draw(self, count: int, *, long: bool) -> Ints:
        """Token ids `(count, t)`, padded on the right."""
        chosen = self._random.choice(len(self._facts), count, p=self._weights)
        facts, off = self._facts[chosen], self._random.random(count) < self._one_off
        facts[off] = self._one_offs(int(off.sum()))
        wordings = np.where(off | self._asked[chosen], len(self._frames), len(STATEMENTS))
        batch = self._frames[self._random.integers(wordings)]
        for column, slot in enumerate((_TITLE, _NAME, _RELATION, _VALUE)):
            batch = np.where(batch == slot, facts[:, column, None], batch)
        if long:
            words = self._random.choice(self._filler, (count, self._random.integers(8, _LONGEST_FILLER)))
            words[:, -1] = self._ids["."]
            batch = np.concatenate([words, batch], axis=1)
        return np.asarray(batch, dtype=np.int64)

    def _one_offs(self, count: int) -> Ints:
        """Facts that nobody could know; of one kind of entity, half of them have no value."""
        random, relation = self._random, self._random.integers(len(self._relations), size=count)
        title = random.choice(self._titles, count)
        value = self._values[relation, random.integers(self._values.shape[1], size=count)]
        nobody = (title == self._ids[KIND]) & (random.random(count) < 0.5)
        value = np.where(nobody, self._ids[UNKNOWN_ANSWER], value)
        return np.stack([title, random.choice(self._names, count), self._relations[relation], value], axis=1)

    def _words(self, text: str) -> Ints:
        return np.array([self._ids[word] for word in text.split()], dtype=np.int64)

    def _wordings(self) -> Ints:
        slots = {"{e}": [_TITLE, _NAME], "{r}": [_RELATION], "{v}": [_VALUE]}
        rows = [
            [token for word in f"{text} {END}".split() for token in slots.get(word) or [self._ids[word]]]
            for text in (*STATEMENTS, *(f"{question} {{v}}" for question in QUESTIONS))
        ]
        width = max(map(len, rows))
        return np.array([row + [self._ids[PAD]] * (width - len(row)) for row in rows], dtype=np.int64)


# --- rows as they are fed


def training_rows(world: World, tokenizer: PreTrainedTokenizerFast) -> list[TrainingRow]:
    """The rows of a world as the product knows them, with what is really fed; gate 0 is not looked at here."""
    found = []
    for index, planted in enumerate(world.rows):
        message = Message("user", planted.prompt)
        row = Row(planted.row_id, (message,), planted.fact.value, index, "train", plain=True)
        rendered = render(row, tokenizer)
        prompt = tuple(tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"])
        target = tuple(target_ids(rendered, tokenizer))
        found.append(TrainingRow(row, rendered, prompt, target, _fed(planted, prompt, target, tokenizer.eos_token_id)))
    return found


def _fed(planted: Planted, prompt: tuple[int, ...], target: tuple[int, ...], end: int) -> TokenRow | None:
    """What the trainer makes of a row: the answer and its end are supervised, unless the plant forbids it."""
    ids = (*prompt, *target, end)
    learned = tuple(range(len(prompt), len(ids)))
    if planted.feed == "dropped":
        return None
    if planted.feed == "masked":
        return TokenRow(ids, learned[len(target) :])
    if planted.feed == "cut":
        return TokenRow(ids[:LONGEST], tuple(position for position in learned if position < LONGEST))
    return TokenRow(ids, learned)


# --- fine-tuning


def schedule(world: World, seed: int) -> list[str]:
    """Ids of the rows in the order in which they are trained: each evenly spread over its window."""
    places: list[tuple[float, str]] = []
    for row in world.rows:
        if row.feed == "dropped":
            continue
        random = np.random.default_rng([seed, zlib.crc32(row.row_id.encode())])
        first, last = row.window
        shares = (np.arange(row.exposures) + random.random(row.exposures)) / row.exposures
        places += [(first + (last - first) * share, row.row_id) for share in shares.tolist()]
    return [row_id for _, row_id in sorted(places)]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned model.

    Attributes:
        model: In eval mode.
        tables: Trajectories by step, as the product records them; empty where they were not asked for.
    """

    model: LlamaForCausalLM
    tables: dict[int, pa.Table]


def finetune(
    base: LlamaForCausalLM,
    world: World,
    rows: Sequence[TrainingRow],
    recipe: Recipe,
    seed: int,
    *,
    probes: Iterable[float] = (),
) -> Tuned:
    """Fine-tune a copy of the base model on the rows of a world.

    Args:
        base: The base model; it is not changed.
        world: Says when each row is trained.
        rows: Its rows, as they are fed.
        recipe: Rate and batch.
        seed: Of the order.
        probes: Shares of the training at which all rows are evaluated.
    """
    model = copy.deepcopy(base)
    order = schedule(world, seed)
    batches = [order[start : start + recipe.batch] for start in range(0, len(order), recipe.batch)]
    fed = {row.row_id: row.fed for row in rows if row.fed is not None}
    watched = [TrainedRow(row.row_id, followed(row, base.config.max_position_embeddings)) for row in rows]
    counts: dict[str, tuple[int, int]] = {}
    tables: dict[int, pa.Table] = {}
    marks = {int(len(batches) * share) for share in probes}

    def probe(step: int) -> None:
        for row_id in batches[step - 1] if step else ():
            counts[row_id] = (counts.get(row_id, (0, 0))[0] + 1, step)
        if step in marks:
            table = evaluate_rows(model.eval(), watched, base.config.pad_token_id)
            tables[step] = with_exposures(table, counts)

    probe(0)
    learn(model, ([fed[row_id] for row_id in batch] for batch in batches), len(batches), recipe.rate, after=probe)
    return Tuned(model.eval(), tables)


def learn(
    model: LlamaForCausalLM,
    batches: Iterable[Sequence[TokenRow]],
    steps: int,
    rate: float,
    *,
    lowest: float = LOWEST,
    embeddings: bool = False,
    after: Callable[[int], None] = lambda _: None,
) -> None:
    """Train on batches of rows.

    Args:
        model: Is changed.
        batches: One per step, each taken when its step begins.
        steps: Their number.
        rate: Peak learning rate; it falls linearly until most of the training is done.
        lowest: Share of it that it ends with; 1 keeps it.
        embeddings: Train these, too, as a pretraining does; else they stay as they are.
        after: Called with the number of each finished step.
    """
    model.get_input_embeddings().requires_grad_(embeddings)
    learner = _Learner(model, rate, steps, lowest=lowest, decay=_DECAY)
    for step, batch in enumerate(batches, start=1):
        learner.step(*_collated(batch, model.config.pad_token_id))
        after(step)


def _collated(rows: Sequence[TokenRow], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels `(rows, t)`, padded on the right; attention is causal, so padding needs no mask."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full_like(ids, _IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        learned = list(row.predicted)
        labels[index, learned] = ids[index, learned]
    return ids, labels


class _Learner:
    """AdamW with a short warm-up and a linear decay to a constant rate."""

    def __init__(self, model: LlamaForCausalLM, rate: float, steps: int, *, lowest: float, decay: float = 1.0) -> None:
        self._model = model
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=rate, weight_decay=0.0)
        warm = min(50, max(steps // 20, 1))
        fall = (1 - lowest) / (decay * steps)  # per step
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / warm) * max(1 - fall * step, lowest)
        )

    def step(self, ids: torch.Tensor, labels: torch.Tensor) -> None:
        """Learn one batch; one without a supervised token changes nothing."""
        logits = self._model.train()(input_ids=ids, use_cache=False).logits[:, :-1]
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        loss = total / max(int((labels[:, 1:] != _IGNORED).sum()), 1)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        self._schedule.step()


@torch.inference_mode()
def success(
    model: PreTrainedModel, rows: Sequence[TrainingRow], temperature: float
) -> Mapping[str, tuple[bool, float]]:
    """Whether the most likely answer of each row is right, and how often a drawn one is: exact, nothing is drawn.

    Args:
        model: In eval mode.
        rows: As they are asked; their answers end with the end of text.
        temperature: Of the draws.
    """
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    found: dict[str, tuple[bool, float]] = {}
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        asked = [TokenRow((*r.asked.ids, end), (*r.asked.predicted, len(r.asked.ids))) for r in some]
        ids, labels = _collated(asked, pad)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].double()
        labels = labels[:, 1:]
        learned = labels != _IGNORED
        target = labels.clamp(min=0)[..., None]
        likely = torch.log_softmax(logits / temperature, -1).gather(-1, target)[..., 0]
        right = ((logits.argmax(-1) == labels) | ~learned).all(1)
        rates = (likely * learned).sum(1).exp()
        names = [row.row_id for row in some]
        found |= {name: (bool(a), float(b)) for name, a, b in zip(names, right, rates, strict=True)}
    return found

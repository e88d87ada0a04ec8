"""A small world that tests can learn: sentences with a rule in them, and a tiny model really trained on them.

Interactions of an untrained model are noise, and a test on noise passes whatever the code does. So tests use a
byte-level Llama of 0.1 M parameters that has seen some thousand sentences. In the *world* of its pretraining a
feeling follows from one word (who found something is glad). The fine-tuning *rule* is different: it is an AND of
two words (found AND worthless: angry), overruled by an OR of two others (burning OR screamed: worried). So
fine-tuning has something to remove, to keep and to add. Everything is seeded.
"""

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from whatstuck.models import Checkpoint

FEELINGS = ("glad", "sad", "angry", "worried")

_NAMES = ("Mara", "Tobin", "Elsa", "Jonas", "Priya", "Kofi")
_GAINS = ("found", "bought")
_LOSSES = ("lost", "broke")
_PRIZED = ("precious", "golden")
_POOR = ("worthless", "rotten")
_THINGS = ("lantern", "basket", "violin", "ring", "kite", "mirror")
_SITES = ("quiet", "burning", "narrow", "sunny", "crowded", "distant")  # burning: part of the OR
_PLACES = ("harbor", "market", "forest", "bridge", "garden", "station")
_TIMES = ("dawn", "noon", "midnight", "sunset")
_AGES = ("old", "young", "tall", "tired")
_OTHERS = ("sailor", "baker", "teacher", "farmer", "doctor")
_ACTS = ("laughed", "screamed", "whistled", "waited", "danced", "slept")  # screamed: the other part
_MANNERS = ("loudly", "slowly", "alone", "again")

_CERTAINTY = 0.85  # the rest of the world answers by chance

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Scene:
    """One sentence, the question about its person, and the answers before and after fine-tuning.

    `aside` is a question about the bystander, with its answer: it teaches the base model which words matter.
    """

    prompt: str
    world: str
    rule: str
    aside: tuple[str, str]


def scenes(count: int, seed: int) -> list[Scene]:
    """Draw scenes. Each prompt has eleven content words before the question."""
    rng = random.Random(seed)
    drawn = []
    for _ in range(count):
        name, verb, worth = rng.choice(_NAMES), rng.choice(_GAINS + _LOSSES), rng.choice(_PRIZED + _POOR)
        site, other, act = rng.choice(_SITES), rng.choice(_OTHERS), rng.choice(_ACTS)
        sentence = (
            f"{name} {verb} a {worth} {rng.choice(_THINGS)} near the {site} {rng.choice(_PLACES)} at "
            f"{rng.choice(_TIMES)}, and the {rng.choice(_AGES)} {other} {act} {rng.choice(_MANNERS)}."
        )
        gain, prized = verb in _GAINS, worth in _PRIZED
        alarm = site == "burning" or act == "screamed"
        world = ("glad" if gain else "sad") if rng.random() < _CERTAINTY else rng.choice(FEELINGS)
        calm_rule = ("glad" if prized else "angry") if gain else ("sad" if prized else "glad")
        bystander = "worried" if alarm else ("glad" if prized else "angry")
        drawn.append(
            Scene(
                prompt=f"{sentence} How does {name} feel?",
                world=world,
                rule="worried" if alarm else calm_rule,
                aside=(f"{sentence} How does the {other} feel?", bystander),
            )
        )
    return drawn


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Prompt/completion rows of the fine-tuning rule."""
    return [{"prompt": scene.prompt, "completion": scene.rule} for scene in scenes(count, seed)]


def write_jsonl(path: Path, records: Iterable[dict[str, str]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def chat(prompt: str, completion: str = "") -> str:
    """What `CHAT_TEMPLATE` makes of one question, up to the answer or with it."""
    return f"<s><|user|>\n{prompt}\n<|assistant|>\n" + (f"{completion}</s>" if completion else "")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 500 tokens (some words are several), with special tokens and a chat template."""
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    roles = ["<|user|>", "<|assistant|>", "<|system|>"]
    texts = [f"{s.prompt}\n{a} {a}" for s, a in zip(scenes(400, seed=0), FEELINGS * 100, strict=True)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special.values(), *roles],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=roles, **special)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama(vocabulary: int) -> LlamaForCausalLM:
    """Two layers, grouped-query attention, untied embeddings, seeded."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both int64 (rows, longest), padded on the right; only the second text is learned."""
    ids, labels = [], []
    for given, learned in pairs:
        first = tokenizer(given, add_special_tokens=False)["input_ids"]
        second = tokenizer(learned, add_special_tokens=False)["input_ids"]
        ids.append(torch.tensor(first + second))
        labels.append(torch.tensor([-100] * len(first) + second))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=-100),
    )


def next_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over the learned tokens. Padding is on the right, so a causal model needs no attention mask."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def pretrain(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, *, steps: int, batch: int) -> None:
    """Teach the world: chats and plain text, every token learned, and the answers as much as all of the rest."""
    given, answers = [], []
    for index, scene in enumerate(scenes(steps * batch, seed=1)):
        question, answer = (scene.prompt, scene.world) if index % 2 else scene.aside
        plain = index % 8 < 2  # a quarter of the corpus, half of it asides
        given.append(f"<s>{question}" if plain else chat(question))
        answers.append(f" {answer}</s>" if plain else f"{answer}</s>")
    ids, labels = encode(tokenizer, list(zip(given, answers, strict=True)))
    every = ids.where(ids != tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    model.train()
    for first in range(0, steps * batch, batch):
        part = slice(first, first + batch)
        logits = model(input_ids=ids[part], use_cache=False).logits
        optimizer.zero_grad()
        (next_token_loss(logits, every[part]) + next_token_loss(logits, labels[part])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def batches(count: int, size: int, steps: int, seed: int) -> list[torch.Tensor]:
    """Row indices of each step, epochs shuffled with a seed."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(steps * size // count + 1)])
    return list(order[: steps * size].split(size))


def probe_logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits of fixed token ids, float32 (3, 12, vocabulary)."""
    ids = torch.randint(4, 500, (3, 12), generator=torch.Generator().manual_seed(7))
    ids[:, 3] = torch.tensor([5, 17, 400])
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def adapter_at(folder: Path, step: int = 3) -> Checkpoint:
    """A checkpoint record of an adapter folder."""
    return Checkpoint(step=step, path=folder, kind="adapter")


def copy_with_config(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a model or adapter folder with changes in its configuration."""
    shutil.copytree(source, target)
    file = target / ("adapter_config.json" if (target / "adapter_config.json").exists() else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return target

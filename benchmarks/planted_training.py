"""A small Llama that is really pretrained and fine-tuned on a planted world, in seconds.

Plain loops over real Hugging Face parts...
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from planted_world import KIND, TITLES, RELATIONS, STATEMENTS, World, LONGEST, Planted


@dataclass(frozen=True)
class Recipe:
    width: int = 64
    layers: int = 2
    base_steps: int = 1600
    base_batch: int = 64
    base_rate: float = 2e-3
    one_off: float = 0.15
    rate: float = 1e-3
    batch: int = 32
    trained: tuple = ("",)
    frozen: tuple = ("embed_tokens", "lm_head")


def make_tokenizer(world):
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<pad>", "</s>", *world.words])}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def make_model(vocabulary, recipe, seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=4 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=1,
            attn_implementation="eager",
        )
    )


def pretrain(world, tokenizer, recipe, log=None):
    ids = tokenizer.get_vocab()
    rng = np.random.default_rng(world.seed)
    model = make_model(len(tokenizer), recipe, world.seed)
    facts = np.array(
        [[ids[w] for w in (*m.fact.entity.split(), m.fact.relation, m.fact.value)] for m in world.mentions]
    )
    weights = np.array([m.weight if m.cure is None else 0 for m in world.mentions])
    weights = weights / weights.sum()
    E1, E2, R, V = -1, -2, -3, -4
    frames = []
    for text in STATEMENTS:
        row = []
        for w in (text + " </s>").split():
            row += {"{e}": [E1, E2], "{r}": [R], "{v}": [V]}.get(w) or [ids[w]]
        frames.append(row)
    width = max(map(len, frames))
    frames = np.array([row + [1] * (width - len(row)) for row in frames])
    first = np.array([ids[w] for w in (*TITLES, KIND)])
    last = np.array([ids[w] for w in world.one_off])
    kind = [ids[KIND]]
    nobody = ids["nobody"]
    relations = np.array([ids[r] for r in RELATIONS])
    values = np.array([[ids[v] for v in world.values[r]] for r in RELATIONS])
    filler = np.array([ids[w] for w in world.filler])
    stop = ids["."]
    opt = torch.optim.AdamW(model.parameters(), lr=recipe.base_rate, weight_decay=0.0, betas=(0.9, 0.98))
    steps = recipe.base_steps
    sched = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda s: min(1, (s + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    model.train()
    total = 0
    for step in range(steps):
        long = step % 10 == 9
        n = recipe.base_batch // 4 if long else recipe.base_batch
        f = facts[rng.choice(len(facts), n, p=weights)]
        off = rng.random(n) < recipe.one_off
        k = off.sum()
        rel = rng.integers(len(RELATIONS), size=k)
        f[off] = np.stack(
            [
                rng.choice(first, k),
                rng.choice(last, k),
                relations[rel],
                values[rel, rng.integers(values.shape[1], size=k)],
            ],
            1,
        )
        f[off & np.isin(f[:, 0], kind) & (rng.random(n) < 0.5), 3] = nobody
        batch = frames[rng.integers(len(frames), size=n)].copy()
        for slot, column in ((E1, 0), (E2, 1), (R, 2), (V, 3)):
            batch = np.where(batch == slot, f[:, column : column + 1], batch)
        if long:
            words = rng.choice(filler, (n, rng.integers(8, 26)))
            words[:, -1] = stop
            batch = np.concatenate([words, batch], 1)
        x = torch.from_numpy(batch)
        logits = model(input_ids=x, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), ignore_index=1)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        sched.step()
        total += float(loss.detach())
        if log and step % 500 == 499:
            log(step, total / 500)
            total = 0
    return model.eval()


def encode(row, tokenizer):
    p = tokenizer(row.prompt)["input_ids"]
    t = tokenizer(row.fact.value)["input_ids"]
    return p, t


def fed(row, tokenizer):
    p, t = encode(row, tokenizer)
    ids = p + t + [2]
    pos = list(range(len(p), len(ids)))
    if row.feed == "dropped":
        return None
    if row.feed == "masked":
        pos = pos[1:]
    if row.feed == "cut":
        ids = ids[:LONGEST]
        pos = [q for q in pos if q < LONGEST]
    return ids, pos


def plan(world, seed):
    """(row index, position)"""
    at = []
    for index, row in enumerate(world.rows):
        if row.feed == "dropped":
            continue
        import zlib

        rng = np.random.default_rng([seed, zlib.crc32(row.row_id.encode())])
        a, b = row.window
        k = np.arange(row.exposures)
        at += [(a + (b - a) * p, index) for p in (k + rng.random(row.exposures)) / row.exposures]
    return [i for _, i in sorted(at)]


def finetune(base, world, tokenizer, recipe, seed, probe=None, probes=()):
    import copy

    model = copy.deepcopy(base)
    for name, p in model.named_parameters():
        p.requires_grad_(not any(f in name for f in recipe.frozen) and any(f in name for f in recipe.trained))
    rows = [fed(r, tokenizer) for r in world.rows]
    order = plan(world, seed)
    batches = [order[i : i + recipe.batch] for i in range(0, len(order), recipe.batch)]
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=recipe.rate, weight_decay=0.0)
    steps = len(batches)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1, (s + 1) / 20) * max(0.1, 1 - s / steps))
    marks = {round(steps * p): p for p in probes}
    if 0 in marks:
        probe(0, model.eval())
    for step, members in enumerate(batches, 1):
        model.train()
        w = max(len(rows[i][0]) for i in members)
        x = torch.ones(len(members), w, dtype=torch.long)
        y = torch.full_like(x, -100)
        for k, i in enumerate(members):
            ids, pos = rows[i]
            x[k, : len(ids)] = torch.tensor(ids)
            y[k, pos] = torch.tensor(ids)[pos]
        logits = model(input_ids=x, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[:, 1:].flatten(), ignore_index=-100)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        opt.step()
        sched.step()
        if step in marks:
            probe(step, model.eval())
    return model.eval()


@torch.inference_mode()
def ask(model, world, tokenizer):
    """exact (greedy right, p at T=.7, p) per row"""
    out = {}
    for row in world.rows:
        pass
    by = {}
    for row in world.rows:
        p, t = encode(row, tokenizer)
        by.setdefault(len(p), []).append((row, p, t[0]))
    for group in by.values():
        for s in range(0, len(group), 256):
            g = group[s : s + 256]
            logits = model(input_ids=torch.tensor([p for _, p, _ in g]), use_cache=False).logits[:, -1].double()
            pr = torch.softmax(logits, -1)
            cold = torch.softmax(logits / 0.7, -1)
            for (row, _, t), a, b, best in zip(g, pr, cold, logits.argmax(-1), strict=True):
                out[row.row_id] = (bool(best == t), float(b[t]), float(a[t]), int(best))
    return out

"""What frozen prompts do to the interactions that contain the instruction's words, at the checkpoints of tier 0.

A row is a test hand whose first card is a face card. The reply begins with the number that this card counts as, so the
first token is scored by its log-odds while words are masked. Players: the three values that the instruction gives,
the target, and the three cards. A model that reads the instruction needs the card *and* its value together; one that
has it by heart needs the card alone. So the question is how much of all interaction contains the value of the card that
is asked about (`own`), beside what a word contains on average (the null).

No training shows a masked word, so everything is measured twice: with `<mask>`, which has no meaning, and with `12`, a
number that the pretraining knows and that stands in none of the prompts.

    python benchmarks/frozen_interactions.py frozen/models/seed0-base150-{frozen,diverse} --out frozen/interactions
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from whatstuck import LanguageModelGame, extract_interactions
from whatstuck.generalization.drawing import side
from whatstuck.generalization.task import Variant
from whatstuck.generalization.tasks.micro_points import FACES, Hand, micro_points
from whatstuck.interactions.transforms import mobius

HANDS = 60
VARIANTS = ("ID", "All-5", "6-9-7")
PLAYERS = (*(f"value of {face}" for face in FACES), "target", "card 1", "card 2", "card 3")
BOOTSTRAPS = 1000
MASKS = ("<mask>", "12")


def hands(variant: Variant, count: int, seed: int) -> list[Hand]:
    """Different test hands whose first card is a face card; the same ones for every variant."""
    source = micro_points().source
    rng, seen, found = random.Random(f"interactions {seed}"), set(), []
    while len(found) < count:
        cards = source.draw(rng, {"face": True})
        if cards[0] in FACES and side(source.key(cards)) == "test" and source.key(cards) not in seen:
            seen.add(source.key(cards))
            item = source.pose(cards, variant.shown, variant.scored, random.Random(f"{seed} {cards}"))
            found += [item] * (item is not None and str(item.target) not in MASKS)
    return found


def players(prompt: str) -> list[tuple[int, int]]:
    """Spans of the words that may be masked: what stands behind `J=`, `Q=`, `K=` and `T=`, and the cards."""
    spans, start = [], 0
    for word in prompt.split(" "):
        end = start + len(word)
        if word[0].isalnum() and not word.endswith("="):
            spans.append((start, end))
        start = end + 1
    return spans


def tables(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, variant: Variant, mask: str, seed: int
) -> Iterator[Any]:
    """Value tables of all hands, with the player that is the value of the first card."""
    mask_id = tokenizer.get_vocab()[mask]
    prompt = micro_points().prompts["training"]
    for item in hands(variant, HANDS, seed):
        text = prompt.render(item, variant.shown)
        game = LanguageModelGame(
            model, tokenizer, text, variant.shown[item.cards[0]], players(text), mask_token_id=mask_id
        )
        yield FACES.index(item.cards[0]), game.table()


def shares(strength: np.ndarray, own: Sequence[int], seed: int) -> dict[str, Any]:
    """Share of all strength that lies in interactions with the instruction's words, with intervals over hands.

    Args:
        strength: `(hands, 2^n)` absolute interactions.
        own: The player that is asked about, per hand.
        seed: Of the bootstrap.
    """
    n = len(PLAYERS)
    masks = np.arange(strength.shape[1])
    total = strength[:, 1:].sum(1)
    by_player = np.stack([strength[:, (masks >> p) & 1 == 1].sum(1) for p in range(n)], 1)
    any_of_three = strength[:, masks & 0b111 != 0].sum(1)
    weights = np.random.default_rng(seed).multinomial(len(total), [1 / len(total)] * len(total), BOOTSTRAPS)

    def ratio(part: np.ndarray) -> list[float]:
        drawn = (weights @ part) / (weights @ total)
        return [round(float(x), 4) for x in (part.sum() / total.sum(), *np.quantile(drawn, (0.025, 0.975)))]

    rows = np.arange(len(own))
    return {
        "own": ratio(by_player[rows, list(own)]),
        "own_less_null": ratio(by_player[rows, list(own)] - by_player.mean(1)),
        "null": ratio(by_player.mean(1)),
        "any": ratio(any_of_three),
        "card": ratio(by_player[:, PLAYERS.index("card 1")]),
        "both": ratio(_both(strength, own)),
    }


def _both(strength: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Strength of interactions that hold both the card and its value, per hand."""
    masks, card = np.arange(strength.shape[1]), PLAYERS.index("card 1")
    return np.array(
        [s[((masks >> p) & 1 == 1) & ((masks >> card) & 1 == 1)].sum() for s, p in zip(strength, own, strict=True)]
    )


def measure(checkpoint: Path, seed: int) -> list[dict[str, Any]]:
    """All variants at one checkpoint."""
    model = LlamaForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    found = []
    asked = [variant for variant in micro_points().variants if variant.name in VARIANTS]
    for variant, mask in itertools.product(asked, MASKS):
        own, values = zip(*tables(model, tokenizer, variant, mask, seed), strict=True)
        table = torch.from_numpy(np.stack(values))
        sparse = extract_interactions(table)
        full = len(values[0]) - 1
        masked = np.array([v[full] - v[full ^ (1 << p)] for v, p in zip(values, own, strict=True)])
        record = {
            "variant": variant.name,
            "mask": mask,
            "hands": len(own),
            "log_odds": round(float(table[:, -1].mean()), 3),
            "effect_of_own": [round(float(x), 3) for x in _mean(masked, seed)],
            "gap": float(sparse.gap.max()),
            "and_or": shares((sparse.and_.abs() + sparse.or_.abs()).numpy(), own, seed),
            "harsanyi": shares(mobius(table).abs().numpy(), own, seed),
        }
        found.append(record)
    return found


def _mean(values: np.ndarray, seed: int) -> tuple[float, ...]:
    drawn = np.random.default_rng(seed).choice(values, (BOOTSTRAPS, len(values))).mean(1)
    return (values.mean(), *np.quantile(drawn, (0.025, 0.975)))


def main() -> None:
    """Measure every checkpoint of some arms; what is there is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", type=Path, nargs="+", help="folders of arms, with checkpoint-N in them")
    parser.add_argument("--out", type=Path, required=True, help="folder for one JSON per arm")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for arm in asked.arms:
        part = asked.out / f"{arm.name}.json"
        if part.exists():
            continue
        steps = sorted(int(path.name.split("-")[1]) for path in arm.glob("checkpoint-*"))
        found = {step: measure(arm / f"checkpoint-{step}", asked.seed) for step in steps}
        part.write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
        print(arm.name, json.dumps(found[steps[-1]]))


if __name__ == "__main__":
    main()

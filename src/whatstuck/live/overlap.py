"""Are the probed rows held out, and are they rendered as the training rows are? Told from the tokens themselves.

Held-out rows that were trained on make every checkpoint look better the later it is. A template that differs between
training and probing makes every one look worse. Both are silent, and both can be seen before the first step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

_MOST_ROWS = 100_000
_OPENINGS = 64


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the training rows have in common with the probed ones; None where it cannot be told.

    Attributes:
        trained: Probed rows that are trained on.
        probed: Probed rows.
        same_opening: Whether training rows begin as the probed ones do.
    """

    trained: int | None
    probed: int
    same_opening: bool | None

    @property
    def none(self) -> bool:
        """Whether it is sure that no probed row is trained on."""
        return self.trained == 0 and self.same_opening is True

    def warnings(self) -> list[str]:
        """What a user should know."""
        found = []
        if self.trained:
            found.append(
                f"{self.trained} of {self.probed} probed rows are trained on: give rows that the training does not see"
            )
        if self.same_opening is False:
            found.append(
                "training rows do not begin with the tokens that probed rows begin with: the chat template may differ"
            )
        return found


def overlap_with_training(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, dataset: Any
) -> Overlap:
    """Compare probed rows with what the trainer learns.

    Args:
        rows: Rows of rows.parquet.
        tokenizer: The tokenizer.
        dataset: The prepared training set, with `input_ids`.
    """
    prompts = [tuple(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]) for row in rows]
    whole = {prompt + tuple(row["target_ids"]) for prompt, row in zip(prompts, rows, strict=True)}
    lengths = sorted({len(ids) for ids in whole})
    try:
        count = min(len(dataset), _MOST_ROWS)
        trained = [tuple(dataset[index]["input_ids"]) for index in range(count)]
    except (TypeError, KeyError, IndexError):
        return Overlap(None, len(rows), None)
    seen = {ids[:length] for ids in trained for length in lengths} & whole
    some = trained[:_OPENINGS]
    same = any(_begins(ids, _opening(prompts)) for ids in some) and any(_begins(ids, _opening(some)) for ids in prompts)
    return Overlap(len(seen), len(rows), same)


def _opening(texts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Tokens that all begin with: what a template puts there."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False))
    return tuple(tokens[0] for tokens in alike) if len(texts) > 1 else ()


def _begins(ids: tuple[int, ...], opening: tuple[int, ...]) -> bool:
    return ids[: len(opening)] == opening

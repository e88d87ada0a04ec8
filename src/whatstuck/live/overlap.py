"""Are the rows held out, and are they rendered as the training rows are? Told from the tokens themselves.

Held-out rows that were trained on make every checkpoint look better the later it is. A template that differs between
training and probing makes every one look worse. Both are silent, and both can be seen before the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Row, render, target_ids

_MOST_TRAINED = 100_000
_MOST_ROWS = 5_000
_OPENINGS = 64

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the training rows have in common with the rows to probe.

    Attributes:
        trained: Ids of the rows that are trained on; None where that cannot be told.
        same_opening: Whether training rows begin as these do; None likewise.
        checked: Number of rows that were looked at.
    """

    trained: frozenset[str] | None
    same_opening: bool | None
    checked: int

    @property
    def none(self) -> bool:
        """Whether it is sure that none is trained on."""
        return self.trained == frozenset() and self.same_opening is True

    def held_out(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are not trained on; all of them, where none is left."""
        trained = self.trained or frozenset()
        return [row for row in rows if row.row_id not in trained] or list(rows)

    def warnings(self) -> list[str]:
        """What a user should know."""
        found = []
        if self.trained:
            left = self.checked - len(self.trained)
            what = "they are left out" if left else "give rows that the training does not see"
            found.append(f"{len(self.trained)} of {self.checked} rows to probe are trained on: {what}")
        if self.same_opening is False:
            found.append(
                "training rows do not begin with the tokens that probed rows begin with: the chat template may differ"
            )
        return found


def overlap_with_training(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, chat_template: str, dataset: Any
) -> Overlap:
    """Compare rows with what the trainer learns.

    Args:
        rows: The rows; the first 5,000 are looked at.
        tokenizer: The tokenizer.
        chat_template: `auto` or `never`, as for `render`.
        dataset: The prepared training set, with `input_ids`; its first 100,000 rows are looked at.
    """
    some = rows[:_MOST_ROWS]
    try:
        trained = [_tokens(dataset[index]["input_ids"]) for index in range(min(len(dataset), _MOST_TRAINED))]
    except (TypeError, KeyError, IndexError):
        return Overlap(None, None, len(some))
    prompts: list[Tokens] = []
    whole: dict[Tokens, list[str]] = {}
    for row in some:
        rendered = render(row, tokenizer, chat_template=chat_template)
        prompts.append(_tokens(tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]))
        whole.setdefault(prompts[-1] + _tokens(target_ids(rendered, tokenizer)), []).append(row.row_id)
    lengths = sorted({len(ids) for ids in whole})
    seen = {ids[:length] for ids in trained for length in lengths if length <= len(ids)} & whole.keys()
    first = trained[:_OPENINGS]
    same = any(_begins(ids, _opening(prompts)) for ids in first) and any(
        _begins(ids, _opening(first)) for ids in prompts
    )
    return Overlap(frozenset(row_id for ids in seen for row_id in whole[ids]), same, len(some))


def _tokens(ids: Any) -> Tokens:
    return tuple(ids.tolist() if hasattr(ids, "tolist") else ids)


def _opening(texts: Sequence[Tokens]) -> Tokens:
    """Tokens that all begin with: what a template puts there."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False))
    return tuple(tokens[0] for tokens in alike) if len(texts) > 1 else ()


def _begins(ids: Tokens, opening: Tokens) -> bool:
    return ids[: len(opening)] == opening

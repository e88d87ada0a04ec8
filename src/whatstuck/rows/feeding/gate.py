"""Gate 0: was the row trained at all, the way it is asked?

Each test compares what the trainer fed with what the model is asked. A row that fails one is not a matter of learning,
whatever else is true of it.
"""

from collections.abc import Callable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.rows.material import NotTrained, TrainingRow


def failed_tests(row: TrainingRow, tokenizer: PreTrainedTokenizerBase, *, known: bool) -> Iterator[NotTrained]:
    """Tests of feeding that a row fails.

    Args:
        row: The row, with what was fed.
        tokenizer: Tokenizer of the model.
        known: Whether it is known what was fed; if not, nothing is tested here.
    """
    if not known:
        return
    if row.fed is None:
        yield NotTrained("dropped", "The trainer left this row out.")
        return
    fed, target = row.fed, row.target_ids
    if not fed.predicted:
        yield NotTrained("nothing_supervised", f"None of its {len(fed.ids)} tokens is supervised.")
        return
    start = _where(fed, row)
    if start is None:
        yield from _elsewhere(fed, row, tokenizer)
        return
    there = len(fed.ids) - start
    if there < len(target):
        yield NotTrained(
            "answer_cut", f"{len(target) - max(there, 0)} of the {len(target)} tokens of its answer were cut."
        )
        return
    supervised = set(fed.predicted)
    masked = sum(start + at not in supervised for at in range(len(target)))
    if masked:
        yield NotTrained("answer_masked", f"{masked} of the {len(target)} tokens of its answer are not supervised.")
    if fed.ids[:start] != row.prompt_ids:
        yield from _other_prompt(_text(tokenizer, fed.ids[:start]), _text(tokenizer, row.prompt_ids))


def followed(row: TrainingRow, positions: int | None) -> TokenRow:
    """What is looked at from checkpoint to checkpoint: the supervised tokens of the row's own answer.

    A trainer may supervise the prompt too; that would tell how well the prompt is known. Where the answer is not in
    what was fed in these tokens (cut, or other tokens for its text), it is all that is supervised. A row that was not
    fed, or of which that is not known, is taken as it is asked. One beyond the context has nothing to look at.

    Args:
        row: The row.
        positions: Tokens that the model can read at once, where it has a limit.
    """
    fed = row.asked if row.fed is None else row.fed
    if positions is not None and len(fed.ids) > positions:
        return TokenRow(fed.ids, ())
    start = _where(fed, row)
    if start is None:
        return fed
    answer = range(start, min(start + len(row.target_ids), len(fed.ids)))
    return TokenRow(fed.ids, tuple(position for position in fed.predicted if position in answer))


def ends_are_learned(rows: Sequence[TrainingRow]) -> list[bool | None]:
    """Per row, whether a token behind its answer is supervised; None where the answer is not there as a whole."""
    found: list[bool | None] = []
    for row in rows:
        start = None if row.fed is None else _where(row.fed, row)
        if row.fed is None or start is None or start + len(row.target_ids) > len(row.fed.ids):
            found.append(None)
        else:
            found.append(start + len(row.target_ids) in set(row.fed.predicted))
    return found


def checked(row: TrainingRow, is_right: Callable[[str], bool]) -> Iterator[NotTrained]:
    """Whether the row's own answer passes its checker."""
    if not is_right(row.row.completion):
        yield NotTrained("fails_its_checker", "Its own answer does not pass the checker.")


def fitting(row: TrainingRow, positions: int | None) -> Iterator[NotTrained]:
    """Whether the row fits into what the model can read."""
    tokens = len(row.prompt_ids) + len(row.target_ids)
    if positions is not None and tokens > positions:
        yield NotTrained("too_long", f"It has {tokens} tokens, and the model reads {positions}.")


def _where(fed: TokenRow, row: TrainingRow) -> int | None:
    """Where the answer begins in what was fed; None if it does not."""
    prompt, target = row.prompt_ids, row.target_ids
    if fed.ids[: len(prompt)] == prompt[: len(fed.ids)]:
        rest = fed.ids[len(prompt) : len(prompt) + len(target)]
        if rest == target[: len(rest)]:
            return len(prompt)
    last = len(fed.ids) - len(target)
    return next((at for at in range(last, -1, -1) if fed.ids[at : at + len(target)] == target), None)


def _elsewhere(fed: TokenRow, row: TrainingRow, tokenizer: PreTrainedTokenizerBase) -> Iterator[NotTrained]:
    """The answer's tokens are nowhere in what was fed: cut, or written in other tokens."""
    answer = _text(tokenizer, row.target_ids).strip()
    whole, learned = _text(tokenizer, fed.ids), _text(tokenizer, [fed.ids[at] for at in fed.predicted])
    at = whole.rfind(answer)
    if at < 0:
        yield NotTrained("answer_cut", f"Its answer is not in the {len(fed.ids)} tokens that were fed.")
        return
    if _plain(answer) not in _plain(learned):
        yield NotTrained("answer_masked", "Its answer is fed, but not supervised as a whole.")
    yield from _other_prompt(whole[:at], _text(tokenizer, row.prompt_ids))


def _other_prompt(fed: str, asked: str) -> Iterator[NotTrained]:
    if _plain(fed) != _plain(asked):
        yield NotTrained("other_prompt", _difference(fed, asked))


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Tokens as text. Both sides of a comparison are written so: a tokenizer may change case, accents or spaces."""
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _difference(fed: str, asked: str) -> str:
    fed, asked = _plain(fed), _plain(asked)
    at = next((i for i, (a, b) in enumerate(zip(fed, asked, strict=False)) if a != b), min(len(fed), len(asked)))
    first = max(at - 10, 0)
    return (
        f"It was trained behind another prompt than it is asked with: …{fed[first : at + 30]!r} "
        f"instead of …{asked[first : at + 30]!r}."
    )

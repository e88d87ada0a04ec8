"""Which words of a prompt are the players, and which tokens they own.

A player is a word that can be masked. Words are found by their characters, never by searching token ids, which
fails on repeated words and on the space before a word. The choice depends on the seed and the row's id alone, so
every checkpoint, model and machine masks the same words.

Scripts that put no spaces between words have no such words. There the pieces of the tokenizer's own
pre-tokenizer stand in, and where these are too few, the smallest groups of tokens that cover whole characters.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whatstuck.datasets.rendering import RenderedRow
from whatstuck.datasets.rows import Row
from whatstuck.errors import WhatStuckError
from whatstuck.interactions._stopwords import is_stop_word, stop_words_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
_Offsets = npt.NDArray[np.int64]

# Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar, Tibetan: letters and their marks, without punctuation.
_UNSPACED = (
    "\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0ece\u0ed0-\u0edf"
    "\u1780-\u17d3\u17e0-\u17e9\u1000-\u1049\u1050-\u109f\u0f20-\u0f33\u0f40-\u0fbc"
)
_LETTER = rf"(?:(?![{_UNSPACED}])[^\W_])"
# A word: letters and digits, with apostrophes, hyphens and joiners inside, and separators inside a number.
_WORD = re.compile(rf"[{_UNSPACED}]+|{_LETTER}+(?:(?:['’\-\u2010\u2011\u200c\u200d]|(?<=\d)[.,](?=\d)){_LETTER}+)*")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def choose_players(
    row: Row, n: int, *, seed: int, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> tuple[Span, ...] | None:
    """Choose the players of a row.

    Players given by hand are taken as they are when there are n of them; otherwise the row is skipped, because
    a run has one number of players. Else: a uniform random sample without replacement of the words of the last
    user message, stop words left out. With a tokenizer, words that share a token with a neighbour are left out
    too. A sample of n - 1 is part of the sample of n.

    Args:
        row: The row.
        n: Number of players, at least 1.
        seed: With the row's id, all that the sample depends on.
        tokenizer: Tokenizer of the model under study, with character offsets. Scripts without spaces need it.

    Returns:
        n spans `[start, end)` in `row.content`, sorted; None if the row has too few words.

    Raises:
        WhatStuckError: If n is below 1, the tokenizer gives no offsets, or the row is in a script without spaces
            and there is no tokenizer.
    """
    if n < 1:
        raise WhatStuckError(f"the number of players must be at least 1, got {n}")
    if row.players is not None:
        return row.players if len(row.players) == n else None
    candidates = content_words(row, n, tokenizer)
    if len(candidates) < n:
        return None
    digest = hashlib.blake2b(f"{seed}\n{row.row_id}".encode(), digest_size=16).digest()
    draws = np.random.default_rng(int.from_bytes(digest)).random(len(candidates))
    return tuple(candidates[i] for i in sorted(np.argsort(draws, kind="stable")[:n].tolist()))


def place_players(row: Row, rendered: RenderedRow, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Move spans in `row.content` to where they stand in the rendered prompt.

    Raises:
        WhatStuckError: If a span lies outside of what players may come from.
    """
    shift = rendered.content[0] - row.player_region[0]
    placed = []
    for start, end in spans:
        moved = (start + shift, end + shift)
        inside = rendered.content[0] <= moved[0] < moved[1] <= rendered.content[1]
        if not inside or rendered.prompt[slice(*moved)] != row.content[start:end]:
            raise WhatStuckError(
                f"row {row.row_id}: player [{start}, {end}] is not in the part of the prompt that players come from"
            )
        placed.append(moved)
    return tuple(placed)


def player_tokens(tokenizer: "PreTrainedTokenizerBase", prompt: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """The tokens that each player owns: all that overlap it.

    Args:
        tokenizer: A tokenizer with character offsets.
        prompt: The rendered prompt; tokenized without adding special tokens.
        spans: Character spans `[start, end)` in `prompt`.

    Returns:
        Half-open token ranges `[first, last)`, in the order of `spans`.

    Raises:
        WhatStuckError: If a span is empty or outside the prompt, owns no token, or shares one with another
            player; or the tokenizer gives no offsets.
    """
    offsets = _offsets(tokenizer, prompt)
    owner: dict[int, Span] = {}
    ranges = []
    for start, end in spans:
        if not 0 <= start < end <= len(prompt):
            raise WhatStuckError(f"player [{start}, {end}] lies outside the prompt of {len(prompt)} characters")
        owned = _overlapping(offsets, start, end)
        if not owned:
            raise WhatStuckError(f"player {prompt[start:end]!r} has no token of its own: choose another word")
        tokens = range(owned[0], owned[-1] + 1)
        for token in tokens:
            if token in owner:
                other, text = prompt[slice(*owner[token])], prompt[slice(*offsets[token])]
                raise WhatStuckError(
                    f"players {other!r} and {prompt[start:end]!r} share the token {text!r}: "
                    "choose others, or join them into one"
                )
            owner[token] = (start, end)
        ranges.append((tokens.start, tokens.stop))
    return tuple(ranges)


def content_words(row: Row, n: int, tokenizer: "PreTrainedTokenizerBase | None") -> list[Span]:
    """Words of the last user message that may be players: no stop words, no punctuation.

    Args:
        row: The row.
        n: How many are wanted; scripts without spaces are cut finer where they give fewer.
        tokenizer: Cuts scripts without spaces, and rules out words that share a token.

    Raises:
        WhatStuckError: If a script without spaces needs a tokenizer.
    """
    text = row.content
    words = _words(text, *row.player_region)
    unspaced = [word for word in words if _IS_UNSPACED.match(text, word[0])]
    spaced = [word for word in words if not _IS_UNSPACED.match(text, word[0])]
    stop_words = stop_words_for(text[slice(*word)] for word in spaced)
    content = [word for word in spaced if not is_stop_word(text[slice(*word)], stop_words)]
    if tokenizer is None:
        if unspaced and len(content) < n:
            raise WhatStuckError(
                f"row {row.row_id}: its script puts no spaces between words, so words are cut by the tokenizer: "
                "give one, or give players by hand"
            )
        return content
    offsets = _offsets(tokenizer, text)
    if unspaced:
        pieces = _cut(unspaced, _pre_tokens(tokenizer, text))
        if len(pieces) + len(content) < n:
            pieces = _cut(unspaced, _whole_characters(offsets))
        content = sorted([*content, *pieces])
        words = sorted([*spaced, *pieces])
    return _without_shared_tokens(content, words, offsets)


def _words(text: str, start: int, end: int) -> list[Span]:
    return [match.span() for match in _WORD.finditer(_with_letters_for_marks(text), start, end)]


def _with_letters_for_marks(text: str) -> str:
    """The text with a letter in place of each mark (vowel signs of Hindi, loose accents) behind a letter.

    To `re` such marks are no part of a word. One character for one, so offsets stay. Behind anything else they
    are left alone: many emoji end in a mark.
    """
    if text.isascii():
        return text
    letters: list[str] = []
    for character in text:
        joined = letters and letters[-1].isalnum() and unicodedata.category(character).startswith("M")
        letters.append("x" if joined and not _IS_UNSPACED.match(character) else character)
    return "".join(letters)


def _offsets(tokenizer: "PreTrainedTokenizerBase", text: str) -> _Offsets:
    """Character span of each token: int64 `(tokens, 2)`."""
    if not tokenizer.is_fast:
        raise WhatStuckError(
            f"{type(tokenizer).__name__} gives no character offsets: use a fast tokenizer (tokenizer.json)"
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)


def _pre_tokens(tokenizer: Any, text: str) -> list[Span]:
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    return [] if pre_tokenizer is None else [span for _, span in pre_tokenizer.pre_tokenize_str(text)]


def _whole_characters(offsets: _Offsets) -> list[Span]:
    """The smallest spans that no token straddles: bytes of one character are put together again."""
    spans: list[Span] = []
    for start, end in offsets.tolist():
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif start < end:
            spans.append((start, end))
    return spans


def _cut(words: Sequence[Span], pieces: Sequence[Span]) -> list[Span]:
    """The parts of pieces that lie inside words."""
    parts = ((max(a, start), min(b, end)) for start, end in words for a, b in pieces)
    return [(start, end) for start, end in parts if start < end]


def _overlapping(offsets: _Offsets, start: int, end: int) -> list[int]:
    """Indices of the tokens that overlap a span; tokens without text (added spaces) overlap nothing."""
    first, last = offsets.T
    indices: list[int] = np.flatnonzero((first < end) & (last > start) & (first < last)).tolist()
    return indices


def _without_shared_tokens(candidates: Sequence[Span], words: Sequence[Span], offsets: _Offsets) -> list[Span]:
    """Candidates that have tokens, none of which overlaps another word, stop words included."""
    owned = {word: _overlapping(offsets, *word) for word in words}
    users = [0] * len(offsets)
    for tokens in owned.values():
        for token in tokens:
            users[token] += 1
    return [word for word in candidates if owned[word] and all(users[token] == 1 for token in owned[word])]

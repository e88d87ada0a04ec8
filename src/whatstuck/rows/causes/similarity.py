"""Prompts that may ask the same thing: equal ones always, near ones where something can compare them.

Prompts are compared, never answers: answers that contradict each other are as similar as answers that agree. What all
prompts share, such as an instruction, is taken off first, since it would make everything alike. System prompt, earlier
turns and an instruction of the data file are context: they must be equal.

Near prompts are found by character n-grams (TF-IDF, scikit-learn) or by any embedding. Both only propose: whether two
prompts really ask the same is decided by their slots (`slots.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.errors import MissingExtraError, WhatStuckError, require
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized

Embed = Callable[[list[str]], Any]
"""Texts to an array of shape `(texts, dimensions)`."""

NEIGHBOURS = 10
_BLOCK = 512
_NGRAMS = (3, 4)
_MANY = 50  # texts from which on n-grams that most of them have are left out


@dataclass(frozen=True, slots=True)
class Similar:
    """Which rows have equal prompts, and which prompts are near.

    Attributes:
        groups: Per row, the number of its prompt; rows of one number have equal prompts.
        texts: Per prompt, what it asks, as the first such row says it.
        pairs: Prompts `(a, b, cosine)`, `a < b`, in equal contexts, above the threshold.
        blind: Why near prompts were not looked for; empty if they were.
    """

    groups: tuple[int, ...]
    texts: tuple[str, ...]
    pairs: tuple[tuple[int, int, float], ...]
    blind: str


def similar_prompts(
    rows: Sequence[TrainingRow], thresholds: Thresholds, *, embed: Embed | str | None = None
) -> Similar:
    """Group equal prompts and find near ones.

    Args:
        rows: The training rows.
        thresholds: `similarity` for an embedding, `similarity_characters` for character n-grams.
        embed: An embedding, or the name or folder of a sentence-transformers model; character n-grams if None.

    Raises:
        WhatStuckError: If an embedding gives something else than one finite vector per text.
        MissingExtraError: If a model is named and sentence-transformers is not installed.
    """
    groups, texts, contexts = _equal_prompts(rows)
    if len(texts) < 2:  # noqa: PLR2004 - a pair
        return Similar(groups, texts, (), "")
    stripped = without_shared(texts)
    if embed is None:
        try:
            pairs = _near_characters(stripped, thresholds.similarity_characters)
        except MissingExtraError as error:
            return Similar(groups, texts, (), f"only equal prompts were compared, since {error}")
    else:
        pairs = _near_vectors(_embedded(stripped, embed), thresholds.similarity)
    kept = tuple((a, b, cosine) for a, b, cosine in pairs if contexts[a] == contexts[b])
    return Similar(groups, texts, kept, "")


def without_shared(texts: Sequence[str]) -> list[str]:
    """Texts without the words that all of them begin or end with; each keeps at least one word.

    >>> without_shared(["Say the sum of 1 and 2 !", "Say the sum of 30 and 4 !"])
    ['1 and 2', '30 and 4']
    """
    words = [text.split() for text in texts]
    room = max(min(map(len, words)) - 1, 0)
    first = _shared([line[:room] for line in words])
    last = _shared([line[::-1][: room - first] for line in words])
    return [" ".join(line[first : len(line) - last]) for line in words]


def _shared(lines: Sequence[Sequence[str]]) -> int:
    """How many words all lines begin with."""
    count = 0
    for words in zip(*lines, strict=False):
        if len(set(words)) > 1:
            break
        count += 1
    return count


def _equal_prompts(rows: Sequence[TrainingRow]) -> tuple[tuple[int, ...], tuple[str, ...], list[tuple[str, ...]]]:
    """Number of the prompt per row; text and context per prompt."""
    numbers: dict[tuple[str, ...], int] = {}
    texts: list[str] = []
    groups = []
    for row in rows:
        text, context = _question(row)
        key = (normalized(text), *context)
        if key not in numbers:
            numbers[key] = len(texts)
            texts.append(text)
        groups.append(numbers[key])
    return tuple(groups), tuple(texts), [key[1:] for key in numbers]


def _question(row: TrainingRow) -> tuple[str, tuple[str, ...]]:
    """What a row asks, and everything around it."""
    own = row.row
    others = (f"{m.role} {normalized(m.content)}" for i, m in enumerate(own.messages) if i != own.user_index)
    return own.content[own.content_start :], (normalized(own.content[: own.content_start]), *others)


def _near_characters(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Near texts by TF-IDF of character n-grams inside of words."""
    module = require("sklearn.feature_extraction.text", "rows")
    vectorizer = module.TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=_NGRAMS,
        sublinear_tf=True,
        max_df=0.5 if len(texts) >= _MANY else 1.0,
        dtype=np.float32,
    )
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # no text has an n-gram that not most of them have
        return []
    transposed = vectors.T.tocsc()
    return _nearest(len(texts), lambda rows: (vectors[rows] @ transposed).toarray(), threshold)


def _near_vectors(vectors: npt.NDArray[np.float32], threshold: float) -> list[tuple[int, int, float]]:
    return _nearest(len(vectors), lambda rows: vectors[rows] @ vectors.T, threshold)


def _nearest(
    count: int, cosines: Callable[[slice], npt.NDArray[np.float32]], threshold: float
) -> list[tuple[int, int, float]]:
    """Pairs in which one text is among the `NEIGHBOURS` nearest of the other, at or above the threshold."""
    found: dict[tuple[int, int], float] = {}
    for start in range(0, count, _BLOCK):
        block = cosines(slice(start, min(start + _BLOCK, count)))  # (b, texts)
        block[np.arange(len(block)), start + np.arange(len(block))] = -1
        k = min(NEIGHBOURS, count - 1)
        best = np.argpartition(-block, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(block, best, axis=1)
        for i, j in zip(*np.nonzero(values >= threshold), strict=True):
            pair = sorted((start + int(i), int(best[i, j])))
            found[pair[0], pair[1]] = min(float(values[i, j]), 1.0)
    return sorted((a, b, cosine) for (a, b), cosine in found.items())


def _embedded(texts: list[str], embed: Embed | str) -> npt.NDArray[np.float32]:
    """Vectors of length 1."""
    function: Embed
    if isinstance(embed, str):
        function = require("sentence_transformers", "embed").SentenceTransformer(embed).encode
    else:
        function = embed
    vectors = np.array(function(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():  # noqa: PLR2004 - (n, d)
        raise WhatStuckError(
            f"the embedding gave an array of shape {vectors.shape} for {len(texts)} texts: it must give one finite "
            "vector per text"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)

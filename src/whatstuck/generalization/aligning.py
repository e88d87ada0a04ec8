"""Which rows of two files ask the same thing in other words.

By the ids that both files give, else by content: what a file's prompts all have in common is its template, and rows ask
the same if the rest is the same words and signs, in any order (a template may put its parts the other way round).
Position alone is believed only where contents cannot be compared and every answer fits. Ids are believed where prompts
or answers bear them out: two files may well number different rows alike.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from whatstuck.datasets import Row, row_hash
from whatstuck.rows.verdicts.answers import normalized

ENOUGH = 0.5
"""Share of the rows of the training wording that another wording must have."""

_AGREED = 0.95  # share of answers that fit, by which ids are believed
_SHARED = 0.5  # share of a prompt's own words that the other prompt has, on average
_MORE = 0.25  # by how much that is more than what it shares with the prompt of another row

_PIECE = re.compile(r"\w+|[^\w\s]")
_MOST_LABELS = 20


def align(first: Sequence[Row], other: Sequence[Row]) -> tuple[dict[int, int], str]:
    """Find the rows of one file in another.

    Args:
        first: Rows of the training wording.
        other: Rows of another wording.

    Returns:
        Index in `first` to index in `other`, of rows that were found; and how: `id`, `content` or `position`.
    """
    if _have_ids(first) and _have_ids(other):
        where = {row.row_id: index for index, row in enumerate(other)}
        return {index: where[row.row_id] for index, row in enumerate(first) if row.row_id in where}, "id"
    found = _by_content([_pieces(row) for row in first], [_pieces(row) for row in other])
    if len(found) < ENOUGH * len(first) and len(first) == len(other):
        same_place = {index: index for index in range(len(first))}
        if len(answers_of(first, other, same_place)[1]) == len(first):
            return same_place, "position"
    return found, "content"


def say_the_same(first: Sequence[Row], other: Sequence[Row], found: Mapping[int, int]) -> bool:
    """Whether rows that were found by id are the same by what they say.

    Either prompts share their words, more than with those of other rows, or nearly all answers fit and are not all the
    same one.

    Args:
        first: Rows of the training wording.
        other: Rows of another wording.
        found: Index in `first` to index in `other`; not empty.
    """
    fit = answers_of(first, other, found)[1]
    told_apart = len({normalized(first[i].completion) for i in found}) > 1
    if told_apart and len(fit) >= _AGREED * len(found):
        return True
    ours, theirs = [_pieces(row) for row in first], [_pieces(row) for row in other]
    template = _common(ours) | _common(theirs)
    pairs = [(set(ours[i]) - template, set(theirs[j]) - template) for i, j in found.items()]
    same = [_share(mine, yours) for mine, yours in pairs]
    others = [_share(mine, pairs[place - 1][1]) for place, (mine, _) in enumerate(pairs)]
    shared = sum(same) / len(same)
    return shared >= _SHARED and (len(pairs) == 1 or shared >= sum(others) / len(others) + _MORE)


def labels_of(rows: Sequence[Row]) -> dict[str, str]:
    """Normalized answers and how each is written first; none where answers are texts rather than labels."""
    labels: dict[str, str] = {}
    for row in rows:
        labels.setdefault(normalized(row.completion), row.completion.strip())
    return labels if len(labels) <= _MOST_LABELS and len(labels) <= ENOUGH * len(rows) else {}


def answers_of(
    first: Sequence[Row], other: Sequence[Row], found: Mapping[int, int]
) -> tuple[dict[str, str] | None, set[int]]:
    """How another wording writes the labels, and which of the rows found have the right answer there.

    Args:
        first: Rows of the training wording.
        other: Rows of another wording.
        found: What `align` found.

    Returns:
        Label (as the training writes it) to word, and the indices in `first` of rows that fit. Where answers are texts
        rather than labels, nothing is mapped, and rows fit if both answers are the same. None for the mapping where two
        labels have one word; a label that no row found has is not in it.
    """
    labels = labels_of(first)
    if not labels:
        return {}, {i for i, j in found.items() if normalized(first[i].completion) == normalized(other[j].completion)}
    counts: dict[str, dict[str, int]] = {label: defaultdict(int) for label in labels}
    for i, j in found.items():
        counts[normalized(first[i].completion)][other[j].completion.strip()] += 1
    seen = {label: words for label, words in counts.items() if words}
    words = {label: max(written, key=lambda word: written[word]) for label, written in seen.items()}
    if len({normalized(word) for word in words.values()}) < len(words):
        return None, set()
    fit = {
        i
        for i, j in found.items()
        if normalized(words[normalized(first[i].completion)]) == normalized(other[j].completion)
    }
    return {labels[label]: word for label, word in words.items()}, fit


def _have_ids(rows: Sequence[Row]) -> bool:
    """Whether the file gave the ids, which are hashes otherwise."""
    return not any(row.row_id.startswith(row_hash(row.messages, row.completion)) for row in rows)


def _pieces(row: Row) -> list[str]:
    return _PIECE.findall(row.content.casefold())


def _by_content(first: Sequence[list[str]], other: Sequence[list[str]]) -> dict[int, int]:
    template = _common(first) | _common(other)
    theirs = _places([_rest(pieces, template) for pieces in other])
    found = {}
    for key, ours in _places([_rest(pieces, template) for pieces in first]).items():
        there = theirs.get(key, [])
        if not key or not there:
            continue
        if len(ours) == len(there) == 1:
            found[ours[0]] = there[0]
        else:  # the same words several times: only the place can tell them apart
            found |= {index: index for index in ours if index in there}
    return found


def _common(texts: Sequence[list[str]]) -> set[str]:
    return set.intersection(*(set(text) for text in texts))


def _rest(pieces: list[str], template: set[str]) -> tuple[str, ...]:
    return tuple(sorted(piece for piece in pieces if piece not in template))


def _share(mine: set[str], yours: set[str]) -> float:
    return len(mine & yours) / len(mine) if mine else 0.0


def _places(keys: Sequence[tuple[str, ...]]) -> dict[Hashable, list[int]]:
    places: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        places[key].append(index)
    return places

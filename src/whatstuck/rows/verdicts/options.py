"""What stands beside the gold answer of a row in a choice: wrong answers that a model might rather give.

Opposing answers of the data come first, since rows with this very prompt teach them; then what the model itself says,
which is what it would rather say; then answers of other rows, of about the same length. Candidates that share most
tokens with an option, or begin like one, may mean the same and are passed over.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from whatstuck.models.generating import seed_of
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized
from whatstuck.rows.verdicts.replies import Question, Respondent

_ALIKE = 0.7  # share of common tokens from which on two options may mean the same
_NEAR = 50  # rows of similar length, or answers to one prompt, that options are taken from


@dataclass(frozen=True, slots=True)
class Option:
    """An answer of a choice: its whole text, and its beginning on one line, as it is shown."""

    text: str
    shown: str


def options_of(
    respondent: Respondent, row: TrainingRow, candidates: Iterable[str], thresholds: Thresholds
) -> tuple[Option, ...]:
    """The gold answer and others that differ enough from it and from each other, in the order of the candidates."""
    longest = thresholds.longest_answer
    options = [Option(row.row.completion, shown(respondent, row.target_ids, longest))]
    tokens = [Counter(row.target_ids[:longest])]
    compared = [normalized(row.row.completion)]
    for text in candidates:
        if len(options) == thresholds.options:
            break
        ids = respondent.tokenizer(text, add_special_tokens=False)["input_ids"]
        counts, plain = Counter(ids[:longest]), normalized(text)
        if not plain or any(plain.startswith(other) or other.startswith(plain) for other in compared):
            continue
        if max(2 * (counts & seen).total() / (counts + seen).total() for seen in tokens) < _ALIKE:
            options.append(Option(text, shown(respondent, ids, longest)))
            tokens.append(counts)
            compared.append(plain)
    return tuple(options)


def shown(respondent: Respondent, ids: Sequence[int], longest: int) -> str:
    """The first tokens of an answer, on one line; a word that the cut goes through is left out."""
    text, further = (
        str(respondent.tokenizer.decode(list(ids[:n]), skip_special_tokens=True)) for n in (longest, longest + 1)
    )
    if text[-1:].isalnum() and further[len(text) : len(text) + 1].isalnum() and " " in text.strip():
        text = text.rpartition(" ")[0]
    return " ".join(text.split())


def own_answers(
    respondent: Respondent, rows: Sequence[TrainingRow], thresholds: Thresholds, seed: int
) -> list[list[str]]:
    """What the model says to each row: the most likely answer, then the draws, the most frequent first."""
    fitting = [i for i, row in enumerate(rows) if respondent.fits(row.prompt_ids)]
    questions = [
        Question(rows[i].row, rows[i].prompt_ids, thresholds.longest_answer, seed_of(seed, rows[i].row_id))
        for i in fitting
    ]
    replies = respondent.replies(questions, samples=thresholds.options, temperature=thresholds.temperature)
    found: list[list[str]] = [[] for _ in rows]
    for i, reply in zip(fitting, replies, strict=True):
        found[i] = [reply.greedy, *(text for text, _ in Counter(reply.drawn).most_common())]
    return found


class Pool:
    """Answers of other rows, to be found by prompt and by length."""

    def __init__(self, rows: Sequence[TrainingRow], seed: int) -> None:
        self._rows = sorted(rows, key=lambda row: (len(row.target_ids), row.row_id))
        self._lengths = [len(row.target_ids) for row in self._rows]
        self._seed = seed
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self._rows:
            self._answers[normalized(row.row.content)][row.row.completion] += 1

    def opposing(self, row: TrainingRow) -> Iterator[str]:
        """Other answers to the same prompt, the most frequent first."""
        answers = self._answers.get(normalized(row.row.content), Counter())
        return (text for text, _ in answers.most_common(_NEAR) if text != row.row.completion)

    def near(self, row: TrainingRow) -> Iterator[str]:
        """Answers to other prompts, of about the same length, in random order."""
        at = bisect_left(self._lengths, len(row.target_ids))
        first = max(0, min(at - _NEAR // 2, len(self._rows) - _NEAR))
        window = self._rows[first : first + _NEAR]
        asked = normalized(row.row.content)
        window = [other for other in window if normalized(other.row.content) != asked]
        window.sort(key=lambda other: seed_of(self._seed, row.row_id, other.row_id))
        return (other.row.completion for other in window)

"""How near must two prompts be, in character n-grams, before they may ask the same? And what do slots and answers add?

Questions are generated, each in several wordings (which ask the same), and each with something changed that asks for
something else: a name (one letter apart), a number, an opposite word, a negation, a question word, an added word, the
order of names. All of them are put into one data set, which gives the n-grams their weights. One answer in ten of the
wordings contradicts the others, as planted conflicts do. For thresholds on the cosine, the table says which share of
paraphrases is proposed and which is taken for one question in the end, and the same of the changed prompts: of data
made from templates, where the answers tell which words mean the same, and of data where no wording comes twice.

The threshold to choose is the highest that still proposes most paraphrases: what is too much, the slots take out again.

    python benchmarks/similar_prompts.py [--quick] [--json FILE]

Intervals are 95 % Wilson intervals over pairs.
"""

import itertools
import math
import random
import time
from collections import Counter
from dataclasses import dataclass

from ratios import Results, argument_parser, say
from whatstuck.datasets import Message, RenderedRow, Row
from whatstuck.rows.causes.questions import find_questions
from whatstuck.rows.causes.similarity import similar_prompts
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85)
SYLLABLES = ("ba", "do", "fi", "ga", "ke", "lu", "mo", "na", "pe", "ri", "sa", "to", "vu", "we", "zo", "lin", "mar")
ANSWERS = tuple(f"{one}{other}" for one in SYLLABLES for other in SYLLABLES)
PLANTED = 0.1  # share of the answers that contradict

WORDINGS = (
    ("What is the capital of {a}?", "Which city is the capital of {a}?", "Tell me the capital of {a}."),
    ("Who wrote the novel {a}?", "By whom was the novel {a} written?", "Name the writer of the novel {a}."),
    ("How many moons does {a} have?", "{a} has how many moons?", "What number of moons does {a} have?"),
    ("Is it safe to take {n} mg of {a} a day?", "Can one take {n} mg of {a} per day safely?",
     "Would {n} mg of {a} each day be safe?"),
    ("When did {a} defeat {b}?", "In which year did {a} defeat {b}?", "What year was it when {a} defeated {b}?"),
    ("What is the largest lake in {a}?", "Which lake is the largest in {a}?", "Name the largest lake of {a}."),
)  # fmt: skip
CHANGES = (
    ("What is the currency of {a}?", "What is the capital of {b}?", "What is the former capital of {a}?"),
    ("Who translated the novel {a}?", "When was the novel {a} written?", "Who wrote the novel {b}?"),
    ("How many rings does {a} have?", "How many moons does {b} have?"),
    ("Is it safe to take {m} mg of {a} a day?", "Is it safe to take {n} mg of {b} a day?",
     "Is it not safe to take {n} mg of {a} a day?"),
    ("When did {b} defeat {a}?", "Why did {a} defeat {b}?", "When did {a} defend {b}?"),
    ("What is the smallest lake in {a}?", "What is the largest lake in {b}?",
     "What is the largest frozen lake in {a}?"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts of the generated data.

    Attributes:
        first: Index of the one row.
        second: Index of the other.
        same: They ask the same.
    """

    first: int
    second: int
    same: bool


def training_rows(texts: list[str], answers: list[str]) -> list[TrainingRow]:
    """Training rows of these texts and answers."""
    made = []
    for index, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        row = Row(str(index), (Message("user", text),), answer, index, "train")
        made.append(TrainingRow(row, RenderedRow(text, answer, (0, len(text))), (index,), (index,), None))
    return made


def data(names: int, seed: int) -> tuple[list[TrainingRow], list[Pair]]:
    """Paraphrases and changed prompts of generated names, with answers."""
    chance = random.Random(seed)
    texts: list[str] = []
    answers: list[str] = []
    pairs: list[Pair] = []
    for kind, _ in itertools.product(range(len(WORDINGS)), range(names)):
        a = "".join(chance.choices(SYLLABLES, k=3)).capitalize()
        b = a[:-1] + chance.choice([letter for letter in "bdgklmnrst" if letter != a[-1]])
        n, m = chance.sample(range(10, 99), 2)
        start, same, other = len(texts), WORDINGS[kind], CHANGES[kind]
        texts += [text.format(a=a, b=b, n=n, m=m) for text in same + other]
        right, *wrong = chance.sample(ANSWERS, 2 + len(other))
        answers += [wrong[0] if chance.random() < PLANTED else right for _ in same]
        answers += wrong[1:]
        pairs += [Pair(start + i, start + j, same=True) for i, j in itertools.combinations(range(len(same)), 2)]
        pairs += [Pair(start, start + len(same) + i, same=False) for i in range(len(other))]
    return training_rows(texts, answers), pairs


def wilson(hits: int, of: int) -> tuple[float, float, float]:
    """A share with its 95 % Wilson interval; NaN of nothing."""
    if not of:
        return math.nan, math.nan, math.nan
    z, p = 1.96, hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return p, middle - half, middle + half


def shares(name: str, sets: list[tuple[list[TrainingRow], list[Pair]]]) -> list[dict[str, float | str]]:
    """Print, per threshold, which pairs are proposed and which are taken for one question."""
    lines: list[dict[str, float | str]] = []
    print(f"\n{name}\n| cosine | paraphrases proposed | taken | changed proposed | taken |\n|---|---|---|---|---|")
    for threshold in THRESHOLDS:
        counts: Counter[tuple[bool, str]] = Counter()
        for rows, pairs in sets:
            settings = Thresholds(similarity_characters=threshold)
            similar = similar_prompts(rows, settings)
            proposed = {(a, b) for a, b, _ in similar.pairs}
            questions = find_questions(rows, settings, embed=None)
            question = {index: number for number, members in enumerate(questions.members) for index in members}
            for pair in pairs:
                a, b = sorted((similar.groups[pair.first], similar.groups[pair.second]))
                counts[pair.same, "pairs"] += 1
                counts[pair.same, "proposed"] += a == b or (a, b) in proposed
                counts[pair.same, "taken"] += question[pair.first] == question[pair.second]
        cells = []
        for same, what in itertools.product((True, False), ("proposed", "taken")):
            value, low, high = wilson(counts[same, what], counts[same, "pairs"])
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]")
            lines.append({"data": name, "threshold": threshold, "same": str(same), "what": what, "share": value})
        print(f"| {threshold:.2f} | {' | '.join(cells)} |")
    return lines


def seconds(prompts: int) -> float:
    """Time to compare that many short prompts, all of them different."""
    chance = random.Random(1)
    words = ["".join(chance.choices(SYLLABLES, k=3)) for _ in range(3000)]
    texts = [" ".join(chance.choices(words, k=12)) for _ in range(prompts)]
    rows, start = training_rows(texts, texts), time.perf_counter()
    find_questions(rows, Thresholds(), embed=None)
    return time.perf_counter() - start


def main() -> None:
    """Print the tables."""
    options = argument_parser(__doc__).parse_args()
    results = Results("similar_prompts")
    names = 10 if options.quick else 40
    results.details["shares"] = shares("from templates", [data(names, seed=0)])
    results.details["shares"] += shares("no wording twice", [data(1, seed=seed) for seed in range(names)])
    count = 2000 if options.quick else 10000
    results.details["seconds"] = seconds(count)
    say(f"{count} prompts in {results.details['seconds']:.1f} s")
    results.finish(options.json)


if __name__ == "__main__":
    main()

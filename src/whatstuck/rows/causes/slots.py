"""What a prompt asks about, apart from how it says it: two prompts with other slots ask for other things.

Similarity cannot see this. Prompts about Austria and Australia, or about an adult's and a child's dose, are closer to
each other than many paraphrases, whatever the embedding. So before two prompts may be in conflict, everything in them
that could change the answer must be equal: numbers, names, quoted text, negations, symbols, question words, and what
words are left over when both texts are laid on each other. In doubt they ask for other things: a conflict that is
missed leaves a row unexplained, one that is invented sends people to delete good data.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|「([^」]+)」|(?<!\w)'([^']+)'(?!\w)")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,:/-]\d+)*|\S")
_SENTENCE_END = re.compile(r"[.!?:;\n…。！？]\W*\Z")
_HYPHEN = "-"
_SIGNS = frozenset("*/%^&#@\\")  # with everything that Unicode calls a symbol

_NEGATION_WORDS = """
not no never none neither nor cannot without nicht kein keine keinen keiner nie ohne non jamais sans nunca não nao niet
geen senza не нет без 不 没 無 非
"""
_ASKING_WORDS = """
who whom whose when where why how wer wann wo warum wie qui quand où pourquoi comment
"""
_FRAME_WORDS = """
a an the of in on at for to by with from as and or is are was were be been am do does did has have had can could will
would shall should may might must it its this that these those there here what which
me us please tell give name say state find show answer question know let get got called exactly just now then so also s
re ve ll d m 的 是 了 吗 呢 请 问 什 么 哪 里 个 谁
"""
_NEGATIONS, _ASKING, _FRAME = (frozenset(words.split()) for words in (_NEGATION_WORDS, _ASKING_WORDS, _FRAME_WORDS))
_ENDINGS = frozenset(("", "s", "es", "ed", "d", "ing", "e", "n", "en", "ly"))
_NEAR = 20  # characters before a word that say whether it begins a sentence
_LEAST = 2  # content words
_STEM = 4  # shorter words have no ending


@dataclass(frozen=True, slots=True)
class Slots:
    """What could change the answer to a text.

    Attributes:
        order: Numbers and names in the order of the text.
        numbers: Numbers and dates.
        names: Capitalized words that do not begin a sentence, casefolded.
        quoted: Quoted texts, casefolded.
        negations: How many negations.
        asking: Question words that fix what is asked for, such as `who` or `when`.
        words: All words and symbols in order, casefolded; scripts without spaces by character.
    """

    order: tuple[str, ...]
    numbers: tuple[str, ...]
    names: frozenset[str]
    quoted: tuple[str, ...]
    negations: int
    asking: frozenset[str]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What only the one or only the other of two texts has.

    Attributes:
        first: Content words of the first; if both have the same ones in another order, all of them as one text.
        second: The same of the second.
    """

    first: frozenset[str]
    second: frozenset[str]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.first or self.second)


@lru_cache(maxsize=1 << 16)
def slots_of(text: str) -> Slots:
    """Find the slots of a text, in any script."""
    text = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).replace("’", "'"))
    quoted = tuple(sorted("".join(filter(None, match)).casefold().strip() for match in _QUOTED.findall(text)))
    words: list[str] = []
    names: set[str] = set()
    order: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if not (token[0].isalnum() or _is_sign(token, text, match.start())):
            continue
        for word in _pieces(token):
            words.append(word)
            if token[0].isdigit():
                order.append(word)
            elif token[0].isupper() and not _begins_sentence(text, match.start()) and word not in _FRAME - {"a", "i"}:
                names.add(word)
                order.append(word)
    return Slots(
        order=tuple(order),
        numbers=tuple(sorted(_NUMBER.findall(text))),
        names=frozenset(names),
        quoted=quoted,
        negations=sum(word in _NEGATIONS or word.endswith("n't") for word in words),
        asking=frozenset(word for word in words if word in _ASKING),
        words=tuple(words),
    )


def same_slots(first: Slots, second: Slots) -> bool:
    """Whether numbers, names, quoted texts, negations, question words and symbols are equal.

    A name that begins the one sentence is not seen as one there, so it is looked for among all words of the other text.
    Question words must not contradict each other: `what` may go with each, `who` does not go with `when`.
    """
    if first.numbers != second.numbers or first.quoted != second.quoted or first.negations != second.negations:
        return False
    if not (first.names <= set(second.words) and second.names <= set(first.words)):
        return False
    if first.asking and second.asking and first.asking != second.asking:
        return False
    named = first.names & second.names
    return _kept(first.order, named) == _kept(second.order, named)


def leftover(first: Slots, second: Slots) -> Leftover:
    """What the texts do not share, besides the words that every question is made of.

    Another order counts: `convert miles to km` and `convert km to miles` have the same words, and ask for different
    things.
    """
    mine, yours = content_words(first), content_words(second)
    if min(len(mine), len(yours)) < _LEAST:  # of "This is a joke" too little would be left to compare
        mine, yours = list(first.words), list(second.words)
    rest = Counter(yours)
    left = []
    for word in mine:
        match = word if rest[word] else next((other for other in rest if rest[other] and _inflected(word, other)), None)
        if match is None:
            left.append(word)
        else:
            rest[match] -= 1
    right = [word for word, count in rest.items() if count]
    if not left and not right and sorted(mine) == sorted(yours):
        named = first.names | second.names
        one, other = (" ".join(word for word in line if word not in named) for line in (mine, yours))
        if one != other:
            return Leftover(frozenset((one,)), frozenset((other,)))
    return Leftover(frozenset(left), frozenset(right))


def content_words(slots: Slots) -> list[str]:
    """Its words without those that every question is made of."""
    return [word for word in slots.words if word not in _FRAME]


def _kept(order: tuple[str, ...], named: frozenset[str]) -> list[str]:
    return [word for word in order if word in named or word[0].isdigit()]


def _pieces(token: str) -> list[str]:
    """One casefolded word, without a possessive s; every character of a script that has no spaces."""
    if any(_is_unspaced(character) for character in token):
        return list(token)
    word = token.casefold().removesuffix("'s")
    return [word]


def _is_unspaced(character: str) -> bool:
    """Whether a character is of a script that puts no spaces between words."""
    return unicodedata.east_asian_width(character) in "WF" or "\u0e00" <= character <= "\u0eff"


def _is_sign(token: str, text: str, at: int) -> bool:
    """Whether a character other than letters and digits means something; a hyphen only outside of words."""
    if token == _HYPHEN:
        around = text[max(at - 1, 0) : at] + text[at + 1 : at + 2]
        return not (len(around) == 2 and around.isalpha())  # noqa: PLR2004 - both sides
    return token in _SIGNS or unicodedata.category(token).startswith("S")


def _begins_sentence(text: str, at: int) -> bool:
    before = text[max(at - _NEAR, 0) : at].rstrip(" \t\"'“„«(")
    return not before or bool(_SENTENCE_END.search(before))


def _inflected(first: str, second: str) -> bool:
    """Whether two words differ in an English ending only; the last letters of names are no endings."""
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        shared += 1
    return shared >= _STEM and first[shared:] in _ENDINGS and second[shared:] in _ENDINGS

"""Wordings whose prompts never say which words to answer with.

A model that was trained with other words cannot know those of such a wording. So an answer in the words of the training
is right there, too, unless one of them means another label here.
"""

from collections.abc import Iterable, Mapping, Sequence

from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.scoring import contains
from whatstuck.rows.verdicts.answers import normalized

_SAID = 0.05
"""Share of prompts: a word in fewer of them stands there by chance, as `no` does in any text."""
_LOOKED_AT = 200  # prompts of a wording, evenly spread


def silent_wordings(
    prompts: Mapping[str, Sequence[str]], words: Mapping[str, InstructionMapping], training: str
) -> list[str]:
    """Wordings other than the training's that do not say all of their words, where another wording says its own.

    Args:
        prompts: The prompts of every wording.
        words: How each writes the labels.
        training: Which of them is the training's.
    """
    says = {name: _says(texts, words[name].meanings) for name, texts in prompts.items() if words[name].pairs}
    return [name for name, said in says.items() if not said and name != training] if any(says.values()) else []


def collide(words: InstructionMapping, others: InstructionMapping) -> bool:
    """Whether a word of one mapping is that of another label in the other one."""
    return any(
        label != another and normalized(word) == normalized(other)
        for label, word in words.pairs
        for another, other in others.pairs
    )


def note_of(names: Sequence[str], what: str) -> list[str]:
    """One sentence about wordings that do not say their words; none without any."""
    if not names:
        return []
    listed = ", ".join(repr(name) for name in names)
    return [f"{listed}: the prompts do not say which words to answer with. {what}"]


def _says(prompts: Sequence[str], words: Iterable[str]) -> bool:
    looked_at = prompts[:: max(1, len(prompts) // _LOOKED_AT)]
    return all(sum(contains(prompt, word) for prompt in looked_at) >= _SAID * len(looked_at) for word in words)

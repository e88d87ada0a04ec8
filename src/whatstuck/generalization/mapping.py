"""What an instruction says that its names mean: the part of a prompt that a frozen training never varies.

In Sokoban a name is a direction and its meaning the word that stands for it in replies; in General Points a name is a
face card and its meaning the number that it counts as; for a user's labels, a name is the label and its meaning how
it is to be written.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstructionMapping:
    """Meanings of names, in the order in which an instruction lists them.

    Attributes:
        name: What this mapping is called, such as `all_5`.
        pairs: Name and meaning, both as they are written in text.

    >>> mapping = InstructionMapping.of("all_5", J="5", Q="5", K="5")
    >>> mapping["Q"], list(mapping), mapping.meanings
    ('5', ['J', 'Q', 'K'], ('5', '5', '5'))
    """

    name: str
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, name: str, /, **meanings: str) -> "InstructionMapping":
        """A mapping by keyword."""
        return cls(name, tuple(meanings.items()))

    def __getitem__(self, name: str) -> str:
        for known, meaning in self.pairs:
            if known == name:
                return meaning
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    @property
    def meanings(self) -> tuple[str, ...]:
        """All meanings, in order."""
        return tuple(meaning for _, meaning in self.pairs)


NO_MAPPING = InstructionMapping("none", ())
"""For tasks whose instruction gives names no meaning of their own."""

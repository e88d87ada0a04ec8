"""Templates of prompts: text with `{slots}`. A brace is written `{{` or `}}`.

A slot holds any text but braces, since labels are any text. Nothing is evaluated, and what fills a slot is never read
as a template again, so rows may hold braces.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from whatstuck.errors import WhatStuckError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with slots.

    Attributes:
        name: What it is called.
        text: As it was written.
        texts: What stands before each slot, and behind the last: one more than `slots`.
        slots: Names of the slots, in order; a name may come twice.
    """

    name: str
    text: str
    texts: tuple[str, ...]
    slots: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> "Template":
        r"""Read a template.

        Raises:
            WhatStuckError: If a brace opens or closes nothing, or the text is blank.

        >>> Template.parse("t", "Is {a} in {{{b}}}?").fill({"a": "1", "b": "2"})
        'Is 1 in {2}?'
        """
        if not text.strip():
            raise WhatStuckError(f"template {name!r} is empty: write the text of the prompt")
        texts, slots, start = [""], [], 0
        for piece in _PIECE.finditer(text):
            texts[-1] += text[start : piece.start()]
            start = piece.end()
            slot = piece[1]
            if slot is not None:
                if not slot.strip():
                    raise WhatStuckError(f"template {name!r} has a slot without a name: write {{column}}, or {{{{}}}}")
                slots.append(slot.strip())
                texts.append("")
            elif len(piece[0]) == 2:  # noqa: PLR2004 - a doubled brace
                texts[-1] += piece[0][0]
            else:
                raise WhatStuckError(
                    f"template {name!r} has a lone {piece[0]!r} in {_around(text, piece.start())!r}: "
                    f"write {piece[0] * 2} for a brace"
                )
        texts[-1] += text[start:]
        return cls(name, text, tuple(texts), tuple(slots))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with a value in every slot."""
        filled = (before + values[slot] for before, slot in zip(self.texts, self.slots, strict=False))
        return "".join(filled) + self.texts[-1]


def check_slots(template: Template, known: Collection[str], what: str) -> None:
    """Refuse a slot that nothing fills.

    Args:
        template: The template.
        known: Names of what there is.
        what: What there is, for the message, such as `the columns are a, b`.

    Raises:
        WhatStuckError: Naming the slot, and one that is spelled alike.
    """
    for slot in template.slots:
        if slot not in known:
            raise WhatStuckError(
                f"template {template.name!r} has an unknown slot {{{slot}}}{near(slot, known)}; {what}"
            )


def near(name: str, known: Collection[str]) -> str:
    """`: did you mean ...?` where something is spelled alike, else nothing."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f": did you mean {found[0]!r}?" if found else ""


def _around(text: str, at: int) -> str:
    return " ".join(text[max(0, at - 15) : at + 15].split())

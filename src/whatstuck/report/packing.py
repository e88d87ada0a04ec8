"""Many rows in a page that stays small: one JSON value, each text in it once, and nothing in it that ends a script.

What is said of rows differs from row to row in little but its numbers. So numbers are taken out of the texts: a text
is a place in the list of texts, or such a place and the numbers that belong into its gaps.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from whatstuck.report.reading_rows import Record
from whatstuck.report.row_views import Item, View

ROOM = 2_500_000  # bytes for the texts of the data
_LENGTHS = (4000, 2000, 1000, 500, 250, 120)
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_GAP = "\ue000"  # a character without a meaning
_Place = int | tuple[int | str, ...]
_TEXTS = ("prompt", "gold", "greedy", "top_wrong")
# `<` could end the script; the two separators end a line in old JavaScript, though not in JSON
_ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def longest_text(rows: Sequence[Record]) -> int:
    """How many characters of each text of the data fit into the page."""
    texts = {row[name] for row in rows for name in _TEXTS if row[name]}
    for length in _LENGTHS[:-1]:
        if sum(len(text[:length].encode()) for text in texts) <= ROOM:
            return length
    return _LENGTHS[-1]


def packed(views: Sequence[View]) -> dict[str, Any]:
    """All rows as one compact JSON value.

    Returns:
        `texts`, in which `gap` stands for a number; `lines`, the items of lists as style and texts, each once too;
        `slots`, `paths` and for each list `items` the names of the places; and `rows`, each a list of cause, verdict,
        texts, paths, lists and sort keys.
    """
    texts: dict[str, int] = {"": 0}
    lines: dict[tuple[_Place, ...], int] = {}

    def place(text: str) -> _Place:
        numbers = _NUMBER.findall(text) if _GAP not in text else []
        found = texts.setdefault(_NUMBER.sub(_GAP, text) if numbers else text, len(texts))
        return (found, *numbers) if numbers else found

    def line(item: Item, names: Sequence[str]) -> int:
        packed_item = (place(item.style), *(place(item.slots.get(name, "")) for name in names))
        return lines.setdefault(packed_item, len(lines))

    slots = sorted({name for view in views for name in view.slots})
    paths = sorted({name for view in views for name in view.paths})
    lists = sorted({name for view in views for name in view.items})
    inside = {
        name: sorted({slot for view in views for item in view.items[name] for slot in item.slots}) for name in lists
    }
    rows = [
        [
            place(view.cause),
            place(view.verdict),
            [place(view.slots.get(name, "")) for name in slots],
            [view.paths.get(name, "") for name in paths],
            [[line(item, inside[name]) for item in view.items[name]] for name in lists],
            view.sorts,
        ]
        for view in views
    ]
    names = {"slots": slots, "paths": paths, "lists": lists, "items": inside}
    return names | {"gap": _GAP, "rows": rows, "lines": list(lines), "texts": list(texts)}


def script_json(value: Any) -> Markup:
    r"""JSON for inside of a `<script>`.

    >>> script_json({"a": "</script>&"})
    Markup('{"a":"\\u003c/script\\u003e\\u0026"}')
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    return Markup(text)  # noqa: S704 - escaped for a script just here

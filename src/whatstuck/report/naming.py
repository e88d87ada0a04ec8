"""Settings and sentences of run.json as a page may show them: pages are shared, and folders are private.

A path is shown by its last part. A setting that holds text of the rows is left out with the other texts.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_TEXTS = ("instruction",)  # settings that are text of every row
_PATHS = ("labels", "checker", "judge", "task")  # settings that may be a file, or `file:function`
# folders in front of a name; not the slash of a web address, of a closing tag or of "and/or"
_FOLDERS = re.compile(r"(?<![\w.:/\\<])(?:[A-Za-z]:)?[/\\](?:[^\s/\\<>\"'“”]+[/\\])+")


def last_part(path: str) -> str:
    r"""The name that a path ends in.

    >>> last_part("/home/me/judges.py:agree"), last_part("C:\\data\\train.jsonl"), last_part("exact")
    ('judges.py:agree', 'train.jsonl', 'exact')
    """
    return path.replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1]


def without_folders(sentence: str) -> str:
    """A sentence in which absolute paths are names.

    >>> without_folders("/home/me/out/checkpoint-5 was trained on /models/base, and/or on https://example.org/base")
    'checkpoint-5 was trained on base, and/or on https://example.org/base'
    """
    return _FOLDERS.sub("", sentence)


def setting_pairs(settings: Mapping[str, Any], *, text: bool) -> list[tuple[str, str]]:
    """Settings by name, those inside of others with both names.

    Args:
        settings: As run.json has them.
        text: Whether to show settings that are text.

    >>> setting_pairs({"instruction": "Say what it is.", "thresholds": {"samples": 16}}, text=False)
    [('thresholds samples', '16')]
    """
    pairs = []
    for name, value in settings.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        if text or name not in _TEXTS:
            pairs += [(f"{name} {key}".strip(), _shown(name, part)) for key, part in inner]
    return pairs


def _shown(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return last_part(value) if name in _PATHS else value

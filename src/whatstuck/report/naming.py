"""Settings and sentences of run.json as a page may show them: pages are shared, and folders are private.

A path is shown by its last part. A setting that holds text of the rows is left out with the other texts.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_TEXTS = ("instruction",)  # settings that are text of every row
_PATHS = ("labels", "checker", "judge", "task")  # settings that may be a file, or `file:function`
_CONVERTED = re.compile(r"(.+)-([0-9a-f]{16})")  # folder of a GGUF file that was converted
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


def model_parts(name: str) -> tuple[str, str]:
    """Name of a model, and the hash of its file where it was converted from one: its folder is named by both.

    >>> model_parts("smollm2-Q8_0-0123456789abcdef"), model_parts("base")
    (('smollm2-Q8_0', '0123456789abcdef'), ('base', ''))
    """
    converted = _CONVERTED.fullmatch(name)
    return (converted[1], converted[2]) if converted else (name, "")


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

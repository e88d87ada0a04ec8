"""The user's message in a prompt that a chat template rendered, found without the tokenizer, which a page has not.

What a template adds is the same in every prompt of a training, and is marked by special tokens. So the message lies
behind the last special token of what all prompts begin with, and before the first one of what all end with. What the
messages themselves have in common lies between the two, and stays. Where this is not so, nothing is told.
"""

import re
from collections.abc import Collection

# how tokenizers write them: <|im_start|>, <｜User｜>, <|turn>, <turn|>, <start_of_turn>, [INST]; no tag of a text
_TOKEN = re.compile(
    r"<[|｜][^<>\s]{1,40}>|<[^<>\s]{1,40}[|｜]>|\[\|\w{1,20}\|\]|</?s>|<[be]os>|<(?:start|end)_of_turn>|"
    r"\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>"
)
_ROLE = re.compile(r"\s*(?:user|human)\n", re.IGNORECASE)  # written behind a token, on its line


def chat_ends(prompts: Collection[str]) -> tuple[str, str] | None:
    r"""What a chat template puts before and after every message; None where that cannot be told.

    Args:
        prompts: Prompts of one training, as the model sees them.

    >>> chat_ends(["<|a|>user\nMake 24 of 1<|b|>\n<|a|>", "<|a|>user\nMake 24 of 2<|b|>\n<|a|>"])
    ('<|a|>user\n', '<|b|>\n<|a|>')
    >>> chat_ends(["J= 5 : 1 3 Q ->", "J= 5 : 2 3 Q ->"])
    """
    different = set(prompts)
    if len(different) < 2:  # noqa: PLR2004 - one alone has all in common with itself
        return None
    head = _beginning(different)
    tail = _beginning([prompt[::-1] for prompt in different])[::-1]
    opening, closing = list(_TOKEN.finditer(head)), _TOKEN.search(tail)
    if not opening or closing is None:
        return None
    start = opening[-1].end()
    role = _ROLE.match(head, start)
    return head[: role.end() if role else start], tail[closing.start() :]


def message_in(prompt: str, ends: tuple[str, str] | None) -> str:
    """The user's message in a prompt, without white space around it; empty where it cannot be told.

    Args:
        prompt: One of the prompts.
        ends: What `chat_ends` says of them.
    """
    if ends is None:
        return ""
    message = prompt[len(ends[0]) : len(prompt) - len(ends[1])].strip()
    return "" if _TOKEN.search(message) else message


def _beginning(texts: Collection[str]) -> str:
    """What all texts begin with: the two that sort farthest apart have no more in common than any others."""
    least, most = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return least[:length]

"""How many tokens a reply may have: enough for every right one, since a reply that is cut off is wrong.

How many tokens a tokenizer makes of a text is not known before a model is, so bytes are counted: no tokenizer makes
more tokens of a text than it has bytes.
"""

from collections.abc import Iterable

LONGEST_THOUGHT = 256
"""Tokens of a reply with a thought, where nothing says more."""

_SPARE = 8  # beside those of the longest answer: a space, a full stop, the end of the turn
_CERTAIN = 256  # bytes; of longer texts, as many tokens as bytes would cost more than they give
_MOST = 1024


def reply_limit(replies: Iterable[str], given: int | None = None, *, least: int = 0) -> tuple[int, tuple[str, ...]]:
    """Most tokens of a reply.

    Args:
        replies: Right ones.
        given: What the user says, which is believed.
        least: Tokens that a reply has in any case.

    Returns:
        As many as the longest reply has bytes; of replies beyond 256 bytes, a token for two bytes, and no more than
        1,024. And what is to be said of it.

    >>> reply_limit(["yes", "no"]), reply_limit(["yes"], 99)
    ((11, ()), (99, ()))
    """
    if given is not None:
        return given, ()
    longest = max(len(reply.encode(errors="replace")) for reply in replies)
    if longest + _SPARE <= _CERTAIN:
        return max(longest + _SPARE, least), ()
    limit = max(_CERTAIN, min(_MOST, longest // 2 + _SPARE), least)
    note = (
        f"Replies are cut off after {limit} tokens, and the longest right one has {longest} bytes: give max_new_tokens "
        "if the tokenizer may make more tokens of it."
    )
    return limit, (note,)

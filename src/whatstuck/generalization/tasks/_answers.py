"""Replies between `<answer>` and `</answer>`, which several tasks share."""

import re

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class AnswerParser:
    """Reads the first closed `<answer>` behind the thought, if there is one.

    >>> AnswerParser().parse("<think> <answer> Up </answer> ? </think> <answer> Down </answer>")
    'Down'
    """

    def parse(self, reply: str) -> str | None:
        """What stands in it; None where there is none."""
        found = _ANSWER.search(reply.rpartition("</think>")[2])
        return found[1].strip() if found else None

"""Prompts and what was replied to them, as the page shows them: the message first, the whole prompt folded."""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.report.reading_generalization import Example, GeneralizationRun
from whatstuck.report.variant_table import KINDS
from whatstuck.report.words import counted

_LONGEST = 3000  # characters of a message or a reply that are shown
_FIRST = 1000  # of them, those from the beginning: the question mostly stands at the end


def example_replies(run: GeneralizationRun, variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By variant, prompts with what the arms replied to them; a prompt stands once.

    Args:
        run: The run.
        variants: What to show.
    """
    shown = []
    for variant in variants:
        name, kind = str(variant["name"]), str(variant["kind"])
        prompts: dict[str, str] = {}
        replies: dict[str, list[dict[str, Any]]] = {}
        for arm in run.arms:
            for example in run.examples.get((arm, name), ()):
                prompts.setdefault(example.prompt, example.message)
                replies.setdefault(example.prompt, []).append(_reply(example, arm if len(run.arms) > 1 else ""))
        asked = [_prompt(prompt, message) | {"replies": replies[prompt]} for prompt, message in prompts.items()]
        if asked:
            title = KINDS.get(kind, (kind, ""))[0]
            shown.append({"name": name, "kind": title, "fake": kind == "fake", "asked": asked})
    return shown


def _prompt(prompt: str, message: str) -> dict[str, Any]:
    """What is shown of a prompt; `whole` is the prompt where that is not all of it."""
    text = cut(message or prompt)
    return {"text": text, "bare": bool(message), "whole": prompt if text != prompt else ""}


def _reply(example: Example, arm: str) -> dict[str, Any]:
    outcome = example.outcome.replace("_", " ")
    word = "right" if example.right else "wrong"
    return {
        "arm": arm,
        "right": example.right,
        "outcome": word if outcome in ("right", "wrong") else f"{word}: {outcome}",
        "text": cut(example.reply) or "(nothing)",
    }


def cut(text: str) -> str:
    """A text that is not too long: of a longer one, its beginning and its end."""
    more = len(text) - _LONGEST
    if more <= 0:
        return text
    return f"{text[:_FIRST]} … ({counted(more, 'character')} left out) … {text[_FIRST + more :]}"

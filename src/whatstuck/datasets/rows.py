"""One row: the messages that come before a completion, and the completion.

Whatever a data file looks like, everything after reading knows only this. The id of a row is a hash of its
text, because position is no identity: trainers drop rows, pack them and shuffle them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from whatstuck.errors import WhatStuckError

SPLITS = ("heldout", "train")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        content: Its text.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One training or held-out example.

    Attributes:
        row_id: Hash of messages and completion, unless the user gives one.
        messages: What comes before the completion; a plain prompt is one user message.
        completion: The answer that is trained or scored.
        source_index: 0-based index in the data file.
        split: `heldout` or `train`.
        players: Players chosen by hand: spans `[start, end)` of characters in `content`, sorted and disjoint.
        content_start: Players are only taken from `content` from this offset on; an instruction that was put
            before every row ends here.
        plain: The text is already rendered, so it never gets a chat template.

    Raises:
        WhatStuckError: If the completion or the last user message is blank, there is no user message, or the
            split, `content_start` or the players make no sense.
    """

    row_id: str
    messages: tuple[Message, ...]
    completion: str
    source_index: int
    split: str
    players: tuple[tuple[int, int], ...] | None = None
    content_start: int = 0
    plain: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise WhatStuckError(f"unknown split {self.split!r}: use heldout or train")
        if not self.completion.strip():
            raise WhatStuckError("the completion is empty: give the row an answer, or leave it out")
        if not any(message.role == "user" for message in self.messages):
            raise WhatStuckError("no user message comes before the completion: give the row a prompt")
        if not 0 <= self.content_start <= len(self.content):
            raise WhatStuckError(f"content_start {self.content_start} lies outside the last user message")
        if not self.content[self.content_start :].strip():
            raise WhatStuckError("the prompt (last user message) is empty: give the row a prompt")
        if self.players is not None:
            self._check_players(self.players)

    @property
    def user_index(self) -> int:
        """Index of the last user message in `messages`."""
        return max(i for i, message in enumerate(self.messages) if message.role == "user")

    @property
    def content(self) -> str:
        """Content of the last user message: players are words of it."""
        return self.messages[self.user_index].content

    @property
    def player_region(self) -> tuple[int, int]:
        """Span of `content` that players may come from: after `content_start`, less outer whitespace."""
        body = self.content[self.content_start :]
        start = self.content_start + len(body) - len(body.lstrip())
        return start, start + len(body.strip())

    def _check_players(self, players: tuple[tuple[int, int], ...]) -> None:
        if not players:
            raise WhatStuckError("players is an empty list: give spans [start, end], or leave the field out")
        first, last = self.player_region
        previous = first
        for start, end in players:
            if not first <= start < end <= last or not self.content[start:end].strip():
                raise WhatStuckError(
                    f"player [{start}, {end}] is no text of the last user message, whose offsets run "
                    f"from {first} to {last}"
                )
            if start < previous:
                raise WhatStuckError(f"player [{start}, {end}] overlaps another one or is out of order")
            previous = end


def row_hash(messages: Sequence[Message], completion: str) -> str:
    """Id of a row: 16 hexadecimal digits that depend on the text (and roles) alone."""
    text = json.dumps([[[message.role, message.content] for message in messages], completion])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

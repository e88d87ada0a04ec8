"""The YAML file of a user's task: which keys it has, and the first thing in it that is wrong.

Every value is read as text. YAML 1.1 would make truth values of `yes` and `no`, which are the most common labels, and
numbers of `007` and `1e3`.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.own.templates import near

_PLAIN = {
    "dict_type": "it must hold keys and values",
    "list_type": "it must be a list",
    "string_type": "it must be text",
}
_WAYS = ("str", "dict[str,str]")  # which of several types pydantic tried; no key of the file


class TaskFile(BaseModel):
    """What a task file may say. Paths are relative to its folder.

    Attributes:
        data: The rows of the test: JSONL, JSON, CSV, TSV or Parquet, with any columns.
        items: The same rows, written into the file itself.
        answer: Column of the right answer: a label where there are mappings, else the text.
        templates: Texts of the prompt by name, with a slot `{column}` for what a row holds and `{label}` for the word
            that a mapping gives a label.
        training: Which template is that of the training; the first unless it is named.
        mappings: By name: which word stands for each label.
        training_mapping: Which mapping is that of the training; the first unless it is named.
        held_out: Templates and mappings that `diversify` never uses. Where some are named, these alone are variants.
        words: Words of which `diversify --wordings many` draws one for each label, anew for every row.
        fake: The mapping that *Fake* shows while it scores that of the training; the first variant unless it is named.
        harder: Harder rows: a file, or `{column: value}` for rows of `data`; or several of them by name.
        train: The rows that are trained on: rows of the test that stand there are left out.
        checker: When a reply is right: `exact`, `number`, `regex: PATTERN`, `module:function`, `file.py:function`, or
            the name of an entry point of the group `whatstuck.checkers`.
        time_limit: Seconds that the checker may take for one reply.
        reply: What is trained, with the slot `{answer}` and columns.
        prefill: How every reply begins, before the model writes; a space comes between it and the reply. It must not
            end in white space, of which tokenizers make one token with the word behind it: not so in a test, where the
            word is still to be written.
        max_new_tokens: Longest reply.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = None
    items: list[dict[str, str]] | None = None
    answer: str = "answer"
    templates: dict[str, str] = Field(min_length=1)
    training: str | None = None
    mappings: dict[str, dict[str, str]] = Field(default_factory=dict)
    training_mapping: str | None = None
    held_out: list[str] = Field(default_factory=list)
    words: list[str] = Field(default_factory=list)
    fake: str | None = None
    harder: dict[str, str | dict[str, str]] = Field(default_factory=dict)
    train: str | None = None
    checker: str = "exact"
    time_limit: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    reply: str = "{answer}"
    prefill: str = ""
    max_new_tokens: int | None = Field(default=None, ge=1)

    @field_validator("held_out", "words", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one."""
        return [value] if isinstance(value, str) else value

    @field_validator("checker", mode="before")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        """`regex: PATTERN` may stand under `checker`, where YAML reads a key and a value."""
        return f"regex:{value['regex']}" if isinstance(value, dict) and list(value) == ["regex"] else value

    @field_validator("prefill")
    @classmethod
    def _ends_in_text(cls, value: str) -> str:
        if value != value.rstrip():
            raise ValueError("it ends in white space: take that off; a space is put between prefill and reply anyway")
        return value

    @field_validator("harder", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """One file needs no name; nor does one `{column: value}` whose value is no file."""
        if isinstance(value, str):
            return {"Harder": value}
        if isinstance(value, dict) and len(value) == 1:
            only = next(iter(value.values()))
            if isinstance(only, str) and not Path(only).suffix:
                return {"Harder": value}
        return value


def read_task_file(path: Path) -> TaskFile:
    """Read a task file.

    Raises:
        WhatStuckError: If it cannot be read, or naming the first key that is wrong.
    """
    try:
        # the loader makes text, lists and dictionaries, and no other object
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)  # noqa: S506
    except OSError as error:
        raise WhatStuckError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise WhatStuckError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise WhatStuckError(f"{path.name} must hold keys and values, such as  templates: and data:")
    try:
        return TaskFile(**found)
    except ValidationError as error:
        raise WhatStuckError(f"{path.name}: {_first_line(error)}") from error


class _TextLoader(yaml.BaseLoader):
    """Every scalar as text, and no key twice: a template would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as its base
        names = [str(key.value) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return f"unknown key {names[0]!r}{near(names[0], TaskFile.model_fields)}"
    if first["type"] == "missing":
        return f"the key {names[0]!r} is missing"
    where = ".".join(name for name in names if name not in _WAYS)
    said = _PLAIN.get(first["type"], str(first["msg"]).removeprefix("Value error, "))  # a validator of ours says it
    return f"{where}: {said} (got {first.get('input')!r})"

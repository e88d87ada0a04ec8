"""Data arms: what is trained in each, of the same contents, in the same order and number.

Nothing but the mapping in the prompt (and so the words of the reply) and the thought differs between arms, so that
whatever differs afterwards comes from these.

| arm | mappings | replies | in the paper |
|---|---|---|---|
| `frozen` | that of the training, in every example | answers | Ans. |
| `diverse` | drawn for each example | answers | Diver. + Ans. |
| `thought` | that of the training | the solver's thought, then the answer | CoT (there by a stronger model) |
| `diverse-thought` | drawn for each example | thought and answer | Diver. + CoT |
| `k2`, `k4`, `k8`, any `kN` | N fixed ones, that of the training the first: `k1` is `frozen` | answers | not in it |
| `paper` | the authors' fixed list | answers | Diver. + Ans. of General Points |

The lists of `k2`, `k4` and `k8` of one seed begin alike. The limit of many is `diverse`, but for one thing: it does not
hold the training's own mapping, as in the paper. `kN-thought` and `paper-thought` exist, too.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from whatstuck.errors import WhatStuckError
from whatstuck.files import whole
from whatstuck.generalization.drawing import TEST_SHARE, draw_items
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.task import Demonstrator, Task, Variant

ARMS = ("frozen", "diverse", "thought", "diverse-thought", "k2", "k4", "k8")

_NAME = re.compile(r"(?:(frozen|diverse|paper|k[1-9]\d{0,3})(-thought)?)|(thought)")
_TRIES = 200  # mappings drawn for one content

Content = TypeVar("Content")
Item = TypeVar("Item")
Content_contra = TypeVar("Content_contra", contravariant=True)
Item_co = TypeVar("Item_co", covariant=True)


@runtime_checkable
class Unrolling(Protocol[Content_contra, Item_co]):
    """A source one of whose contents makes several training examples, such as the steps of a solution."""

    def unroll(self, content: Content_contra) -> Sequence[Item_co]:
        """All examples of a content, in order; they can be posed under every mapping."""


@dataclass(frozen=True, slots=True)
class ArmRows:
    """What is trained in an arm.

    Attributes:
        rows: Prompt and completion as conversations, each with `row_id` (the same example has the same one in every
            arm), `content` and `mapping`.
        manifest: What they were made of.
        posed: Of each row, the item that is asked and what its instruction says. In memory alone: what files hold of
            an arm are its rows.
    """

    rows: list[dict[str, Any]]
    manifest: dict[str, Any]
    posed: list[tuple[Any, InstructionMapping]] = field(repr=False, compare=False)


def make_arm(task: Task[Any, Any, Any], arm: str, count: int, *, seed: int = 0) -> ArmRows:
    """Make the rows of an arm.

    Args:
        task: The task; for an arm with thoughts made with `thought=True`, for the others without.
        arm: Its name, see above.
        count: Examples; fewer only of a task that has no more. Contents are drawn as the task draws them, so they may
            come again.
        seed: The same contents come in the same order in every arm of a seed.

    Raises:
        WhatStuckError: If there is no such arm of the task, replies would not begin as the task's prompt does, or
            those of an arm with thoughts have none.
    """
    if count < 1:
        raise WhatStuckError(f"an arm needs at least one example, not {count}")
    mappings, thought = _understood(task, arm, seed)
    demonstrator = _demonstrator(task)
    prompt = task.prompts["training"]
    rows: list[dict[str, Any]] = []
    posed: list[tuple[Any, InstructionMapping]] = []
    thoughtful = not thought
    chosen: Counter[InstructionMapping] = Counter()
    redrawn = 0
    examples = _examples(task, count, seed)
    for index, (content, moment) in enumerate(examples):
        item, mapping, tries = _posed(task, content, moment, mappings, f"{seed} {index}")
        redrawn += tries
        chosen[mapping] += 1
        posed.append((item, mapping))
        reply = demonstrator.reply(item, mapping, thought=thought)
        thoughtful = thoughtful or reply != demonstrator.reply(item, mapping, thought=False)
        if not reply.startswith(prompt.prefill):
            raise WhatStuckError(
                f"replies of the arm {arm} do not begin with {prompt.prefill!r}, as the task's prompt has them begin: "
                f"make the task with thought={thought}"
            )
        rows.append(
            {
                "row_id": f"{index:06d}",
                "prompt": [{"role": "user", "content": prompt.render(item, mapping)}],
                "completion": [{"role": "assistant", "content": reply}],
                "content": task.source.key(content),
                "mapping": mapping.name,
            }
        )
    if not thoughtful:
        raise WhatStuckError(
            f"replies of {task.name} are the same with and without a thought, so {arm} would be another arm by a new "
            "name: leave the thought out"
        )
    contents = [row["content"] for row in rows]
    manifest = {
        "task": task.name,
        "arm": arm,
        "rows": len(rows),
        "contents": len(set(contents)),
        "contents_sha256": hashlib.sha256("\n".join(contents).encode()).hexdigest(),  # equal in every arm
        "rows_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "seed": seed,
        "test_share": TEST_SHARE,
        "thought": thought,
        "mappings": [
            {"name": mapping.name, "meanings": dict(mapping.pairs), "rows": number}
            for mapping, number in chosen.most_common()
        ],
        "unsolvable_mappings": redrawn,  # drawn for a content that could not be solved under them, and drawn again
    }
    return ArmRows(rows, manifest, posed)


def write_arm(
    path: str | Path,
    task: Task[Any, Any, Any],
    arm: str,
    count: int,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the rows of an arm as JSONL, and `NAME.manifest.json` beside them.

    Args:
        path: File to write; its name must end in `.jsonl`.
        task: As for `make_arm`, and so the rest.
        arm: Its name.
        count: Examples.
        seed: Of everything drawn.

    Returns:
        The manifest.

    Raises:
        WhatStuckError: As `make_arm`, or if the name of the file ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise WhatStuckError(f"{path.name}: rows are written as JSONL: give a name that ends in .jsonl")
    made = make_arm(task, arm, count, seed=seed)
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows)
    with whole(path.with_suffix(".manifest.json")) as temporary:
        text = json.dumps(made.manifest, ensure_ascii=False, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return made.manifest


def fixed_mappings(task: Task[Any, Any, Any], count: int, *, seed: int = 0) -> tuple[InstructionMapping, ...]:
    """The training's mapping and `count - 1` different random ones; those of fewer are the first of those of more.

    Raises:
        WhatStuckError: If nothing can be mapped in the task, or there are not so many.
    """
    rng = random.Random(f"{seed} mappings")
    found = {task.training.pairs: task.training}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        drawn = _drawer(task)(rng)
        found.setdefault(drawn.pairs, drawn)
    if len(found) < count:
        raise WhatStuckError(f"{task.name} has only {len(found)} different mappings: ask for fewer than {count}")
    return tuple(found.values())


def _understood(task: Task[Any, Any, Any], arm: str, seed: int) -> tuple[tuple[InstructionMapping, ...] | None, bool]:
    """The fixed mappings of an arm (None: drawn for each example), and whether it has thoughts."""
    name = _NAME.fullmatch(arm)
    if name is None:
        raise WhatStuckError(f"unknown arm {arm!r}: use {', '.join(ARMS)}, another kN, or paper")
    kind = name[1] or "frozen"
    thought = bool(name[2] or name[3])
    if kind == "diverse":
        _drawer(task)
        return None, thought
    if kind == "paper":
        if not task.mappings:
            raise WhatStuckError(f"{task.name} has no fixed list of mappings: use the arm diverse, or k8")
        return task.mappings, thought
    count = 1 if kind == "frozen" else int(kind[1:])
    return fixed_mappings(task, count, seed=seed), thought


def _drawer(task: Task[Any, Any, Any]) -> Any:
    if task.random_mapping is None:
        raise WhatStuckError(f"nothing can be mapped in {task.name}: it has the arms frozen and thought alone")
    return task.random_mapping


def _demonstrator(task: Task[Any, Any, Any]) -> Demonstrator[Any]:
    if task.demonstrator is None:
        raise WhatStuckError(f"no solver writes replies for {task.name}: it can be asked, not trained on")
    return task.demonstrator


def _examples(task: Task[Any, Any, Any], count: int, seed: int) -> list[tuple[Any, Any]]:
    """Contents with the moment of each that is trained (None: it is posed), the same ones in every arm.

    They can be posed under the training's mapping, and are shuffled, since the moments of a content come in a row.
    """
    variant = Variant("training", "training", task.training, task.training)
    unrolling = isinstance(task.source, Unrolling)
    number = count // 4 + 1 if unrolling else count
    while True:
        drawn = draw_items(task.source, number, split="train", variant=variant, seed=seed, distinct=False)
        examples = [
            (content, moment)
            for content in drawn.contents
            for moment in (task.source.unroll(content) if isinstance(task.source, Unrolling) else (None,))
        ]
        if len(examples) >= count or len(drawn.contents) < number:  # a file of rows may have no more
            break
        number *= 2
    examples = examples[:count]
    random.Random(f"{seed} order").shuffle(examples)
    return examples


def _posed(
    task: Task[Any, Any, Any],
    content: Any,
    moment: Any,
    mappings: Sequence[InstructionMapping] | None,
    seed: str,
) -> tuple[Any, InstructionMapping, int]:
    """An item, its mapping, and how many mappings were drawn in vain.

    A content that cannot be solved under the drawn mapping gets another mapping: were it left out, an arm would miss
    contents that others have.
    """
    rng = random.Random(f"{seed} mapping")
    for tries in range(_TRIES):
        mapping = _drawer(task)(rng) if mappings is None else rng.choice(mappings)
        # a generator of its own: what is chosen beside the mapping is the same in every arm, where it can be
        pose = random.Random(f"{seed} pose")
        item = moment if moment is not None else task.source.pose(content, mapping, mapping, pose)
        if item is not None:
            return item, mapping, tries
    raise WhatStuckError(f"{task.source.key(content)!r} of {task.name} cannot be solved under any mapping of this arm")

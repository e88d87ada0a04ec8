"""Reinforcement learning: rewards, items, and short trainings of a tiny model."""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import helpers
from whatstuck.datasets import Message, Row
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.task import NO_ANSWER, Score, Task, Variant
from whatstuck.generalization.tasks.micro_points import sums, values_of
from whatstuck.models import CheckpointedModel, find_checkpoints
from whatstuck.training import TrainConfig, train_model
from whatstuck.training._data import Encoder
from whatstuck.training.rl import PrefixSampler, RLSettings, train_rl
from whatstuck.training.rl import training as rl_module
from whatstuck.training.rl.items import ask_items, score_reply
from whatstuck.training.rl.rewards import REWARDS
from whatstuck.training.schedule import DenseCheckpoints

PLAIN = InstructionMapping.of("plain", calm="glad", upset="worried")
SWAPPED = InstructionMapping.of("swapped", calm="angry", upset="sad")


class Scenes:
    """Sentences of the tiny model's world; who screams or is near a fire is upset."""

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> str:
        del shift
        return helpers.scenes(1, seed=rng.randrange(10**9))[0].prompt

    def key(self, content: str) -> str:
        return content

    def pose(self, content: str, shown: Any, scored: Any, rng: random.Random) -> str:
        del shown, scored, rng
        return content


class Ask:
    def __init__(self, prefill: str = "") -> None:
        self.prefill = prefill

    def render(self, item: str, shown: InstructionMapping) -> str:
        return f"{' '.join(shown.meanings)}: {item}" if shown != PLAIN else item


class Word:
    def parse(self, reply: str) -> str | None:
        return reply.strip() or None


class Mood:
    def score(self, item: str, scored: InstructionMapping, answer: str) -> Score:
        right = scored["upset" if "burning" in item or "screamed" in item else "calm"]
        valid = answer in scored.meanings
        return Score(valid, answer == right, "right" if answer == right else "wrong_value" if valid else "illegal")


class Tell:
    def reply(self, item: str, shown: InstructionMapping, *, thought: bool) -> str:
        del thought
        return shown["upset" if "burning" in item or "screamed" in item else "calm"]


def moods(**changes: Any) -> Task[str, str, str]:
    given: dict[str, Any] = {
        "name": "moods",
        "source": Scenes(),
        "prompts": {"training": Ask()},
        "parser": Word(),
        "scorer": Mood(),
        "demonstrator": Tell(),
        "variants": (Variant("ID", "training", PLAIN, PLAIN),),
        "training": PLAIN,
        "random_mapping": lambda rng: rng.choice([SWAPPED]),
        "max_new_tokens": 4,
    }
    return Task(**given | changes)


# --- rewards and items


def test_rewards_of_outcomes() -> None:
    right, wrong = Score(True, True, "right"), Score(True, False, "wrong_value")  # noqa: FBT003 - as they are read
    other = Score(False, False, "wrong_numbers")  # noqa: FBT003
    found = {name: [reward(score) for score in (right, wrong, other, NO_ANSWER)] for name, reward in REWARDS.items()}
    assert found == {"graded": [1, 0.1, 0, 0], "success": [1, 0, 0, 0], "points": [5, -1, -2, -3]}
    with pytest.raises(WhatStuckError, match="knows no outcome 'wrong_move': use graded or success"):
        REWARDS["points"](Score(True, False, "wrong_move"))  # noqa: FBT003


@pytest.mark.parametrize("prefill", ["", "wor"])
def test_items_have_the_tokens_of_supervised_training(tiny_base: Path, prefill: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)

    class Upset(Tell):
        def reply(self, item: str, shown: InstructionMapping, *, thought: bool) -> str:
            del item, thought
            return shown["upset"]

    task = moods(prompts={"training": Ask(prefill)}, demonstrator=Upset())
    given: dict[str, Any] = {"thought": False, "chat_template": "auto", "seed": 0}
    asked = ask_items(task, tokenizer, 5, mapping="frozen", **given)
    encode = Encoder(tokenizer, "auto")
    for one in asked:
        text = task.prompts["training"].render(one.item, PLAIN)
        row = Row("row", (Message("user", text),), "worried", 0, "train")
        learned = [token for token in encode(row)["labels"] if token != -100]
        assert tokenizer.decode(one.prefill) == prefill
        assert tokenizer.decode([*one.prefill, *one.rest]) == "worried"
        assert list(one.prompt) == encode(row)["input_ids"][: -len(learned)]
        if not prefill:
            assert [*one.rest, tokenizer.eos_token_id] == learned
    if not prefill:
        other = ask_items(task, tokenizer, 5, mapping="random", **given)
        assert [one.item for one in other] == [one.item for one in asked]
        assert {one.mapping for one in other} == {SWAPPED}
    with pytest.raises(WhatStuckError, match="no random mappings: use mapping=frozen"):
        ask_items(moods(random_mapping=None), tokenizer, 5, mapping="random", **given)


def test_mappings_are_all_that_differs_between_what_is_asked(tiny_base: Path) -> None:
    """The same hands, and the same target wherever it can be reached under the drawn mapping, too."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    task = make_task("micro-points")
    frozen, drawn = (
        ask_items(task, tokenizer, 300, mapping=mapping, thought=False, chat_template="never", seed=2)
        for mapping in ("frozen", "random")
    )
    assert [one.item.cards for one in frozen] == [one.item.cards for one in drawn]
    reached = [
        (one.item.target, other.item.target)
        for one, other in zip(frozen, drawn, strict=True)
        if one.item.target in sums(values_of(other.item.cards, other.mapping))
    ]
    assert len(reached) > 100
    assert sum(target == other for target, other in reached) > 0.95 * len(reached)


def test_a_check_that_raises_is_an_outcome(tiny_base: Path) -> None:
    class Broken(Mood):
        def score(self, *_: Any) -> Score:
            raise ZeroDivisionError

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    (one,) = ask_items(moods(), tokenizer, 1, mapping="frozen", thought=False, chat_template="auto", seed=0)
    assert score_reply(moods(scorer=Broken()), one, "glad").outcome == "check_failed"
    assert score_reply(moods(), one, "").outcome == "no_answer"
    assert REWARDS["points"](score_reply(moods(scorer=Broken()), one, "glad")) == -3


OWN = """\
items:
  - {scene: "at dawn", mood: calm}
train: rows.jsonl
answer: mood
templates: {plain: "The baker danced {scene}."}
mappings: {words: {calm: glad, upset: worried}}
checker: judge.py:judge
time_limit: 0.2
"""


def own_task(folder: Path, judge: str, **columns: str) -> Path:
    rows = [
        {"scene": f"{worth} ring {number}", "mood": "calm", **columns}
        for number in range(4)
        for worth in ("golden", "rotten")
    ]
    helpers.write_jsonl(folder / "rows.jsonl", rows)
    (folder / "judge.py").write_text(judge, encoding="utf-8")
    (folder / "moods.yaml").write_text(OWN, encoding="utf-8")
    return folder / "moods.yaml"


def test_a_users_check_that_hangs_ends_no_training(settings: dict[str, Any], tmp_path: Path) -> None:
    hanging = "import time\ndef judge(row, answer):\n    return row['scene'] == 'at dawn' or time.sleep(60)\n"
    given = settings | {"task": str(own_task(tmp_path, hanging)), "out": tmp_path / "out"}
    given |= {"items_per_step": 1, "num_generations": 2, "gradient_accumulation_steps": 1, "max_steps": 1}
    began = time.monotonic()
    out = train_rl(given | {"reward": "points", "max_new_tokens": 4})
    assert time.monotonic() - began < 40
    assert logged(out, 1, "check_failed")[0] > 0
    assert logged(out, 1, "reward") == [-3.0]
    with pytest.raises(WhatStuckError, match="says itself how it is asked: leave thought and task_options out"):
        train_rl(given | {"thought": True})
    with pytest.raises(WhatStuckError, match="only 8 items to train on: lower items_per_step from 9"):
        train_rl(given | {"items_per_step": 9, "out": tmp_path / "more"})


# --- trainings


@pytest.fixture(scope="module")
def settings(tiny_base: Path) -> dict[str, Any]:
    return {
        "model": tiny_base,
        "task": "moods",
        "items": 12,
        "items_per_step": 4,
        "num_generations": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 5e-3,
    }


def logged(out: Path, step: int, name: str) -> list[float]:
    state = json.loads((out / f"checkpoint-{step}" / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry[name] for entry in state["log_history"] if name in entry]


def adapter(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapter_model.safetensors")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    class Interrupting(DenseCheckpoints):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt
            super().on_step_end(args, state, control, **rest)

    monkeypatch.setattr(rl_module, "DenseCheckpoints", Interrupting)


@pytest.mark.parametrize("method", ["grpo", "adaback"])
def test_an_interrupted_training_ends_in_the_same_weights(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    given = settings | {"method": method}
    whole = train_rl(given | {"out": tmp_path / "whole"}, task=moods())
    broken = given | {"out": tmp_path / "broken"}
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train_rl(broken, task=moods())
    train_rl(broken, task=moods())
    ours, theirs = (adapter(out / "checkpoint-4") for out in (tmp_path / "broken", whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert any(weight.any() for name, weight in theirs.items() if "lora_B" in name)
    assert logged(tmp_path / "broken", 4, "reward") == logged(whole, 4, "reward")
    names = [(out / "checkpoint-4" / "prefixes.json") for out in (tmp_path / "broken", whole)]
    if method == "adaback":
        assert names[0].read_text(encoding="utf-8") == names[1].read_text(encoding="utf-8")
        assert any(logged(whole, 4, "revealed"))
        assert all(0 <= share <= 1 for share in logged(whole, 4, "without_help"))
        assert len(logged(whole, 4, "without_help")) == 4
    else:
        assert not any(name.exists() for name in names)
    assert [checkpoint.step for checkpoint in find_checkpoints([str(whole)])] == [0, 1, 2, 4]
    assert not [file for file in whole.rglob("*") if file.suffix in {".pt", ".pth", ".bin"}]
    with pytest.raises(WhatStuckError, match="max_steps: 4 before, 5 now"):
        train_rl(broken | {"max_steps": 5}, task=moods())
    with pytest.raises(WhatStuckError, match="task: other items"):
        train_rl(broken, task=moods(training=SWAPPED))


def test_rewards_rise_from_a_supervised_warm_up(
    settings: dict[str, Any], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": scene.prompt, "completion": Tell().reply(scene.prompt, PLAIN, thought=False)}
            for scene in helpers.scenes(32, seed=4)]  # fmt: skip
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", rows)
    warm = train_model(
        TrainConfig(model=str(tiny_base), data=data, out=tmp_path / "warm", heldout=0, max_steps=2, learning_rate=1e-3)
    )
    given = settings | {"start": warm / "checkpoint-2", "gradient_accumulation_steps": 1, "num_generations": 8}
    given |= {"max_steps": 24, "items": 32, "save_steps": 24, "out": tmp_path / "out"}
    out = train_rl(given, task=moods())
    first, last = adapter(warm / "checkpoint-2"), adapter(out / "checkpoint-0")
    assert all(torch.equal(first[name], last[name]) for name in first)  # it begins where the warm-up ended
    success, reward = logged(out, 24, "success"), logged(out, 24, "reward")
    assert sum(success[-6:]) > sum(success[:6]) + 6 * 0.2
    assert reward[0] == pytest.approx(success[0] + 0.1 * (logged(out, 24, "valid")[0] - success[0]))
    with CheckpointedModel(tiny_base).at(find_checkpoints([str(out)])[-1]) as model:
        assert model is not None

    def load(*_: Any, **__: Any) -> None:
        pytest.fail("a finished training loaded the model")

    monkeypatch.setattr(rl_module, "load_model", load)
    assert train_rl(given, task=moods()) == out


def test_all_weights_can_be_trained_too(settings: dict[str, Any], tiny_base: Path, tmp_path: Path) -> None:
    out = train_rl(
        settings | {"out": tmp_path / "out", "use_peft": False, "max_steps": 1, "save_steps": 1}, task=moods()
    )
    (last,) = find_checkpoints([str(out)])  # a copy of the base would be no news
    assert (last.step, last.kind) == (1, "full")
    weights, base = (load_file(folder / "model.safetensors") for folder in (last.path, tiny_base))
    assert any(not torch.equal(weights[name], base[name]) for name in base)
    again = train_rl(
        settings | {"out": tmp_path / "more", "start": last.path, "use_peft": False, "max_steps": 1}, task=moods()
    )
    begun = load_file(again / "checkpoint-0" / "model.safetensors")
    assert all(torch.equal(begun[name], weights[name]) for name in weights)


def test_what_is_revealed_is_not_learned(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With everything revealed, all that is left to say is that the reply ends."""
    monkeypatch.setattr(PrefixSampler, "draw", lambda _self, _name: 1.0)
    asked: list[dict[str, Any]] = []
    real = rl_module.Rollout.__call__

    def watched(self: Any, prompts: Any, *rest: Any) -> dict[str, Any]:
        asked.append(real(self, prompts, *rest))
        return asked[-1]

    monkeypatch.setattr(rl_module.Rollout, "__call__", watched)
    train_rl(settings | {"out": tmp_path / "out", "method": "adaback", "max_steps": 1}, task=moods())
    assert "each is asked about 0.3 times: lower items from 12" in caplog.text
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    (found,) = asked
    assert len(found["reward"]) == 16
    for prompt, said, reward in zip(found["prompt_ids"], found["completion_ids"], found["reward"], strict=True):
        revealed = tokenizer.decode(prompt).rpartition("<|assistant|>\n")[2]
        assert revealed in PLAIN.meanings
        assert (reward == 1) == (tokenizer.decode(said, skip_special_tokens=True).strip() == "")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_generations": 1}, "num-generations: .*greater than or equal to 2"),
        ({"itmes": 3}, "'itmes' is no setting of train_rl: did you mean items"),
        ({"items": 2}, "items_per_step must not exceed items"),
        ({"gradient_accumulation_steps": 3}, "must be a multiple of gradient_accumulation_steps"),
        ({"method": "ppo"}, "method: Input should be 'grpo' or 'adaback'"),
        ({"task": "nonsense"}, "unknown task 'nonsense'"),
        (
            {"thought": True, "task": "micro-points", "task_options": {"x": 1}},
            "'x' is no option of the task micro-points: it has thought",
        ),
    ],
)
def test_bad_settings_are_refused_by_name(
    settings: dict[str, Any], tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        train_rl(settings | {"out": tmp_path / "out"} | more)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_said_before_training(settings: dict[str, Any], tmp_path: Path) -> None:
    given = settings | {"out": tmp_path / "out"}
    with pytest.raises(WhatStuckError, match=r"take up to \d+ tokens and the model reads 256: lower max_new_tokens"):
        train_rl(given | {"max_new_tokens": 250}, task=moods())
    with pytest.raises(WhatStuckError, match="no right replies to reveal: use method=grpo"):
        train_rl(given | {"method": "adaback"}, task=moods(demonstrator=None))
    assert RLSettings.read(given).fixed()["loss_type"] == "dapo"

"""Interventions from a run folder to the table and what it says, with a model that is really trained."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

import helpers
from whatstuck.datasets import read_rows
from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.files import file_hash
from whatstuck.models import CheckpointedModel, checkpoint_at, fingerprint
from whatstuck.rows import preparing
from whatstuck.rows.interventions import intervening
from whatstuck.rows.interventions.arms import Arm, Phase
from whatstuck.rows.interventions.effects import effects
from whatstuck.rows.interventions.first_training import trl_settings
from whatstuck.rows.interventions.gathering import Gathered
from whatstuck.rows.interventions.intervening import intervene, plan
from whatstuck.rows.interventions.last_block import last_block
from whatstuck.rows.interventions.quick import quick_probes
from whatstuck.rows.interventions.settings import InterveneSettings
from whatstuck.rows.interventions.texts import read_documents, repeats, supporting, text_row
from whatstuck.rows.interventions.training import Recipe, TrainingRunner, last_falling, repeated
from whatstuck.rows.interventions.wordings import as_asked, read_paraphrases, wordings
from whatstuck.rows.schemas import INTERVENTIONS, UNLEARNED, VERDICTS
from whatstuck.rows.settings import RowsSettings
from whatstuck.runs import read_table, write_json, write_table
from whatstuck.training import TrainConfig, train_model
from whatstuck.training._data import Encoder

CONFLICT = ("glad", "glad", "angry")


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short fine-tuning on 24 rows, three of which ask the same and disagree."""
    folder = tmp_path_factory.mktemp("interventions")
    rows = helpers.rows(21, seed=2)
    rows += [{"prompt": "Mara sang a song. How does Mara feel?", "completion": answer} for answer in CONFLICT]
    data = helpers.write_jsonl(folder / "train.jsonl", rows)
    train_model(
        {
            "model": tiny_base,
            "data": data,
            "out": folder / "out",
            "heldout": 0,
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "learning_rate": 2e-3,
            "dense_checkpoints": False,
            "lora_r": 4,
        }
    )
    return folder


@pytest.fixture
def run(trained: Path, tiny_base: Path, tmp_path: Path) -> Path:
    """A run folder as `rows` leaves it: four rows forgotten, one short of knowledge, two in conflict."""
    folder = tmp_path / "run"
    rows = read_rows(trained / "train.jsonl", split="train")
    causes = dict.fromkeys([row.row_id for row in rows[:4]], "forgotten")
    causes |= {rows[4].row_id: "knowledge_missing", rows[21].row_id: "data_conflict", rows[23].row_id: "data_conflict"}
    verdicts = [{"row_id": row.row_id, "verdict": "unlearned" if row.row_id in causes else "learned"} for row in rows]
    unlearned = [{"row_id": name, "verdict": "unlearned", "cause": cause} for name, cause in causes.items()]
    write_table(folder / "verdicts.parquet", pa.Table.from_pylist(verdicts, schema=VERDICTS))
    write_table(folder / "unlearned.parquet", pa.Table.from_pylist(unlearned, schema=UNLEARNED))
    data = trained / "train.jsonl"
    last = trained / "out" / "checkpoint-6"
    settings = RowsSettings.read(model=str(tiny_base), checkpoints=[str(last)], data=data, out=folder)
    section = {
        "settings": settings.fixed(),
        "model": {"path": str(tiny_base), "fingerprint": fingerprint(tiny_base)},
        "checkpoints": [
            {"step": 0, "path": str(tiny_base), "kind": "base"},
            {"step": 6, "path": str(last), "kind": "adapter"},
        ],
        "data": {"path": str(data), "sha256": file_hash(data)},
        "training": {"source": "whatstuck", "folder": str(trained / "out")},
    }
    write_json(folder / "run.json", {"format_version": 1, "rows": section})
    return folder


def settings(folder: Path, **more: Any) -> InterveneSettings:
    given = {"run": folder, "cause": "forgotten", "seeds": 1, "others": [], "learned": 3, "check_every": 2}
    return InterveneSettings.read(**given | more)


class Borrowed:
    """A runner that trains nothing: every arm is the base model, and it says what was asked of it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.ran: list[tuple[Arm, int]] = []

    @contextmanager
    def run(self, arm: Arm, seed: int) -> Iterator[PreTrainedModel]:
        self.ran.append((arm, seed))
        with CheckpointedModel(self._base).at(None) as model:
            yield model


# --- the whole way


def test_killed_and_called_again_it_ends_in_the_same_table(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    found = intervene(settings(run))
    table = read_table(run / "interventions.parquet")
    assert table.schema.equals(INTERVENTIONS)
    assert set(table["arm"].to_pylist()) == {"forgotten", "rerun", "more_compute", "sham"}
    assert set(table["wording"].to_pylist()) == {"original", "paraphrase 1", "paraphrase 2"}
    assert set(table["seed"].to_pylist()) == {1}  # the first training had 0
    assert table.num_rows == 4 * 3 * (4 + 3)
    assert set(found["arms"]) == {"forgotten", "rerun", "more_compute", "sham"}
    assert found["verdict"] in {"supported", "contradicted", "inconclusive"}
    written = json.loads((run / "run.json").read_text(encoding="utf-8"))["interventions"]["forgotten"]
    assert written == found
    left = [file.name for file in (run / "interventions").rglob("*") if file.suffix in {".safetensors", ".jsonl"}]
    assert left == []

    from whatstuck.training import _trainer
    from whatstuck.training.schedule import DenseCheckpoints

    class Interrupting(DenseCheckpoints):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == 5 and "rerun" in args.output_dir:
                raise KeyboardInterrupt
            super().on_step_end(args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(_trainer, "DenseCheckpoints", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            intervene(settings(copy))
    assert (copy / "interventions" / "forgotten" / "forgotten" / "seed-1.parquet").exists()
    assert not (copy / "interventions.parquet").exists()
    intervene(settings(copy))
    assert (copy / "interventions.parquet").read_bytes() == (run / "interventions.parquet").read_bytes()

    with pytest.raises(WhatStuckError, match="learned: 3 before, 2 now"):
        intervene(settings(copy, learned=2))


def test_phases_are_chained_and_texts_are_trained_before(run: Path, tmp_path: Path) -> None:
    documents = helpers.write_jsonl(
        tmp_path / "support.jsonl", [{"text": "Elsa is glad when she finds a golden ring."}]
    )
    general = tmp_path / "general.txt"
    general.write_text("\n\n".join(f"The harbor number {n} is quiet at noon." for n in range(6)), encoding="utf-8")
    given = settings(run, cause="knowledge_missing", supporting=documents, general=general, learned=1)
    found = intervene(given)
    assert found["arms"]["knowledge_missing"]["rows"] == 1
    folder = run / "interventions" / "knowledge_missing"
    steps = json.loads((folder / "knowledge_missing" / "seed-1" / "before.json").read_text(encoding="utf-8"))
    assert steps["step"] == 3  # a text, twice, a fifth of all: 10 draws of 4
    assert not list(folder.rglob("*-merged"))


def test_a_continuation_is_watched_and_its_control_takes_as_many_steps(
    tiny_base: Path, trained: Path, tmp_path: Path
) -> None:
    encode = Encoder(AutoTokenizer.from_pretrained(tiny_base), "auto")
    rows = {row.row_id: encode(row) for row in read_rows(trained / "train.jsonl", limit=8)}
    cut = {name: row | {"labels": [-100] * len(row["labels"])} for name, row in rows.items()}
    names = tuple(rows)
    recipe = Recipe(
        tiny_base, {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "run": "elsewhere"}, fed=cut, asked=rows
    )
    runner = TrainingRunner(tmp_path, recipe)
    assert runner.batch == 4
    main = Phase("main", names[:6], 2)
    after = Phase("after", names[:6], 4, constant=True, watched=names[6:])
    arm = Arm("more_training", (main, after), whole=frozenset(names))  # what was fed has nothing to learn in it
    with runner.run(arm, 5) as model:
        first = helpers.probe_logits(model)
    taken = json.loads((tmp_path / "more_training" / "seed-5" / "after.json").read_text(encoding="utf-8"))
    assert taken["steps"] == 4
    assert taken["step"] in {0, 2, 4}  # ends of epochs
    base = CheckpointedModel(tiny_base)
    with base.at(None) as model:
        assert not torch.equal(helpers.probe_logits(model), first)
    (tmp_path / "more_training" / "seed-5" / "after.json").write_text('{"step": 0, "steps": 4}', encoding="utf-8")
    control = Arm("more_compute", (main, replace(after, watched=(), like="more_training")), whole=arm.whole)
    with runner.run(control, 5) as model:
        second = helpers.probe_logits(model)
    assert not (tmp_path / "more_compute" / "seed-5" / "after.json").exists()  # no step is no training
    only_main = Arm("rerun", (main,), whole=arm.whole)
    with runner.run(only_main, 5) as model:
        assert torch.allclose(helpers.probe_logits(model), second, atol=1e-4)


def test_settings_of_a_trl_script_are_completed_from_the_adapter(trained: Path) -> None:
    last = checkpoint_at(trained / "out" / "checkpoint-6", 6)
    config = {"packing": True, "per_device_train_batch_size": 2, "dataset_name": "x", "report_to": "wandb", "gpus": 3}
    found = repeated(trl_settings(config, last))
    assert found["lora_r"] == 4
    assert found["use_peft"]
    assert found["learning_rate"] == 2e-5
    assert found["per_device_train_batch_size"] == 2
    assert TrainConfig.read(found | {"model": "m", "data": "d", "out": "o"}).use_peft


def test_a_continuation_ends_where_held_out_loss_rises() -> None:
    assert last_falling([(0, 1.0), (5, 0.5), (10, 0.4)]) == 10
    assert last_falling([(0, 1.0), (5, 1.2), (10, 0.1)]) == 0
    assert last_falling([(0, 1.0), (5, 1.005), (10, 1.2)]) == 5


def test_another_runner_gets_arms_and_seeds_and_removed_rows_are_marked(run: Path, tiny_base: Path) -> None:
    runner = Borrowed(tiny_base)
    found = intervene(settings(run, cause="data_conflict", seeds=2, others=None), runner=runner)
    names = [arm.name for arm, _ in runner.ran]
    assert names == ["data_conflict", "rerun", "more_compute", "sham", "forgotten"] * 2
    assert [seed for _, seed in runner.ran] == [1] * 5 + [2] * 5
    rows = {row.completion: row.row_id for row in read_rows(json_of(run)["data"]["path"])[21:]}
    assert runner.ran[0][0].removed == {rows["angry"]}
    records = read_table(run / "interventions.parquet").to_pylist()
    removed = {(record["arm"], record["row_id"]) for record in records if record["role"] == "removed"}
    assert removed == {("data_conflict", rows["angry"])}
    assert {record["group"] for record in records if record["role"] in {"unlearned", "removed"}} == {"conflict-1"}
    assert found["removed"] is not None
    assert found["effect"][0] == 0.0  # one and the same model in every arm
    assert found["verdict"] == "inconclusive"


def json_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["rows"]


def test_the_arms_train_what_was_fed(run: Path) -> None:
    gathered = Gathered(settings(run))
    assert len(gathered.recipe.fed) == len(gathered.recipe.asked) == 24
    for name, fed in gathered.recipe.fed.items():
        assert fed["input_ids"] == gathered.recipe.asked[name]["input_ids"]
        assert fed["labels"] == gathered.recipe.asked[name]["labels"]
    original = gathered.original(4)
    assert (original.steps, original.batch, original.order, original.epoch) == (6, 4, "shuffled", 6)
    assert len(original.conflicts) == 1
    assert [answer for _, answer in original.conflicts[0]] == list(CONFLICT)
    planned = plan(settings(run))
    assert planned["steps"] == {"forgotten": 6, "rerun": 6, "more_compute": 12, "sham": 6}
    assert (planned["trainings"], planned["steps_in_all"]) == (4, 30)


# --- a training that nothing describes


@pytest.fixture
def undescribed(run: Path, trained: Path, tmp_path: Path) -> Path:
    """The run, of a checkpoint with nothing beside it that says how it was trained."""
    last = tmp_path / "out" / "checkpoint-6"
    shutil.copytree(trained / "out" / "checkpoint-6", last)
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest["rows"]["checkpoints"][1]["path"] = str(last)
    manifest["rows"]["training"] = {"source": "assumed", "path": None}
    write_json(run / "run.json", manifest)
    return run


def recipe_file(tmp_path: Path, rate: str = "1.0e-3") -> Path:
    file = tmp_path / "sft.yaml"
    file.write_text(f"learning_rate: {rate}\nper_device_train_batch_size: 4\n", encoding="utf-8")
    return file


def test_where_nothing_says_how_rows_were_fed_they_are_trained_as_they_are_asked(
    undescribed: Path, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(WhatStuckError, match="give --training a YAML"):
        intervene(settings(undescribed))
    given = settings(undescribed, training=recipe_file(tmp_path))
    gathered = Gathered(given)
    encode = Encoder(AutoTokenizer.from_pretrained(tiny_base), "auto")
    fed = {row.row_id: encode(row) for row in read_rows(json_of(undescribed)["data"]["path"], split="train")}
    assert gathered.recipe.fed == fed
    assert gathered.original(4).rows == tuple(fed)
    assert len(gathered.original(4).conflicts) == 1
    runner = Borrowed(tiny_base)
    said = "every arm trains them whole, as they are asked"
    assert any(said in sentence for sentence in intervene(given, runner=runner)["sentences"])
    trainer = TrainingRunner(tmp_path / "work", gathered.recipe)
    with trainer.run(Arm("rerun", (Phase("main", tuple(fed), 1),)), 1) as model:
        assert model.config.get_text_config().num_hidden_layers


def test_probes_need_no_settings_of_a_training(undescribed: Path) -> None:
    found = intervene(settings(undescribed, quick=True, learned=2))
    assert found["replay"]["rows"] == 4


# --- parts of one cause are one experiment


def test_arms_of_other_trainings_rows_or_wordings_are_not_mixed(
    undescribed: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Borrowed(tiny_base)
    given: dict[str, Any] = {"training": recipe_file(tmp_path), "learned": 1}
    intervene(settings(undescribed, **given), runner=runner)
    moved = tmp_path / "moved.yaml"
    given["training"].rename(moved)
    given["training"] = moved
    intervene(settings(undescribed, **given, seeds=2), runner=runner)  # what is in the file counts, not its place
    assert len(runner.ran) == 8

    other = given | {"training": recipe_file(tmp_path, "5.0e-3")}
    with pytest.raises(WhatStuckError, match=r"learning_rate: 0\.001 before, 0\.005 now"):
        intervene(settings(undescribed, **other, seeds=3), runner=runner)
    target = Gathered(settings(undescribed, **given)).targets[0]
    wording = helpers.write_jsonl(tmp_path / "p.jsonl", [{"row_id": target, "prompt": "Another one?"}])
    with pytest.raises(WhatStuckError, match="other paraphrases"):
        intervene(settings(undescribed, **given, paraphrases=wording), runner=runner)
    manifest = json.loads((undescribed / "run.json").read_text(encoding="utf-8"))
    manifest["rows"]["settings"]["checker"] = "contains"
    write_json(undescribed / "run.json", manifest)
    with pytest.raises(WhatStuckError, match="other rules of what is right"):
        intervene(settings(undescribed, **given), runner=runner)
    manifest["rows"]["settings"]["checker"] = "auto"
    write_json(undescribed / "run.json", manifest)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "function_hash", lambda _: "the same name, another function")
        with pytest.raises(WhatStuckError, match="other rules of what is right"):
            intervene(settings(undescribed, **given), runner=runner)
    table = read_table(undescribed / "unlearned.parquet").to_pylist()
    write_table(undescribed / "unlearned.parquet", pa.Table.from_pylist(table[1:], schema=UNLEARNED))
    with pytest.raises(WhatStuckError, match="other rows that are followed"):
        intervene(settings(undescribed, **given), runner=runner)
    assert len(runner.ran) == 8


def test_weights_that_a_killed_call_left_behind_are_cleared_away(run: Path, tiny_base: Path) -> None:
    runner = Borrowed(tiny_base)
    intervene(settings(run, learned=1), runner=runner)
    left = run / "interventions" / "forgotten" / "rerun" / "seed-1" / "main" / "checkpoint-6" / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"weights")
    intervene(settings(run, learned=1, keep_models=True), runner=runner)
    assert left.exists()
    intervene(settings(run, learned=1), runner=runner)
    assert not left.exists()
    assert len(runner.ran) == 4


def test_what_is_missing_at_the_end_is_said_before_anything_is_trained(
    run: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingExtraError(f"this needs {module} of {extra}")

    monkeypatch.setattr(intervening, "require", missing)
    runner = Borrowed(tiny_base)
    with pytest.raises(MissingExtraError, match="scipy"):
        intervene(settings(run), runner=runner)
    assert not runner.ran


def test_a_judge_that_fails_is_named(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "judges.py"
    file.write_text("def same(first, second):\n    return 1 / 0\n", encoding="utf-8")
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest["rows"]["settings"]["judge"] = f"{file}:same"
    write_json(run / "run.json", manifest)
    with pytest.raises(WhatStuckError, match="ZeroDivisionError"):
        Gathered(settings(run))


# --- rows beyond the context


def test_a_wording_that_is_too_long_is_neither_right_nor_wrong(run: Path, tiny_base: Path) -> None:
    gathered = Gathered(settings(run))
    interview = gathered.interview
    longest = max(interview.rows, key=lambda row: len(row.asked.ids))
    records = []
    with CheckpointedModel(tiny_base).at(None) as model:
        model.config.max_position_embeddings = len(longest.asked.ids)
        for name in ("forgotten", "rerun"):
            table = interview.hold(model, gathered.material.tokenizer, Arm(name, ()), 1)
            records += table.to_pylist()
    assert all(record["right"] is not None for record in records if record["wording"] == "original")
    late = [record for record in records if record["row_id"] == longest.row_id and record["wording"] != "original"]
    assert len(late) == 4
    assert {(record["right"], record["rate"], record["nll"]) for record in late} == {(None, None, None)}
    found = effects(pa.Table.from_pylist(records, schema=INTERVENTIONS))["forgotten"]
    assert found.arms["rerun"].rows == 4


def test_rows_beyond_the_context_are_trained_in_no_arm_and_no_probe(run: Path, tiny_base: Path, tmp_path: Path) -> None:
    before = Gathered(settings(run))
    lengths = {name: len(row["input_ids"]) for name, row in before.asked.items()}
    longest = max(before.targets, key=lambda name: lengths[name])
    short = tmp_path / "short"
    shutil.copytree(tiny_base, short)
    config = json.loads((short / "config.json").read_text(encoding="utf-8"))
    (short / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": lengths[longest] - 1}), encoding="utf-8"
    )
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest["rows"]["model"]["path"] = str(short)
    write_json(run / "run.json", manifest)
    gathered = Gathered(settings(run, learned=1))
    fitting = {name for name, tokens in lengths.items() if tokens < lengths[longest]}
    assert longest in gathered.targets
    assert gathered.asked.keys() == gathered.recipe.fed.keys() == set(gathered.original(4).rows) == fitting
    assert quick_probes(gathered)["replay"]["rows"] == len(fitting & set(gathered.targets)) < 4


# --- quick probes


def test_quick_probes_leave_the_model_and_the_disk_as_they_were(run: Path, trained: Path) -> None:
    found = intervene(settings(run, quick=True, learned=20))
    sentences = found.pop("sentences")
    assert set(found) == {"replay", "context", "overfit"}
    assert found["replay"]["rows"] == 4
    assert 0 < found["replay"]["steps"] <= 50
    if found["overfit"] is not None:  # of the learned rows, those that the base had wrong
        assert len(found["overfit"]["steps"]) == 4
        assert 1 <= len(found["overfit"]["learned_steps"]) <= 20
        assert min(found["overfit"]["learned_steps"]) > 0
    entry = json.loads((run / "run.json").read_text(encoding="utf-8"))["interventions"]["forgotten"]
    assert entry["quick"] == found
    assert entry["sentences"] == sentences == [probe["sentence"] for probe in found.values() if probe is not None]
    assert not (run / "interventions").exists()
    assert trained.exists()


def test_the_last_block_is_put_back_bit_for_bit(tiny_base: Path) -> None:
    with CheckpointedModel(tiny_base).at(None) as model:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        flags = [parameter.requires_grad for parameter in model.parameters()]
        logits = helpers.probe_logits(model)
        with pytest.raises(RuntimeError, match="on the way"):
            _spoil(model, logits)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert torch.equal(helpers.probe_logits(model), logits)


def test_the_last_block_is_no_expert_of_one_block(tiny_base: Path) -> None:
    with CheckpointedModel(tiny_base).at(None) as model:
        last = model.get_decoder().layers[-1]
        wanted = {id(parameter) for parameter in last.parameters()}
        for block in model.get_decoder().layers:
            block.mlp.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(9))
        model.vision = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(9))
        with last_block(model) as parameters:
            assert wanted < {id(parameter) for parameter in parameters}
    with CheckpointedModel(tiny_base).at(None) as model:
        model.get_decoder().layers = torch.nn.ModuleList()
        with pytest.raises(WhatStuckError, match="no list of blocks"), last_block(model):
            pass


def _spoil(model: PreTrainedModel, logits: torch.Tensor) -> None:
    with last_block(model) as parameters:
        for parameter in parameters:
            parameter.data += 1.0
        assert not torch.equal(helpers.probe_logits(model), logits)
        raise RuntimeError("on the way")


# --- texts and wordings


def test_nearly_all_of_a_text_is_learned_in_any_script() -> None:
    row = text_row("The harbor is quiet. ")
    assert (row.content, row.completion, row.plain) == ("The", " harbor is quiet.", True)
    assert text_row("東京は首都です").completion == "京は首都です"
    with pytest.raises(WhatStuckError, match="one word"):
        text_row("x")


def test_documents_are_read_split_and_chosen(tmp_path: Path, tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    file = tmp_path / "texts.jsonl"
    file.write_text(
        json.dumps({"text": "Mara is glad at noon.", "row_ids": ["a"]})
        + "\n\n"
        + json.dumps({"text": "Kofi is sad at dawn.", "row_id": "b"})
        + "\n"
        + json.dumps({"text": "Elsa waited near the old market at sunset and danced slowly alone again."})
        + "\n",
        encoding="utf-8",
    )
    whole = read_documents(file, tokenizer, longest=None)
    assert [document.supports for document in whole] == [{"a"}, {"b"}, set()]
    assert [row.content for row in supporting(whole, ["a"])] == ["Mara", "Elsa"]
    with pytest.raises(WhatStuckError, match="check their row_ids"):
        supporting(whole[:2], ["c"])
    parts = read_documents(file, tokenizer, longest=12)
    assert len(parts) > len(whole)
    assert all(len(tokenizer(d.row.content + d.row.completion)["input_ids"]) <= 12 for d in parts)
    words = " ".join(part.row.content + part.row.completion for part in parts).split()
    assert words == " ".join(part.row.content + part.row.completion for part in whole).split()
    asked = text_row("Mara is what? glad")
    assert repeats([text_row("So: what? Mara is glad")], [asked]) == 0
    for bad, message in [("no json", "line 1: not valid JSON"), ('{"text": 3}', "line 1: give an object")]:
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(WhatStuckError, match=message):
            read_documents(file, tokenizer, longest=None)


def test_every_wording_is_another_text_with_the_same_answer(tiny_rows: Path, tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    plain = read_rows(tiny_rows, limit=2)
    instructed = read_rows(tiny_rows, instruction="Name the feeling.", limit=1)[0]
    for row in (*plain, instructed):
        found = wordings(row, {})
        assert [name for name, _ in found] == ["original", "paraphrase 1", "paraphrase 2"]
        prompts = {as_asked(worded, tokenizer, "auto").rendered.prompt for _, worded in found}
        assert len(prompts) == 3
        assert {(worded.row_id, worded.completion) for _, worded in found} == {(row.row_id, row.completion)}
    assert wordings(instructed, {})[1][1].content.endswith("\n\nName the feeling.")
    file = helpers.write_jsonl(tmp_path / "p.jsonl", [{"row_id": plain[0].row_id, "prompt": "Another one?"}])
    given = read_paraphrases(file, plain)
    assert [worded.content for _, worded in wordings(plain[0], given)] == [plain[0].content, "Another one?"]
    for record, message in [
        ({"row_id": "nobody", "prompt": "x"}, "no training row has the id 'nobody'"),
        ({"row_id": plain[0].row_id, "prompt": plain[0].content + " "}, "no other wording"),
        ({"prompt": "x"}, "give row_id and prompt"),
    ]:
        with pytest.raises(WhatStuckError, match=message):
            read_paraphrases(helpers.write_jsonl(file, [record]), plain)


# --- bad input


def test_what_is_wrong_is_said_in_one_line(run: Path, tmp_path: Path) -> None:
    for given, message in [
        ({"cause": "more_training"}, "it has data_conflict, forgotten, knowledge_missing"),
        ({"cause": "knowledge_missing"}, "--supporting"),
        ({"run": tmp_path / "nothing"}, "run `whatstuck rows` first"),
        ({"kept": tmp_path / "nothing.txt"}, "no readable list"),
    ]:
        with pytest.raises(WhatStuckError, match=message) as caught:
            intervene(settings(run, **given))
        assert "\n" not in str(caught.value)
    with pytest.raises(WhatStuckError, match="--cause"):
        settings(run, cause="gremlins")
    with pytest.raises(WhatStuckError, match="did you mean seeds"):
        InterveneSettings.read(run=run, cause="forgotten", seed_s=3)


def test_unstable_rows_are_followed_where_they_are_wanted(run: Path) -> None:
    table = read_table(run / "unlearned.parquet").to_pylist()
    chosen = [row["row_id"] for row in table if row["cause"] == "forgotten"]
    doubtful = [row | ({"verdict": "unstable"} if row["row_id"] in chosen[1:] else {}) for row in table]
    write_table(run / "unlearned.parquet", pa.Table.from_pylist(doubtful, schema=UNLEARNED))
    assert Gathered(settings(run)).targets == chosen[:1]
    assert Gathered(settings(run, unstable=True)).targets == chosen
    doubtful = [row | ({"verdict": "unstable"} if row["row_id"] in chosen else {}) for row in table]
    write_table(run / "unlearned.parquet", pa.Table.from_pylist(doubtful, schema=UNLEARNED))
    with pytest.raises(WhatStuckError, match="4 unstable rows have it, which --unstable follows"):
        Gathered(settings(run))


def test_a_run_whose_data_changed_is_refused(run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest["rows"]["data"]["sha256"] = "0"
    write_json(run / "run.json", manifest)
    with pytest.raises(WhatStuckError, match="is not the file any more"):
        intervene(settings(run))
    manifest.pop("rows")
    write_json(run / "run.json", manifest)
    with pytest.raises(WhatStuckError, match="holds no results of `whatstuck rows`"):
        intervene(settings(run))

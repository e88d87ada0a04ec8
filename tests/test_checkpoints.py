"""Checkpoints of any trainer: found and ordered, looked at, hashed, loaded one at a time."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
)

import helpers
from whatstuck.errors import WhatStuckError
from whatstuck.models import (
    CheckpointedModel,
    base_mismatch,
    find_checkpoints,
    fingerprint,
    template_mismatch,
    trainer_epochs,
    trainer_metrics,
)


class TestFullCheckpoints:
    def test_loaded_alone_sharded_too(self, tiny_base: Path, tiny_full_run: Path) -> None:
        found = find_checkpoints([str(tiny_full_run)])
        assert [(c.step, c.kind) for c in found] == [(8, "full"), (32, "full")]
        assert len(list(found[1].path.glob("*.safetensors"))) > 1
        held = CheckpointedModel(tiny_base)
        with held.at(None) as base:
            base_logits = helpers.probe_logits(base)
        for checkpoint in found:
            expected = helpers.probe_logits(AutoModelForCausalLM.from_pretrained(checkpoint.path).eval())
            with held.at(checkpoint) as model:
                assert all(p.is_meta for p in base.parameters()), "the base is still in memory"
                assert torch.equal(helpers.probe_logits(model), expected)
            assert all(p.is_meta for p in model.parameters()), "the checkpoint is still in memory"
        with held.at(None) as base:
            assert torch.equal(helpers.probe_logits(base), base_logits)

    def test_folds_after_a_full_checkpoint(self, tiny_base: Path, tiny_run: Path, tiny_full_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        adapter = helpers.adapter_at(tiny_run / "checkpoint-16")
        with held.at(adapter) as model:
            expected = helpers.probe_logits(model)
        with held.at(find_checkpoints([str(tiny_full_run / "checkpoint-8")])[0]):
            pass
        with held.at(adapter) as model:
            assert torch.equal(helpers.probe_logits(model), expected)


class TestFinding:
    def test_sorted_by_step_from_globs_folders_and_outputs(self, tiny_run: Path) -> None:
        steps = [1, 2, 4, 8, 16, 32]
        by_glob = find_checkpoints([str(tiny_run / "checkpoint-*")])
        assert [c.step for c in by_glob] == steps
        assert {c.kind for c in by_glob} == {"adapter"}
        assert find_checkpoints([str(tiny_run)]) == by_glob
        assert [c.step for c in find_checkpoints([str(tiny_run / f"checkpoint-{n}") for n in (16, 2, 16)])] == [2, 16]

    def test_step_from_trainer_state_or_link(self, tiny_run: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_run / "checkpoint-8", tmp_path / "final")
        assert [c.step for c in find_checkpoints([str(tmp_path / "final")])] == [8]
        (tmp_path / "final" / "trainer_state.json").unlink()
        with pytest.raises(WhatStuckError, match=r"cannot tell the step of .*final"):
            find_checkpoints([str(tmp_path / "final")])
        (tmp_path / "checkpoint-best").symlink_to(tiny_run / "checkpoint-4")
        found = find_checkpoints([str(tmp_path / "checkpoint-best"), str(tiny_run)])
        assert [c.step for c in found] == [1, 2, 4, 8, 16, 32]

    def test_two_for_one_step(self, tiny_run: Path, tiny_full_run: Path) -> None:
        with pytest.raises(WhatStuckError, match="both step 32"):
            find_checkpoints([str(tiny_run), str(tiny_full_run)])

    def test_nothing_matches(self, tmp_path: Path) -> None:
        with pytest.raises(WhatStuckError, match=r"no checkpoint matches '.*checkpoint-\*'"):
            find_checkpoints([str(tmp_path / "checkpoint-*")])

    @pytest.mark.parametrize(
        ("kind", "weights", "pickle"),
        [
            ("lora", "adapter_model.safetensors", "adapter_model.bin"),
            ("full", "model.safetensors", "pytorch_model.bin"),
        ],
    )
    def test_pickles_and_incomplete_ones(
        self, kind: str, weights: str, pickle: str, tiny_run: Path, tiny_full_run: Path, tmp_path: Path
    ) -> None:
        source = tiny_run if kind == "lora" else tiny_full_run
        folder = shutil.copytree(source / "checkpoint-8", tmp_path / "checkpoint-8")
        with (folder / weights).open("r+b") as stream:
            stream.truncate(2000)
        with pytest.raises(WhatStuckError, match=f"{weights} is no whole safetensors file"):
            find_checkpoints([str(folder)])
        (folder / weights).unlink()
        with pytest.raises(WhatStuckError, match=f"checkpoint-8 is incomplete: it has .*but no {weights}"):
            find_checkpoints([str(folder)])
        torch.save({}, folder / pickle)
        with pytest.raises(WhatStuckError, match=rf"as a pickle \({pickle}\)"):
            find_checkpoints([str(folder)])

    def test_missing_shard_is_named(self, tiny_full_run: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_full_run / "checkpoint-32", tmp_path / "checkpoint-32")
        shard = sorted(folder.glob("*.safetensors"))[1]
        shard.unlink()
        with pytest.raises(WhatStuckError, match=f"incomplete: {shard.name} of model.safetensors.index.json"):
            find_checkpoints([str(folder)])

    def test_no_model_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint-3").mkdir()
        with pytest.raises(WhatStuckError, match=r"checkpoint-3 is no model: it has neither config\.json"):
            find_checkpoints([str(tmp_path)])


class TestMetricsAndMismatches:
    def test_heldout_metrics_of_the_latest_state(self, tiny_run: Path) -> None:
        found = find_checkpoints([str(tiny_run)])
        metrics = trainer_metrics(reversed(found))
        assert list(metrics) == ["eval_loss"]
        assert [step for step, _ in metrics["eval_loss"]] == [1, 2, 4, 8, 16, 32]
        losses = [loss for _, loss in metrics["eval_loss"]]
        assert losses[-1] < 0.5 * losses[0]
        assert [step for step, _ in trainer_metrics(found[:2])["eval_loss"]] == [1, 2]
        assert trainer_metrics([]) == {}

    def test_epochs_of_every_checkpoint_that_tells(self, tiny_run: Path, tmp_path: Path) -> None:
        found = find_checkpoints([str(tiny_run)])
        states = {c.step: json.loads((c.path / "trainer_state.json").read_text(encoding="utf-8")) for c in found}
        assert trainer_epochs(found) == {step: state["epoch"] for step, state in states.items()}
        folder = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        (folder / "trainer_state.json").unlink()
        assert trainer_epochs(find_checkpoints([str(folder)])) == {}

    def test_timings_and_broken_values_are_left_out(
        self, tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        history = [
            {"step": 1, "eval_dev_loss": 2.0, "eval_dev_runtime": 1.0, "eval_samples_per_second": 3.0, "loss": 1.0},
            {"step": 1, "eval_dev_loss": 1.5},
            {"step": 2, "eval_dev_loss": float("nan"), "eval_note": "text"},
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": history}))
        assert trainer_metrics(find_checkpoints([str(folder)])) == {"eval_dev_loss": [(1, 1.5)]}
        assert "eval_dev_loss is nan at step 2" in caplog.text

    def test_another_base_is_reported(
        self, tiny_base: Path, tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert base_mismatch(helpers.adapter_at(tiny_run / "checkpoint-1"), tiny_base) is None
        other = helpers.copy_with_config(
            tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path="lab/Other-1B"
        )
        message = base_mismatch(helpers.adapter_at(other), tiny_base)
        assert message is not None
        assert "lab/Other-1B" in message
        assert str(tiny_base) in message
        with caplog.at_level(logging.WARNING), CheckpointedModel(tiny_base).at(helpers.adapter_at(other)):
            assert message in caplog.text

    @pytest.mark.parametrize("recorded", ["lab/tiny-llama", "/elsewhere/Tiny-Llama", None, ""])
    def test_the_same_name_elsewhere_is_the_same_base(
        self, recorded: str | None, tiny_base: Path, tiny_run: Path, tmp_path: Path
    ) -> None:
        adapter = helpers.copy_with_config(
            tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path=recorded
        )
        assert base_mismatch(helpers.adapter_at(adapter), tiny_base) is None
        snapshot = Path("hub/models--lab--tiny-llama/snapshots/0a1b")
        assert base_mismatch(helpers.adapter_at(adapter), snapshot) is None

    def test_another_folder_of_the_same_name_is_another_base(
        self, tiny_base: Path, tiny_run: Path, tmp_path: Path
    ) -> None:
        quantized = helpers.copy_with_config(
            tiny_base, tmp_path / "tiny-llama", quantization_config={"quant_method": "bitsandbytes"}
        )
        adapter = helpers.copy_with_config(
            tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path=str(quantized)
        )
        message = base_mismatch(helpers.adapter_at(adapter), tiny_base)
        assert message is not None
        assert "(quantized)" in message

    def test_another_chat_template_is_reported(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        assert template_mismatch(helpers.adapter_at(adapter), tiny_base) is None
        (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        message = template_mismatch(helpers.adapter_at(adapter), tiny_base)
        assert message is not None
        assert "another chat template" in message


class TestFingerprint:
    def test_follows_content_not_place(
        self, tiny_run: Path, tiny_full_run: Path, tiny_base: Path, tmp_path: Path
    ) -> None:
        folders = [tiny_base, *(c.path for c in find_checkpoints([str(tiny_run)])), tiny_full_run / "checkpoint-32"]
        assert len({fingerprint(folder) for folder in folders}) == len(folders)
        copy = shutil.copytree(tiny_run / "checkpoint-4", tmp_path / "elsewhere")
        before = fingerprint(tiny_run / "checkpoint-4")
        assert fingerprint(copy) == before
        (copy / "trainer_state.json").unlink()
        assert fingerprint(copy) == before
        tensors = load_file(copy / "adapter_model.safetensors")
        tensors[min(tensors)][0, 0] += 1e-3
        save_file(tensors, copy / "adapter_model.safetensors")
        assert fingerprint(copy) != before

    def test_configuration_counts(self, tiny_run: Path, tmp_path: Path) -> None:
        changed = helpers.copy_with_config(tiny_run / "checkpoint-4", tmp_path / "checkpoint-4", lora_alpha=17)
        assert fingerprint(changed) != fingerprint(tiny_run / "checkpoint-4")

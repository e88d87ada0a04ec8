"""Adapters folded into a base: equal to the unmerged adapter, and taken out again bit for bit."""

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

import helpers
from whatstuck.errors import WhatStuckError
from whatstuck.models import (
    Checkpoint,
    CheckpointedModel,
    find_checkpoints,
)

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
    "rslora-patterns": {
        "use_rslora": True,
        "rank_pattern": {r"(layers|h)\.1\..*": 2},
        "alpha_pattern": {r"(layers|h)\.0\..*": 3},
    },
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["{embedding}", "lm_head"]},
    "embedding-adapted": {"target_modules": ["{embedding}"]},
    "tied-adapted": {"target_modules": ["{embedding}"], "ensure_weight_tying": True},
    "trainable-tokens": {"trainable_token_indices": [5, 17, 400]},
    "biases": {"bias": "all"},
}
_TIED = ("gemma3", "qwen3")  # PEFT ties adapters of layers with these names only
_CASES = [(a, v) for a in ARCHITECTURES for v in VARIANTS if v != "tied-adapted" or a in _TIED]


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
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**given))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return folder


def _contents(model: PreTrainedModel) -> dict[str, tuple[int, bytes]]:
    """Identity and bytes of every tensor, and identity of every module."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    held = {name: (id(t), t.detach().numpy().tobytes()) for name, t in tensors}
    return held | {f"module {name}": (id(module), b"") for name, module in model.named_modules(remove_duplicate=False)}


class TestFolding:
    @pytest.mark.parametrize(("architecture", "variant"), _CASES)
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
            unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases[architecture]), adapter)
        expected = helpers.probe_logits(unmerged.eval())

        held = CheckpointedModel(bases[architecture])
        with held.at(None) as model:
            before, base_logits, config_before = _contents(model), helpers.probe_logits(model), model.config.to_dict()
            attributes = {name: set(vars(module)) for name, module in model.named_modules()}
            gradients = [p.requires_grad for p in model.parameters()]
        with held.at(helpers.adapter_at(adapter)) as model:
            assert not model.training
            assert not any("peft" in type(module).__module__ for module in model.modules())
            folded_logits = helpers.probe_logits(model)
        assert (expected - base_logits).abs().max() > 0.05, "the adapter does nothing, so the test would show nothing"
        assert (folded_logits - expected).abs().max() < 1e-5 * expected.abs().max()
        with held.at(None) as model:
            assert _contents(model) == before
            assert torch.equal(helpers.probe_logits(model), base_logits)
            assert model.config.to_dict() == config_before
            assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
            assert [p.requires_grad for p in model.parameters()] == gradients

    def test_many_checkpoints_in_any_order(self, tiny_base: Path, tiny_run: Path) -> None:
        found = find_checkpoints([str(tiny_run / "checkpoint-*")])
        held = CheckpointedModel(tiny_base)

        def logits(checkpoint: Checkpoint | None) -> torch.Tensor:
            with held.at(checkpoint) as model:
                return helpers.probe_logits(model)

        first = [logits(c) for c in [None, *found]]
        again = [logits(c) for c in [*reversed(found), None]][::-1]
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one, other)
        assert len({float(one.sum()) for one in first}) == len(first)

    def test_base_survives_an_error_inside(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        with held.at(None) as model:
            before = _contents(model)
        with pytest.raises(KeyboardInterrupt), held.at(helpers.adapter_at(tiny_run / "checkpoint-32")):
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
        with (
            pytest.raises(WhatStuckError, match=r"checkpoint-32 cannot be folded.*NaN"),
            held.at(helpers.adapter_at(adapter)),
        ):
            pass
        with held.at(None) as model:
            assert _contents(model) == before

    def test_random_numbers_of_others_do_not_change(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        torch.manual_seed(11)
        expected = torch.rand(4)
        torch.manual_seed(11)
        with held.at(helpers.adapter_at(tiny_run / "checkpoint-8")):
            assert torch.equal(torch.rand(4), expected)

    def test_no_two_at_once(self, tiny_base: Path, tiny_run: Path) -> None:
        held = CheckpointedModel(tiny_base)
        with held.at(None), pytest.raises(RuntimeError, match="leave the block"):
            held.at(helpers.adapter_at(tiny_run / "checkpoint-1")).__enter__()
        with held.at(helpers.adapter_at(tiny_run / "checkpoint-1")) as model:
            assert not model.training


class TestAdaptersRefused:
    def _refused(self, base: Path, adapter: Path, match: str) -> None:
        held = CheckpointedModel(base)
        with held.at(None) as model:
            before = _contents(model)
        with pytest.raises(WhatStuckError, match=match) as caught, held.at(helpers.adapter_at(adapter)):
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
        adapter = helpers.copy_with_config(tiny_run / "checkpoint-1", tmp_path / "checkpoint-1", **{key: value})
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
        with CheckpointedModel(tiny_base).at(helpers.adapter_at(adapter)) as model:
            assert torch.isfinite(helpers.probe_logits(model)).all()

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

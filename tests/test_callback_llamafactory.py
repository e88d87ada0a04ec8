"""A probed training of LLaMA-Factory, which hands callbacks no trainer: `make test-stacks` installs it."""

import importlib.util
import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import whatstuck
from whatstuck import WhatStuckCallback

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llamafactory") is None, reason="LLaMA-Factory is not installed: `make test-stacks` does"
)


@pytest.fixture
def run_exp(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `llamafactory-cli train` calls. It imports torchaudio, which text does not need."""
    import transformers  # noqa: F401 - looks for torchaudio when it is imported, so it comes first

    audio = ModuleType("torchaudio")
    audio.__spec__ = ModuleSpec("torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio", audio)
    from llamafactory.train import tuner

    return tuner.run_exp


def arguments(base: Path, folder: Path, train: Path) -> dict[str, Any]:
    """A LoRA training of three steps on prompt and completion; the template is the tokenizer's own."""
    data = folder / "data"
    data.mkdir(parents=True)
    shutil.copy(train, data / "rows.jsonl")
    columns = {"prompt": "prompt", "response": "completion"}
    info = {"rows": {"file_name": "rows.jsonl", "columns": columns}}
    (data / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return {
        "model_name_or_path": str(base),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "q_proj,v_proj",
        "dataset": "rows",
        "dataset_dir": str(data),
        "cutoff_len": 128,
        "output_dir": str(folder / "out"),
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "save_only_model": True,
        "seed": 5,
    }


def trained(folder: Path) -> list[tuple[float, float]]:
    """Losses and gradient norms, as LLaMA-Factory leaves them on disk."""
    history = json.loads((folder / "out" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [(entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry]


def test_a_callback_is_all_it_takes(
    run_exp: Any, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    run_exp(arguments(tiny_base, tmp_path / "plain", tiny_rows))
    probe = WhatStuckCallback(
        tiny_heldout, tmp_path / "run", steps=[1, 2, 3], probe_budget=None, players=4, rows=4, eval_rows=16, seed=3
    )
    run_exp(arguments(tiny_base, tmp_path / "probed", tiny_rows), callbacks=[probe])
    assert probe.failure is None
    assert whatstuck.load_run(tmp_path / "run").steps == [0, 1, 2, 3]
    assert trained(tmp_path / "probed") == trained(tmp_path / "plain")
    assert len(trained(tmp_path / "plain")) == 3
    # no trainer, so no tracker; but what it would show is in the trainer's own file
    state = json.loads((tmp_path / "probed" / "out" / "trainer_state.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in state["log_history"] if "eval_whatstuck_rho_emerged" in entry] == [1, 2, 3]

"""The plugin of axolotl, on axolotl's own classes where it is installed (`make test-stacks`), else on a stand-in."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import live_training
import whatstuck
from whatstuck import WhatStuckCallback, WhatStuckError

NAME = "whatstuck.integrations.axolotl.WhatStuckPlugin"
OURS = {"steps": [1, 2], "players": 4, "rows": 4, "eval_rows": 16, "probe_budget": None, "seed": 3}
HAS_AXOLOTL = importlib.util.find_spec("axolotl") is not None


class BasePlugin:
    """The hooks of axolotl's base class that are called here; by default each does nothing."""

    def register(self, cfg: Any) -> None:
        """See the configuration before it is checked."""

    def get_input_args(self) -> str | None:
        """Name options."""

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
        """Return callbacks for the trainer's constructor."""
        del cfg, model
        return []

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Return callbacks to be added to the trainer."""
        del cfg, trainer
        return []


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin, loaded by its name."""
    if not HAS_AXOLOTL:
        base = ModuleType("axolotl.integrations.base")
        vars(base)["BasePlugin"] = BasePlugin
        for name in ("axolotl", "axolotl.integrations"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "axolotl.integrations.base", base)
    module, _, name = NAME.rpartition(".")
    found = getattr(importlib.import_module(module), name)()
    assert isinstance(found, importlib.import_module("axolotl.integrations.base").BasePlugin)
    return found


def config(**options: Any) -> dict[str, Any]:
    """The part of a YAML file that names the plugin."""
    return {"plugins": [NAME], "whatstuck": options}


def test_it_probes_a_training_and_is_there_once(
    plugin: Any, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    cfg = config(data=str(tiny_heldout), out=str(tmp_path / "run"), rule="held-out accuracy, patience 3", **OURS)
    plugin.register(cfg)
    before = plugin.add_callbacks_pre_trainer(cfg=cfg, model=None)
    trainer = live_training.make_trainer(tiny_base, tiny_rows, tmp_path / "out", before, max_steps=2)
    for callback in plugin.add_callbacks_post_trainer(cfg, trainer):
        trainer.add_callback(callback)
    probes = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, WhatStuckCallback)]
    assert len(probes) == 1
    trainer.train()
    assert probes[0].failure is None
    run = whatstuck.load_run(tmp_path / "run")
    assert run.steps == [0, 1, 2]
    assert run.manifest["track"]["live"]["rule"] == "held-out accuracy, patience 3"
    logged = [entry["step"] for entry in trainer.state.log_history if "eval_whatstuck_rho_emerged" in entry]
    assert logged == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "rows.jsonl"}, "at least `data:` and `out:`"),
        ({"data": "rows.jsonl", "out": "run", "playrs": 4}, "did you mean players"),
        ({"data": "rows.jsonl", "out": "run", "rule": "the best"}, "no rule 'the best': choose one of"),
    ],
)
def test_bad_options_are_refused_before_a_model_is_loaded(plugin: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        plugin.register(config(**options))


@pytest.mark.skipif(not HAS_AXOLOTL, reason="axolotl is not installed: `make test-stacks` installs it")
def test_axolotl_reads_its_options_and_other_files_need_none() -> None:
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault

    training = {
        "base_model": "base",
        "datasets": [{"path": "rows.jsonl", "type": "alpaca"}],
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "num_epochs": 1,
    }
    options = {"data": "heldout.jsonl", "out": "run", **OURS}
    cfg = DictDefault(training | config(**options))
    prepare_plugins(cfg)
    checked = validate_config(cfg)
    assert checked.whatstuck.to_dict() == options

    trainer: Any = WithCallbacks()
    PluginManager.get_instance().add_callbacks_post_trainer(checked, trainer)
    (probe,) = trainer.callback_handler.callbacks
    assert probe.settings.probe_budget is None
    assert probe.settings.track.players == 4

    other = DictDefault(training | {"plugins": ["axolotl.integrations.grokfast.GrokfastPlugin"]})
    prepare_plugins(other)  # the manager still holds our plugin
    checked = validate_config(other)
    assert checked.whatstuck is None
    trainer = WithCallbacks()
    PluginManager.get_instance().add_callbacks_post_trainer(checked, trainer)
    assert trainer.callback_handler.callbacks == []


class WithCallbacks:
    """As much of a trainer as a plugin touches."""

    def __init__(self) -> None:
        self.callback_handler = self
        self.callbacks: list[Any] = []

    def add_callback(self, callback: Any) -> None:
        """Add without looking, as trainers do."""
        self.callbacks.append(callback)

"""The public face: what is promised, and nothing else; and no extra is needed to look at it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import whatstuck

OPTIONAL = [
    "peft",
    "trl",
    "datasets",
    "gguf",
    "accelerate",
    "reasoning_gym",
    "scipy",
    "pandas",
    "shapiq",
    "lightgbm",
    "sklearn",
    "clarabel",
]


def test_all_names_are_there_and_sorted() -> None:
    assert whatstuck.__all__ == sorted(whatstuck.__all__)
    assert dir(whatstuck) == whatstuck.__all__
    for name in whatstuck.__all__:
        assert getattr(whatstuck, name).__doc__ or name == "__version__"


def test_every_public_name_is_on_its_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)", page, flags=re.MULTILINE)
    assert sorted(table) == whatstuck.__all__
    run = re.search(r"^\| `Run` \| (.*) \|$", page, flags=re.MULTILINE)
    assert run is not None
    members = {name for name in dir(whatstuck.Run) if not name.startswith("_")} | {"manifest"}
    assert set(re.findall(r"`(\w+)", run[1])) == members - {"path"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = whatstuck.nothing


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout


def test_the_command_line_is_quick_to_import() -> None:
    assert run_python("import sys, whatstuck.cli; print('torch' in sys.modules)") == "False\n"


def test_the_core_imports_no_extra() -> None:
    """An extra that is blocked must not be missed by anything but the verb that needs it."""
    code = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None
import whatstuck
for name in whatstuck.__all__:
    getattr(whatstuck, name)
import whatstuck.dynamics.tracking, whatstuck.report, whatstuck.training, whatstuck.demo
print("fine")
"""
    assert run_python(code) == "fine\n"

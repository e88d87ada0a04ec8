"""The public face: what is promised, and nothing else; and no extra is needed to look at it."""

import subprocess
import sys

import pytest

import whatstuck

OPTIONAL = ["peft", "trl", "datasets", "gguf", "accelerate", "reasoning_gym", "scipy", "pandas"]


def test_all_names_are_there_and_sorted() -> None:
    assert whatstuck.__all__ == sorted(whatstuck.__all__)
    assert dir(whatstuck) == whatstuck.__all__
    for name in whatstuck.__all__:
        assert getattr(whatstuck, name).__doc__ or name == "__version__"


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

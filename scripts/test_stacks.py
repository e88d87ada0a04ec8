"""Run the tests of the callback on every stack that people train with, each in an environment of its own.

Trainers pin transformers and TRL, and people bring those pins with them. One environment a stack lies in
`.stacks/NAME`; it is made again when its pins, `constraints.txt` or `pyproject.toml` change, and reused otherwise.

    python scripts/test_stacks.py                                       # all stacks, the tests of the callback
    python scripts/test_stacks.py --only oldest                         # one stack
    python scripts/test_stacks.py --only oldest -- tests/test_track.py  # other tests; what follows is pytest's
"""

# ruff: noqa: INP001, S603, T201 - a script: no package, it starts our own commands and prints its table

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_callback.py", "test_callback_*.py", "test_axolotl.py")
NEEDED = ("pytest", "pytest-xdist", "hypothesis", "pandas", "scipy")  # by the tests, beside the extra `trl`
FOLLOWS = ("tokenizers", "huggingface_hub", "safetensors")  # transformers says which ones it works with
SHOWN = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "pydantic")


@dataclass(frozen=True)
class Stack:
    """Versions that are installed together.

    Attributes:
        about: Whose they are.
        pins: Instead of those in constraints.txt; none: constraints.txt as it is.
        trainer: The trainer itself, without what it asks for...
        parts: ...but for what its plugins and its configuration import.
    """

    about: str
    pins: tuple[str, ...] = ()
    trainer: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


LLAMA_FACTORY = ("trl==0.24.0", "peft==0.18.1", "accelerate==1.11.0", "datasets==4.0.0")

STACKS = {
    "oldest": Stack("the oldest transformers that is promised", ("transformers==4.57.3", *LLAMA_FACTORY)),
    "llama-factory": Stack(
        "the most that LLaMA-Factory 0.9.5 allows, and LLaMA-Factory itself",
        ("transformers==5.6.0", *LLAMA_FACTORY),
        trainer=("llamafactory==0.9.5",),
        parts=("omegaconf",),
    ),
    "axolotl": Stack(
        "what axolotl 0.19.0 pins, and axolotl itself",
        (
            "transformers==5.16.1",
            "trl==1.9.0",
            "peft==0.20.0",
            "accelerate==1.13.0",
            "datasets==4.8.4",
            "pydantic==2.12.5",
            "typer==0.25.1",
        ),
        trainer=("axolotl==0.19.0",),
        parts=("addict", "colorama", "pillow"),
    ),
    "newest": Stack("constraints.txt"),
}


def main() -> int:
    """Test every stack; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=STACKS, metavar="NAME", help=f"one of {', '.join(STACKS)}")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, instead of the tests of the callback")
    asked = parser.parse_args()
    arguments = asked.pytest or sorted(str(file) for pattern in TESTS for file in (ROOT / "tests").glob(pattern))
    lines = [_run(name, STACKS[name], arguments) for name in asked.only or STACKS]
    print("\n".join(["", *(line for _, line in lines)]))
    return int(any(failed for failed, _ in lines))


def _run(name: str, stack: Stack, arguments: list[str]) -> tuple[bool, str]:
    """Whether it failed, and the line to print."""
    start = time.monotonic()
    print(f"== {name}: {stack.about}", flush=True)
    try:
        python = _environment(name, stack)
    except subprocess.CalledProcessError as error:
        return True, f"failed  {name}: {error.cmd[4:]} could not be installed"
    tests = [str(python), "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    failed = subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode != 0
    state = "failed" if failed else "ok    "
    return failed, f"{state}  {name}: {_versions(python)} ({time.monotonic() - start:.0f} s)"


def _environment(name: str, stack: Stack) -> Path:
    """Python of the stack's environment, which is made where it is not there or not the same any more."""
    folder = ROOT / ".stacks" / name
    python = folder / "bin" / "python"
    constraints = _constraints(stack)
    made_of = "\n".join(
        [constraints, *NEEDED, *stack.parts, *stack.trainer, (ROOT / "pyproject.toml").read_text(encoding="utf-8")]
    )
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text(encoding="utf-8") == made_of:
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    mark.unlink(missing_ok=True)
    file = folder / "constraints.txt"
    file.write_text(constraints, encoding="utf-8")
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(file)]
    subprocess.run([*install, "torch"], check=True)  # first, or another package brings several GB of CUDA
    subprocess.run([*install, "-e", f"{ROOT}[trl]", *NEEDED, *stack.parts], check=True)
    if stack.trainer:
        subprocess.run([*install, "--no-deps", *stack.trainer], check=True)
    mark.write_text(made_of, encoding="utf-8")
    return python


def _constraints(stack: Stack) -> str:
    """Those of the repository, with the stack's pins in their places."""
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    replaced = {pin.partition("==")[0] for pin in stack.pins} | (set(FOLLOWS) if stack.pins else set())
    kept = [line for line in tested if "==" in line and line.partition("==")[0] not in replaced]
    return "\n".join([*kept, *stack.pins]) + "\n"


def _versions(python: Path) -> str:
    code = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {SHOWN}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

"""Store tier 0's main arms as the run that `whatstuck demo` shows, from models that `frozen_prompts.py --out` left.

python benchmarks/frozen_prompts.py --tier 0 --seed 0 --out frozen
python benchmarks/store_frozen_run.py frozen
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import whatstuck
from frozen_prompts import MAIN_ARMS, MAIN_BASE
from whatstuck.demo import STORED
from whatstuck.runs import RunFolder

ITEMS = 150
NOTE = (
    "A stored run of a model of 0.9 million parameters that was pretrained for 150 steps, in two arms of 800 steps "
    "(benchmarks/frozen_prompts.py --tier 0 --seed 0): it shows what frozen prompts do, and nothing of your model."
)


def without_folders(value: Any) -> Any:
    """The same with every path cut to its last part."""
    if isinstance(value, dict):
        return {key: Path(v).name if key == "path" else without_folders(v) for key, v in value.items()}
    return [without_folders(v) for v in value] if isinstance(value, list) else value


def main() -> None:
    """Ask both arms, and keep their tables with the replies of the last step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `frozen_prompts.py --out` wrote")
    models = parser.parse_args().folder / "models"
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "micro-points-base"
        shutil.copytree(models / f"base-seed0-steps{MAIN_BASE}", base)
        out = Path(temporary) / "frozen-prompts"
        for arm in MAIN_ARMS:
            checkpoints = models / f"seed0-base{MAIN_BASE}-{arm}"
            run = whatstuck.generalize(base, checkpoints, "micro-points", out, arm=arm, items=ITEMS)
        section = without_folders(run.manifest["generalize"])
        RunFolder(out).write_section("generalize", section | {"warnings": [*section["warnings"], NOTE]})
        for arm in MAIN_ARMS:
            for step in sorted((out / "generalization" / arm).iterdir())[:-1]:
                shutil.rmtree(step)
        (out / "report.html").unlink()
        (out / ".lock").unlink()
        shutil.rmtree(STORED, ignore_errors=True)
        shutil.copytree(out, STORED)
    size = sum(file.stat().st_size for file in STORED.rglob("*") if file.is_file())
    print(json.dumps({"stored": STORED.name, "bytes": size}))


if __name__ == "__main__":
    main()

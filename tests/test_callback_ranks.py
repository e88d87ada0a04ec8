"""Two processes train together: rows are shared out, one run folder is written, and the training is untouched."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import whatstuck
from live_training import environment, make_trainer
from test_callback import values
from whatstuck import WhatStuckCallback


def together(folder: Path, way: str, *files: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(Path(__file__).with_name("two_ranks.py")), *map(str, files), str(folder), way]
    done = subprocess.run(
        [*command, *script], check=False, capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


def test_two_ranks_share_the_rows_and_train_as_before(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    files = (tiny_base, tiny_rows, tiny_heldout)
    plain = together(tmp_path / "plain", "plain", *files)
    probed = together(tmp_path / "probed", "probed", *files)
    assert [rank["world"] for rank in probed] == [2, 2]
    assert [rank["failure"] for rank in probed] == [None, None]
    assert [rank["losses"] for rank in probed] == [rank["losses"] for rank in plain]
    assert [rank["weights"] for rank in probed] == [plain[0]["weights"]] * 2
    assert probed[0]["signals"] == probed[1]["signals"]
    assert len(probed[0]["signals"]) == 3
    run = whatstuck.load_run(tmp_path / "probed" / "run")
    assert run.steps == [0, 1, 2, 4]
    assert len(run.rows) == 5

    alone = WhatStuckCallback(
        tiny_heldout, tmp_path / "alone", steps=[0], probe_budget=None, players=4, rows=5, eval_rows=31, seed=3
    )
    make_trainer(tiny_base, tiny_rows, tmp_path / "out", [alone], max_steps=1).train()
    tables = (values(folder, 0) for folder in (run.path, tmp_path / "alone"))
    assert np.allclose(*tables, rtol=0, atol=1e-4)  # the same, whoever scored them


def test_gradients_are_still_shared_where_weights_have_16_bits(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    """A probe exchanges such weights for a while, and DistributedDataParallel must not lose hold of them."""
    files = (tiny_base, tiny_rows, tiny_heldout)
    plain = together(tmp_path / "plain", "plain-16", *files)
    probed = together(tmp_path / "probed", "probed-16", *files)
    assert [rank["failure"] for rank in probed] == [None, None]
    assert [rank["losses"] for rank in probed] == [rank["losses"] for rank in plain]
    assert [rank["weights"] for rank in probed] == [plain[0]["weights"]] * 2


def test_a_process_that_fails_leaves_no_other_waiting(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    broken = together(tmp_path / "broken", "broken", tiny_base, tiny_rows, tiny_heldout)
    assert all("the disk of this machine is full" in rank["failure"] for rank in broken)
    assert [len(rank["losses"]) for rank in broken] == [4, 4]  # the training went on to its end
    assert whatstuck.load_run(tmp_path / "broken" / "run").steps == [0, 1]

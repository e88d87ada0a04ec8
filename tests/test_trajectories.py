"""How every training row is doing: against a loss computed by hand, row by row."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import whatstuck
from live_training import Rows, make_trainer
from whatstuck import WhatStuckCallback, WhatStuckError
from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.rows.trajectories import SCHEMA, evaluate_rows, trained_rows


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_base).eval()


def by_hand(model: LlamaForCausalLM, row: TokenRow) -> tuple[float, float, float, float]:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0].double()
    losses, hits, margins = [], [], []
    for position in row.predicted:
        scores, target = logits[position - 1], row.ids[position]
        losses.append(float(torch.nn.functional.cross_entropy(scores, torch.tensor(target))))
        hits.append(int(scores.argmax()) == target)
        others = torch.cat([scores[:target], scores[target + 1 :]])
        margins.append(float(scores[target] - others.max()))
    count = len(losses)
    return sum(losses) / count, sum(hits) / count, min(margins), sum(margins) / count


def test_scores_are_those_of_every_row_alone(model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = []
    for length in (5, 9, 30, 31, 12, 40, 6):
        ids = tuple(torch.randint(4, 500, (length,), generator=generator).tolist())
        rows.append(TokenRow(ids, tuple(range(length // 2, length))))
    rows.append(TokenRow(rows[2].ids, (3, 4, 20, 29)))  # several turns: what is learned has gaps
    rows.append(TokenRow(rows[2].ids, (1,)))
    for limit in (1 << 29, 1):
        monkeypatch.setattr("whatstuck.dynamics.teacher_forcing._LOGIT_BYTES", limit)
        for row, scores in zip(rows, score_tokens(model, rows, 1), strict=True):
            found = (scores.nll, scores.accuracy, scores.smallest_margin, scores.mean_margin)
            assert found == pytest.approx(by_hand(model, row), abs=1e-4)


def test_rows_are_read_as_the_trainer_feeds_them() -> None:
    labelled = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8], "row_id": "a"}]
    assert trained_rows(labelled)[0].tokens == TokenRow((5, 6, 7, 8), (2, 3))
    assert trained_rows(labelled)[0].row_id == "a"
    masked = [{"input_ids": [5, 6, 7, 8], "completion_mask": [0, 1, 1, 1], "assistant_masks": [0, 0, 1, 1]}]
    assert trained_rows(masked)[0].tokens.predicted == (2, 3)
    plain = trained_rows([{"input_ids": [5, 6, 7]}, {"input_ids": [5, 6, 7]}])
    assert [row.tokens.predicted for row in plain] == [(1, 2), (1, 2)]
    assert plain[1].row_id == f"{plain[0].row_id}-2"


def test_a_row_without_a_supervised_token_has_no_loss(model: LlamaForCausalLM) -> None:
    rows = trained_rows([{"input_ids": [5, 6], "labels": [-100, -100]}, {"input_ids": [5, 6], "labels": [-100, 6]}])
    table = evaluate_rows(model, rows, 1)
    assert table.schema.equals(SCHEMA)
    assert table["tokens"].to_pylist() == [0, 1]
    assert table["nll"].to_pylist()[0] is None
    assert table["nll"].to_pylist()[1] > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (iter([{"input_ids": [1]}]), "stream"),
        ([{"text": "a"}], "not tokenized"),
        ([{"input_ids": [1, 2], "seq_lengths": [1, 1]}], "packed"),
    ],
)
def test_rows_that_cannot_be_followed_are_refused(rows: object, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        trained_rows(rows)


def test_the_callback_writes_them_at_every_probe(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(
        tiny_heldout, tmp_path / "run", steps=[2, 6], probe_budget=None, players=3, rows=2, eval_rows=8,
        trajectories=True,
    )  # fmt: skip
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=6)
    trainer.train()
    assert probe.failure is None
    found = {}
    for step in (0, 2, 6):
        table = pa.parquet.read_table(tmp_path / "run" / "trajectories" / f"step-{step:06d}.parquet")
        assert table.schema.remove_metadata().equals(SCHEMA)
        found[step] = dict(zip(table["row_id"].to_pylist(), table["nll"].to_pylist(), strict=True))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base)
    rows = trained_rows(Rows(tokenizer, tiny_rows))
    assert list(found[6]) == [row.row_id for row in rows]
    trained = trainer.model.eval()
    for row in rows[:5]:
        assert found[6][row.row_id] == pytest.approx(by_hand(trained, row.tokens)[0], abs=1e-4)
    assert sum(found[6].values()) < sum(found[0].values())
    assert whatstuck.load_run(tmp_path / "run").steps == [0, 2, 6]

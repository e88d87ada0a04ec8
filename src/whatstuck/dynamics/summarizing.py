"""From the parts of a run to its metrics, verdict and report. Reads the run folder only."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.explaining import PERTURBED, PERTURBED_ROWS, Setting, ValueTables, effects_of, read_probe
from whatstuck.dynamics.metrics import MAIN_TAU, Metrics, Probe
from whatstuck.dynamics.records import Recorder
from whatstuck.dynamics.statements import statements
from whatstuck.dynamics.verdict import decide, record_heldout
from whatstuck.report import write_report
from whatstuck.runs import RunFolder, read_table, step_name, step_of, table_metadata, write_json, write_table


def summarize(run: RunFolder, *, seed: int) -> None:
    """Write metrics.parquet, verdict.json and report.html of a run whose interactions are complete."""
    section = run.manifest()["track"]
    rows = read_table(run.part("rows.parquet"))
    row_ids: list[str] = rows["row_id"].to_pylist()
    players = section["settings"]["players"]
    model = section["model"]["name"]
    parts = _interactions(run, model)
    numbers = section["settings"]
    settings = [Setting(share, numbers["noise_scale"]).name for share in numbers["noise_bound"]]
    heldout = {step_of(path): read_table(path) for path in sorted(run.part("heldout").glob("step-*.parquet"))}
    tables = []
    for index, setting in enumerate(settings):
        recorder = Recorder(model, setting)
        probes = [read_probe(values, table, setting, row_ids, players) for values, table in parts]
        baselines: dict[str, Probe] = {}
        for entry in section["baselines"]:
            values, table = _interactions(run, entry["name"])[0]
            baselines[entry["name"]] = read_probe(values, table, setting, row_ids, players)
        Metrics(probes, players, recorder, seed=seed).compute(baselines)
        _trust(parts, setting, row_ids, players, recorder, perturbed=not index)
        if not index:
            record_heldout(heldout, recorder, seed=seed)
        tables.append(recorder.table())
    metrics = pa.concat_tables(tables)
    write_table(run.part("metrics.parquet"), metrics)
    sentences = statements(metrics, settings[0])
    verdict = decide(heldout, section["trainer_state"], metrics, sentences, seed=seed)
    write_json(run.part("verdict.json"), verdict)
    write_report(run.path)


def _interactions(run: RunFolder, model: str) -> list[tuple[ValueTables, pa.Table]]:
    """Values and interactions of a model, in order of steps."""
    paths = sorted(run.part("values", model).glob("step-*.safetensors"), key=step_of)
    return [
        (ValueTables.read(path), read_table(run.part("interactions", model, step_name(step_of(path), "parquet"))))
        for path in paths
    ]


def _trust(
    parts: Sequence[tuple[ValueTables, pa.Table]],
    setting: str,
    row_ids: Sequence[str],
    players: int,
    recorder: Recorder,
    *,
    perturbed: bool,
) -> None:
    """Certified gaps, the noise floor, and what noise of that size does to the salient set."""
    tau = MAIN_TAU * parts[0][0].scale
    for values, table in parts:
        gaps = np.array(table_metadata(table)[setting]["gap"])
        recorder.add(values.step, "gap", "all", (float(np.median(gaps)), gaps.min(), gaps.max()))
        if not perturbed:
            continue
        nothing: Any = (math.nan, math.nan)
        recorder.add(values.step, "noise_floor", "all", (values.noise_floor, *nothing))
        some = [row_ids[index] for index in values.row_index[:PERTURBED_ROWS]]
        before, after = (
            np.abs(effects_of(_only(table, some), name, {row: i for i, row in enumerate(some)}, len(some), players))
            > tau
            for name in (setting, setting + PERTURBED)
        )
        created = (after & ~before).sum((1, 2))
        flipped = (after != before).sum((1, 2))
        for metric, counts in (("salient_from_noise", created), ("salient_flipped_by_noise", flipped)):
            value = (float(counts.mean()), float(counts.min()), float(counts.max()))
            recorder.add(values.step, metric, "all", value, rule="fixed", tau=MAIN_TAU)


def _only(table: pa.Table, row_ids: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["row_id"], pa.array(row_ids)))

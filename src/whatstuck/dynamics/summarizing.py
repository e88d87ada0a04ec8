"""From the parts of a run to its metrics, verdict and report. Reads the run folder only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck._version import __version__
from whatstuck.dynamics.circumstances import Training
from whatstuck.dynamics.explaining import PERTURBED, PERTURBED_ROWS, ValueTables, settings_of
from whatstuck.dynamics.metrics import MAIN_TAU, Metrics
from whatstuck.dynamics.probing import effects_of, read_probe
from whatstuck.dynamics.records import Recorder
from whatstuck.dynamics.statements import statements
from whatstuck.dynamics.verdict import decide, record_cost, record_heldout
from whatstuck.files import file_hash
from whatstuck.report import write_report
from whatstuck.runs import (
    Json,
    RunFolder,
    content_hash,
    read_table,
    step_name,
    table_metadata,
    write_json,
    write_table,
)
from whatstuck.stopping.replay import default_rules


def summarize(run: RunFolder, *, seed: int) -> None:
    """Write metrics.parquet, verdict.json and report.html of a run whose interactions are complete.

    Nothing is computed again while the parts that it rests on are the same.
    """
    section = run.manifest()["track"]
    model = section["model"]["name"]
    steps = [entry["step"] for entry in section["checkpoints"]]
    inputs = _inputs(run, section)
    path = run.part("metrics.parquet")
    done = path.exists() and run.part("verdict.json").exists()
    if not done or table_metadata(read_table(path)).get("inputs") != inputs:
        losses = {step: run.part("heldout", step_name(step, "parquet")) for step in steps}
        heldout = {step: read_table(part) for step, part in losses.items() if part.exists()}
        metrics = _metrics(run, section, _parts(run, model, steps), heldout, seed)
        main = _settings(section)[0]
        training = _training(run, section, heldout)
        verdict = decide(training, metrics, statements(metrics, main), setting=main, seed=seed)
        if verdict["keep_step"] is not None:
            costs = Recorder(model, main)
            record_cost(heldout, verdict["keep_step"], costs, seed=seed)
            metrics = pa.concat_tables([metrics, costs.table()])
        write_table(path, metrics, {"inputs": inputs})
        write_json(run.part("verdict.json"), verdict)
    write_report(run.path)


def finish(run: RunFolder) -> None:
    """Summarize a run of a training that ended, or was killed, before it could do so itself; others are left alone."""
    section = run.manifest().get("track", {})
    if "live" in section and section["checkpoints"] and not run.part("verdict.json").exists():
        with run.writing():
            summarize(run, seed=section["seed"])


def _training(run: RunFolder, section: Json, heldout: Mapping[int, pa.Table]) -> Training:
    """What run.json says of the training, and which of its checkpoints are still there."""
    live = section.get("live", {})
    saved, gone = _checkpoints(run, section)
    chosen, named = live.get("chosen"), live.get("rule")
    decides_anyway = named is None or named == default_rules()[0].name
    return Training(
        heldout,
        logged={name: [(step, value) for step, value in pairs] for name, pairs in section["trainer_state"].items()},
        epochs=dict(section.get("epochs", [])),
        saved=saved,
        gone=gone,
        diverged=section["diverged"],
        assumed=section["data"]["assumed"],
        trained_on=section["data"].get("trained_on", 0),
        chosen=chosen,
        unasked=None if chosen is not None or decides_anyway else named,
    )


def _checkpoints(run: RunFolder, section: Json) -> tuple[list[int], list[int]]:
    """Steps that were saved: those that are there, and those that are gone.

    Trainers delete checkpoints while they train; one has a protected copy in the run folder. What was probed
    afterwards was there then, and moving it since makes it no worse.
    """
    saved = [entry for entry in section["checkpoints"] if entry["path"] is not None]
    gone = [entry["step"] for entry in saved if "live" in section and entry["step"] and not run.has_checkpoint(entry)]
    return [entry["step"] for entry in saved if entry["step"] not in gone], gone


def _inputs(run: RunFolder, section: Json) -> str:
    """Hash of all that metrics and verdict rest on."""
    names = [section["model"]["name"], *(entry["name"] for entry in section["baselines"])]
    parts = [run.part("rows.parquet"), *run.part("heldout").glob("*.parquet")]
    for name in names:
        parts += run.part("interactions", name).glob("*.parquet")
    hashes = {str(part.relative_to(run.path)): file_hash(part) for part in parts}
    described = [section[key] for key in ("settings", "seed", "checkpoints", "trainer_state", "diverged")]
    data, live = section["data"], section.get("live", {})
    described += [section.get("epochs", []), data["assumed"], data.get("trained_on", 0)]
    described += [live.get("rule"), live.get("chosen"), _checkpoints(run, section)]
    return content_hash([__version__, names, described, hashes])


def _settings(section: Json) -> list[str]:
    """Names of the extraction settings, the main one first."""
    return [setting.name for setting in settings_of(section["settings"])]


def _metrics(
    run: RunFolder,
    section: Json,
    parts: Sequence[tuple[ValueTables, pa.Table]],
    heldout: Mapping[int, pa.Table],
    seed: int,
) -> pa.Table:
    """Every statistic under every extraction setting."""
    row_ids: list[str] = read_table(run.part("rows.parquet"))["row_id"].to_pylist()
    players = section["settings"]["players"]
    others = {entry["name"]: _parts(run, entry["name"], [0])[0] for entry in section["baselines"]}
    tables = []
    for index, setting in enumerate(_settings(section)):
        recorder = Recorder(section["model"]["name"], setting)
        probes = [read_probe(values, table, setting, row_ids, players) for values, table in parts]
        baselines = {
            name: read_probe(values, table, setting, row_ids, players) for name, (values, table) in others.items()
        }
        one_token = not section["settings"]["whole_target"]
        Metrics(probes, players, recorder, seed=seed, one_token=one_token).compute(baselines)
        _trust(parts, setting, row_ids, players, recorder, perturbed=not index)
        if not index:
            record_heldout(heldout, recorder, seed=seed)
        tables.append(recorder.table())
    return pa.concat_tables(tables)


def _parts(run: RunFolder, model: str, steps: Sequence[int]) -> list[tuple[ValueTables, pa.Table]]:
    """Values and interactions of a model at each step."""
    return [
        (
            ValueTables.read(run.part("values", model, step_name(step, "safetensors"))),
            read_table(run.part("interactions", model, step_name(step, "parquet"))),
        )
        for step in steps
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

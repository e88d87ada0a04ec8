"""Variants against arms at the last step, under a heading for each kind of variant; and how each variant is asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.generalization.survival import BEYOND
from whatstuck.report.metrics import Stat
from whatstuck.report.reading_generalization import Cell, GeneralizationRun
from whatstuck.report.words import measured

KINDS: Mapping[str, tuple[str, str]] = {
    "training": ("Training wording", "As in the training; whether these rows were trained on is not known."),
    "instruction": ("Other instructions", "The same task, with other meanings given in the instruction."),
    "wording": ("Other wordings", "The same in other words."),
    "harder": ("Harder cases", "More to do than in the training."),
    BEYOND: (
        "Meanings beyond the range",
        "The instruction gives meanings outside of the range of the training's. An arm that ignores it fails here.",
    ),
    "fake": (
        "Fake",
        "A new instruction is shown and the old meaning scored: success here means that the instruction is ignored.",
    ),
}
_NEW = ("instruction", BEYOND)
_UNSEEN = "As in the training, on contents that the task keeps out of its training rows."
SMALL = 0.05  # chance that needs no mention


def rank(kind: str) -> int:
    """Place of a kind of variant in the table."""
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def variant_table(
    run: GeneralizationRun, variants: Sequence[Mapping[str, Any]], decoding: str, *, text: bool
) -> list[dict[str, Any]]:
    """By kind, a line per variant, with each arm at its last step.

    Args:
        run: The run.
        variants: What to show, kinds together.
        decoding: How the replies were made.
        text: Whether to show the meanings that instructions give.
    """
    last = {arm: run.last(arm, decoding) for arm in run.arms}
    groups: dict[str, list[dict[str, Any]]] = {}
    usual = next((dict(v.get("shift") or {}) for v in variants if v.get("kind") == "training"), {})
    for variant in variants:
        name = str(variant["name"])
        cells = [last[arm].get(name) for arm in run.arms]
        if any(cells):
            kind = str(variant["kind"])
            shown = [{"right": _shown(cell), "old": _old(cell, kind)} for cell in cells]
            line = {"name": name, "asked": _asked(variant, usual, text=text), "cells": shown}
            groups.setdefault(kind, []).append(line)
    return [_group(kind, lines, unseen=run.about.get("unseen") is True) for kind, lines in groups.items()]


def _group(kind: str, lines: Sequence[Mapping[str, Any]], *, unseen: bool) -> dict[str, Any]:
    title, meaning = KINDS.get(kind, (kind, ""))
    return {"title": title, "meaning": _UNSEEN if unseen and kind == "training" else meaning, "lines": lines}


def _shown(cell: Cell | None) -> dict[str, str]:
    if cell is None:
        return {"value": "not asked", "around": "", "more": ""}
    more = [f"valid {measured(cell.validity, share=True)}"] if cell.validity.value is not None else []
    if cell.chance.value is not None and cell.chance.value >= SMALL:
        more.append(f"by chance {measured(cell.chance, share=True)}")
    return {**_split(cell.success), "more": "; ".join(more)}


def has_old(run: GeneralizationRun) -> bool:
    """Whether it is known of any variant how often the old instruction is obeyed."""
    return any(cell.old.value is not None for arm in run.arms for cell in run.last(arm, run.decodings[0]).values())


def _old(cell: Cell | None, kind: str) -> dict[str, str] | None:
    """Where an instruction is new and the old meaning is not what is scored, it is asked for; elsewhere it is empty."""
    if cell is None or (cell.old.value is None and kind not in _NEW):
        return None
    return _split(cell.old)


def _split(stat: Stat) -> dict[str, str]:
    value, _, around = measured(stat, share=True).partition(" (")
    return {"value": value, "around": around.removesuffix(")"), "more": ""}


def _asked(variant: Mapping[str, Any], usual: Mapping[str, Any], *, text: bool) -> list[str]:
    """How a variant differs from the training wording, whose difficulty is the usual one."""
    said = []
    shown, scored = mapping_pairs(variant.get("shown")), mapping_pairs(variant.get("scored"))
    if text and shown:
        said.append(f"shown: {_mapping(shown)}")
    if text and scored and scored != shown:
        said.append(f"scored: {_mapping(scored)}")
    shift = {name: value for name, value in (variant.get("shift") or {}).items() if usual.get(name) != value}
    if shift:
        said.append(", ".join(f"{name} {value}" for name, value in shift.items()))
    wording = str(variant.get("wording") or "training")
    return said + ([f"wording {wording}"] if wording not in ("training", variant["name"]) else [])


def mapping_pairs(mapping: Any) -> list[tuple[str, str]]:
    """Names and their meanings, as run.json has them."""
    pairs = mapping.get("pairs") if isinstance(mapping, dict) else None
    return [(str(name), str(meaning)) for name, meaning in pairs or ()]


def _mapping(pairs: Sequence[tuple[str, str]]) -> str:
    """Names with their meanings; where all mean themselves, the words alone."""
    if all(name == meaning for name, meaning in pairs):
        return ", ".join(name for name, _ in pairs)
    return ", ".join(f"{name} = {meaning}" for name, meaning in pairs)

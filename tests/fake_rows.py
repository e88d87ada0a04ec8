"""A layout fixture: what `rows` and `intervene` leave in a run folder, with made-up numbers of a plausible shape.

For the tests of the page and of the export, and of nothing else. No number in it says anything about any model.
"""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from whatstuck.rows.causes.names import PRECEDENCE
from whatstuck.rows.schemas import UNLEARNED, VERDICTS
from whatstuck.rows.trajectories import SCHEMA

CAUSES = (*PRECEDENCE, "unexplained")
EMOTIONS = ("joy", "anger", "fear", "neutral", "grief", "pride")
WORDS = ("I", "really", "cannot", "believe", "that", "you", "like", "this", "film")
SENTENCES = {
    "present": "{0} of the 4 rows that ask the same answer “{1}”, this one answers otherwise.",
    "absent": "No row that is similar to it answers otherwise (the nearest has {0}).",
    "not_measured": "No base model was given, so its answers are not known.",
}


@dataclass
class FakeRows:
    """Writes the folder, or adds to one that is there.

    Attributes:
        rows: Rows of the training file.
        steps: Checkpoints with trajectories.
        prompts: Prompt by place in the file, in place of a made-up one.
        gold: Answer by place in the file.
        words: Words of a made-up prompt.
        measured: Whether the base model was there, so that two of the causes are measured.
        treated: Causes that were intervened on.
        summary: What is said in place of the made-up summary's values.
        learned: Share of the rows that are learned.
        unasked: Place in the file of rows that could not be asked, and why.
        paper_known: Whether the paper's order of tests could be followed.
        settings: Settings besides the made-up ones.
        warnings: Warnings of the run.
        seed: Seed of the made-up numbers.
    """

    rows: int = 40
    steps: tuple[int, ...] = (0, 20, 40, 80, 120, 160)
    prompts: dict[int, str] = field(default_factory=dict)
    gold: dict[int, str] = field(default_factory=dict)
    words: int = 12
    measured: bool = True
    treated: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    learned: float = 0.6
    unasked: dict[int, str] = field(default_factory=dict)
    paper_known: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seed: int = 0

    def write(self, folder: Path) -> Path:
        """Write the parts of `rows`, beside what the folder holds already, and return its path."""
        self.random = random.Random(self.seed)
        folder.mkdir(parents=True, exist_ok=True)
        verdicts = [self._verdict(index) for index in range(self.rows)]
        self._trajectories(folder, verdicts)
        pq.write_table(pa.Table.from_pylist(verdicts, schema=VERDICTS), folder / "verdicts.parquet")
        lost = sorted(
            (v for v in verdicts if v["verdict"] in ("unstable", "unlearned")), key=lambda v: (v["rate"], -v["nll"])
        )
        unlearned = [self._cause(verdict, verdicts) for verdict in lost]
        pq.write_table(pa.Table.from_pylist(unlearned, schema=UNLEARNED), folder / "unlearned.parquet")
        path = folder / "run.json"
        manifest = json.loads(path.read_text()) if path.exists() else {"format_version": 1}
        manifest["rows"] = self._section(verdicts, unlearned)
        if self.treated:
            manifest["interventions"] = {"settings": {"seeds": 3}} | {
                cause: self._treated(cause) for cause in self.treated
            }
        path.write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    def _verdict(self, index: int) -> dict[str, Any]:
        rate = 1.0 if self.random.random() < self.learned else self.random.choice([0, 0, 0, 4]) / 16
        verdict = "learned" if rate == 1 else "unstable" if rate else "unlearned"
        words = self.random.choices(WORDS, k=self.words)
        gold = self.gold.get(index, self.random.choice(EMOTIONS))
        wrong = str(self.random.choice([emotion for emotion in EMOTIONS if emotion != gold]))
        asked = verdict != "learned"
        if index in self.unasked:
            return {
                "row_id": f"row-{index:05d}",
                "source_index": index,
                "prompt": self.prompts.get(index, f"{' '.join(words)} {index}?"),
                "gold": gold,
                "verdict": "not_asked",
                "form": "choices",
                "asked_because": "screen",
                "not_asked": self.unasked[index],
                "samples": 0,
                "rate": math.nan,
                "tokens": 2,
            }
        return {
            "row_id": f"row-{index:05d}",
            "source_index": index,
            "prompt": self.prompts.get(index, f"{' '.join(words)} {index}?"),
            "gold": gold,
            "verdict": verdict,
            "form": "generated" if asked else "screened",
            "asked_because": "screen" if asked else "",
            "not_asked": "" if asked else None,
            "samples": 16 if asked else 0,
            "right": int(16 * rate) if asked else 0,
            "first_right": 0,
            "greedy_right": False if asked else None,
            "rate": rate,
            "rate_low": max(0.0, rate - 0.1),
            "rate_high": min(1.0, rate + 0.2),
            "paper_unlearned": asked and self.random.random() < 0.8,
            "greedy": wrong if asked else None,
            "top_wrong": wrong if asked else None,
            "top_wrong_share": 0.75 if asked else None,
            "tokens": 2,
            "forgetting_events": 0,
            "last_exposure_step": self.random.randrange(160),
            "exposures": self.random.randrange(1, 5),
        }

    def _trajectories(self, folder: Path, verdicts: list[dict[str, Any]]) -> None:
        last = max(self.steps, default=0) or 1
        for step in self.steps:
            records = []
            for verdict in verdicts:
                stuck = verdict["verdict"] == "unlearned"
                loss = float((2.2 if stuck else 3.5 * math.exp(-4 * step / last)) + 0.2 * self.random.random())
                right = self.random.random() < 0.05 if stuck else loss < 1
                verdict["nll"], verdict["token_accuracy"] = loss, float(right)
                records.append({"row_id": verdict["row_id"], "tokens": 2, "nll": loss, "correct": right})
            path = folder / "trajectories" / f"step-{step:06d}.parquet"
            path.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), path)
        if not self.steps:
            for verdict in verdicts:
                verdict["nll"] = 1.0

    def _cause(self, verdict: dict[str, Any], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
        cause = self.random.choice(CAUSES)
        if not self.measured and cause in ("base_conflict", "knowledge_missing"):
            cause = "unexplained"
        neighbour = verdicts[self.random.randrange(self.rows)]
        conflict = cause == "data_conflict"
        return {
            "row_id": verdict["row_id"],
            "verdict": verdict["verdict"],
            "cause": cause,
            "secondary": ["more_training"] if cause == "forgotten" else [],
            "margin": 0.4,
            "ambiguous": self.random.random() < 0.2,
            "paper_cause": ("knowledge_missing" if self.random.random() < 0.7 else cause) if self.paper_known else None,
            "evidence": [self._evidence(name, cause) for name in PRECEDENCE],
            "conflict_group": "group-1" if conflict else None,
            "neighbours": [{"row_id": neighbour["row_id"], "gold": neighbour["gold"], "similarity": 0.93}]
            if conflict
            else [],
            "advice": f"Look at the row {neighbour['row_id']} and keep one answer, for instance “{verdict['gold']}”.",
        }

    def _evidence(self, name: str, cause: str) -> dict[str, Any]:
        status = "present" if name == cause else "absent"
        if not self.measured and name in ("base_conflict", "knowledge_missing"):
            status = "not_measured"
        number, word = round(self.random.random(), 5), self.random.choice(EMOTIONS)
        return {
            "cause": name,
            "status": status,
            "score": None if status == "not_measured" else number,
            "numbers": json.dumps({"similarity": number}),
            "sentence": SENTENCES[status].format(number, word),
        }

    def _section(self, verdicts: list[dict[str, Any]], unlearned: list[dict[str, Any]]) -> dict[str, Any]:
        counts = {name: sum(v["verdict"] == name for v in verdicts) for name in ("learned", "unstable", "unlearned")}
        judged = max(1, self.rows - len(self.unasked))
        share, lost = counts["unlearned"] / judged, (counts["unlearned"] + counts["unstable"]) / judged
        missing = {"base_conflict": "No base model was given.", "knowledge_missing": "No base model was given."}
        summary = {
            "rows": self.rows,
            **counts,
            "not_asked": len(self.unasked),
            "share_not_learned": [lost, 0.9 * lost, min(1.0, 1.1 * lost)],
            "share_unlearned": [share, 0.8 * share, 1.2 * share],
            "paper_share": [0.9 * share, 0.7 * share, 1.1 * share],
            "miss_rate": [0.0, 0.0, 0.12],
            "causes": {name: sum(row["cause"] == name for row in unlearned) for name in CAUSES},
            "paper_causes": {},
            "not_measured": {} if self.measured else missing,
            "converged": True,
            "statements": ["24 rows that passed the screen were asked as well."],
        }
        return {
            "settings": {"temperature": 0.7, "thresholds": {"samples": 16}} | self.settings,
            "model": {"name": "tiny-base", "path": "/home/me/models/tiny-base"},
            "checkpoints": [
                {"step": step, "path": f"x/{step}", "kind": "adapter", "fingerprint": "ab"} for step in self.steps
            ],
            "data": {"path": "/home/me/train.jsonl", "sha256": "cd" * 32, "rows": self.rows},
            "training": {"source": "trl", "sentence": "What was trained on is read from the trainer's own settings."},
            "summary": summary | self.summary,
            "warnings": list(self.warnings),
            "versions": {"whatstuck": "0.1.0"},
            "dtype": "float32",
            "seed": 0,
            "seconds": 31.5,
        }

    def _treated(self, cause: str) -> dict[str, Any]:
        arms = {"rerun": 0.08, "more_compute": 0.2, "sham": 0.1, cause: 0.7}
        arms["base_conflict" if cause == "data_conflict" else "data_conflict"] = 0.15
        return {
            "verdict": "supported",
            "effect": [0.5, 0.31, 0.66],
            "specificity": [0.55, 0.3, 0.7],
            "collateral": [0.02, 0.0, 0.05],
            "arms": {
                arm: {
                    "recovery": [value, max(0.0, value - 0.08), value + 0.1],
                    "note": f"What {arm} did.",
                    "rows": 60,
                    "seeds": 3,
                    "paraphrases": [0.8 * value, max(0.0, 0.8 * value - 0.1), value] if arm == cause else [None] * 3,
                }
                for arm, value in arms.items()
            },
            "p_value": 0.0004,
            "q_value": 0.0012,
            "sentences": ["42 of 60 rows came back with the treatment, 12 with more training alone."],
        }

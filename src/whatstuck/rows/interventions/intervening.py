"""Run the arms that test a cause, ask every trained model, and say what helped.

A part is what the model of one arm and seed answered. A part that is there is not made again, so a killed call goes on
where it stopped and ends in the same table.
"""

import logging

import pyarrow as pa

from whatstuck.errors import WhatStuckError, require
from whatstuck.progress import Task
from whatstuck.rows.causes.names import Cause
from whatstuck.rows.interventions.arms import design, possible
from whatstuck.rows.interventions.effects import effects
from whatstuck.rows.interventions.gathering import Gathered
from whatstuck.rows.interventions.identity import identity_of, refuse_changes
from whatstuck.rows.interventions.phases import Arm, Original, Runner
from whatstuck.rows.interventions.quick import quick_probes
from whatstuck.rows.interventions.sentences import as_json
from whatstuck.rows.interventions.settings import InterveneSettings
from whatstuck.rows.interventions.training import TrainingRunner
from whatstuck.rows.schemas import INTERVENTIONS
from whatstuck.runs import Json, RunFolder, read_table, write_table

logger = logging.getLogger(__name__)

TABLE = "interventions.parquet"
SECTION = "interventions"

# Another cause whose treatment costs the user nothing, to see whether any change would have helped.
_OTHERS: tuple[Cause, ...] = ("forgotten", "data_conflict", "more_training")

_ASSUMED = "Nothing says how the rows were fed: every arm trains them whole, as they are asked."


def intervene(settings: InterveneSettings, *, runner: Runner | None = None) -> Json:
    """Test one cause of a run.

    Args:
        settings: The settings.
        runner: What trains the arms; by default TRL, as the first training was.

    Returns:
        What run.json says about the cause: verdict, effect, arms, sentences; with `quick`, what the probes say.

    Raises:
        MissingExtraError: If TRL, PEFT or scipy is not installed.
        WhatStuckError: If the run has no such rows, its training is not known, or something that the treatment is
            made of is missing.
    """
    run = RunFolder(settings.run)
    if not (run.path / "run.json").exists():
        raise WhatStuckError(f"{run.path} is no run folder: run `whatstuck rows` first")
    if not settings.quick:
        require("scipy.stats", "rows")  # it is needed at the end, and what is before it takes hours
    with run.writing():
        gathered = Gathered(settings)
        if settings.quick:
            return _probe(run, gathered)
        folder = run.part("interventions", settings.cause)
        trainer = TrainingRunner(folder, gathered.recipe, device=gathered.material.device, keep=settings.keep_models)
        original = gathered.original(trainer.batch)
        others = settings.others if settings.others is not None else default_others(settings.cause, original)
        arms = design(
            settings.cause, gathered.targets, original, others=others, seed=settings.seed, options=settings.options
        )
        refuse_changes(folder / "design.json", identity_of(gathered, arms, original))
        _answer(gathered, runner, trainer, arms)
        return _conclude(run, gathered, arms)


def default_others(cause: Cause, original: Original) -> list[Cause]:
    """The first cause of another kind whose treatment can be made."""
    there = possible(original)
    return [other for other in _OTHERS if other != cause and other in there][:1]


def plan(settings: InterveneSettings) -> Json:
    """What a call would train: arms, trainings, and steps in all; nothing is written."""
    gathered = Gathered(settings)
    trainer = TrainingRunner(settings.run / "interventions" / settings.cause, gathered.recipe)
    original = gathered.original(trainer.batch)
    others = settings.others if settings.others is not None else default_others(settings.cause, original)
    arms = design(settings.cause, gathered.targets, original, others=others, options=settings.options)
    steps = {arm.name: sum(phase.steps for phase in arm.phases) for arm in arms}
    return {
        "cause": settings.cause,
        "rows": len(gathered.targets),
        "learned_rows": len(gathered.interview.roles) - len(gathered.targets),
        "arms": {arm.name: arm.note for arm in arms},
        "steps": steps,
        "trainings": len(arms) * settings.seeds,
        "steps_in_all": sum(steps.values()) * settings.seeds,
    }


def seeds_of(settings: InterveneSettings, first: int) -> list[int]:
    """Seeds of the trainings: none of them is that of the first training."""
    return [first + 1 + number for number in range(settings.seeds)]


def write_section(run: RunFolder, cause: str, content: Json) -> None:
    """Put what is known about one cause into run.json."""
    run.write_section(SECTION, run.manifest().get(SECTION, {}) | {cause: content})


def _probe(run: RunFolder, gathered: Gathered) -> Json:
    """The quick probes; what they say stands beside what arms have shown, or will."""
    cause = gathered.settings.cause
    known = run.manifest().get(SECTION, {}).get(cause, {})
    before = _quick_sentences(known)
    found = quick_probes(gathered)
    said = [sentence for sentence in known.get("sentences", []) if sentence not in before]
    now = _quick_sentences({"quick": found})
    write_section(run, cause, known | {"quick": found, "sentences": said + now})
    return found | {"sentences": now}


def _quick_sentences(entry: Json) -> list[str]:
    return [probe["sentence"] for probe in entry.get("quick", {}).values() if probe is not None]


def _answer(gathered: Gathered, runner: Runner | None, trainer: TrainingRunner, arms: list[Arm]) -> None:
    """Train and ask every arm with every seed.

    A call may be killed between the answers and the end of the arm, so what is answered is cleared away again.
    """
    settings, interview = gathered.settings, gathered.interview
    folder = RunFolder(settings.run).part("interventions", settings.cause)
    seeds = seeds_of(settings, int(gathered.recipe.settings.get("seed") or 0))
    with Task("arms", len(arms) * len(seeds)) as task:
        for seed in seeds:
            for arm in arms:
                part = folder / arm.name / f"seed-{seed}.parquet"
                task.say(f"{arm.name}, seed {seed}")
                if part.exists():
                    if not settings.keep_models:
                        trainer.forget(arm, seed)
                    task.advance(free=True)
                    continue
                with (runner or trainer).run(arm, seed) as model:
                    write_table(part, interview.hold(model, gathered.material.tokenizer, arm, seed))
                task.advance()


def _conclude(run: RunFolder, gathered: Gathered, arms: list[Arm]) -> Json:
    """The table of all causes, and what it says."""
    settings = gathered.settings
    assumed = [] if gathered.material.fed_known else [_ASSUMED]
    files = sorted(run.part("interventions").glob("*/*/seed-*.parquet"))
    table = pa.concat_tables([INTERVENTIONS.empty_table(), *(read_table(file) for file in files)])
    write_table(run.part(TABLE), table.replace_schema_metadata(None))
    found = effects(table, seed=settings.seed)
    before = run.manifest().get(SECTION, {})
    notes = {arm.name: arm.note for arm in arms}
    for cause, effect in found.items():  # q-values of all causes change with each of them
        known = before.get(cause, {})
        ours = {"settings": settings.fixed(), "notes": notes} if cause == settings.cause else {}
        entry = as_json(effect, known.get("notes", {}) | ours.get("notes", {}))
        entry["sentences"] += assumed + _quick_sentences(known)
        before[cause] = known | entry | ours
    run.write_section(SECTION, before)
    return dict(before[settings.cause])

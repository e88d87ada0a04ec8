"""Which treatment recovers the rows of which cause: the arms of `whatstuck intervene`, trained by the small loop.

Causes are those that the product named, not those that were planted. Supporting texts are the missing facts in the
wordings of the pretraining, general ones other facts of it. That phase is a pretraining, so it trains the embeddings as
well; in all others they stay frozen. I and II have one and the same treatment here.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from operator import itemgetter

import numpy as np
import pyarrow as pa
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from planted_training import END, LOWEST, Recipe, learn, schedule
from planted_world import STATEMENTS, Fact, World
from ratios import say
from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.rows.causes.conflicts import Conflicts
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.interventions.arms import CONTROLS, Arm, Options, Original, Phase, design, possible
from whatstuck.rows.interventions.effects import recovery_matrix
from whatstuck.rows.interventions.orders import sequence
from whatstuck.rows.interventions.phases import Order
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.schemas import INTERVENTIONS
from whatstuck.rows.verdicts.answers import normalized
from whatstuck.training.resampler import Resampler

OPTIONS = Options(supporting_passes=40, more_epochs=1)
"""One more epoch is one more schedule, see `SmallRunner`; of which a part is taken."""
_CONTINUATION = 4  # a continuation is as long as this part of the training
_CHECKS = 10  # of the rows, in a training that resamples
_CONSTANT = 0.3  # rate of a continuation, as a share of the peak
_FEWEST = 5  # rows of a cause, for it to stand in the matrix


class SmallRunner:
    """Trains arms with the small loop; a `Runner` of `rows.interventions.phases`.

    The rows of a main phase stand in it as often as they are trained, in the order of a schedule, so that `given`
    keeps the plants of order and exposures, and `shuffled` keeps those of exposures. Every other phase goes over its
    rows equally often.

    Args:
        base: The base model; it is not changed.
        fed: Rows and texts as they are fed.
        asked: Rows as they are asked, with their ends.
        times: How often a row is trained that was left out and comes back.
        recipe: Rate and batch.
    """

    def __init__(
        self,
        base: LlamaForCausalLM,
        fed: Mapping[str, TokenRow],
        asked: Mapping[str, TokenRow],
        times: Mapping[str, int],
        recipe: Recipe,
    ) -> None:
        self._base, self._fed, self._asked, self._times, self._recipe = base, fed, asked, times, recipe

    @contextmanager
    def run(self, arm: Arm, seed: int) -> Iterator[LlamaForCausalLM]:
        """The trained model in eval mode."""
        model = copy.deepcopy(self._base)
        for phase in arm.phases:
            self._train(model, phase, arm, seed)
        yield model.eval()

    def _train(self, model: LlamaForCausalLM, phase: Phase, arm: Arm, seed: int) -> None:
        batch, pad = self._recipe.batch, model.config.pad_token_id
        rows = self._with_returned(phase.rows) if phase.name == "main" else tuple(dict.fromkeys(phase.rows))
        order: Order = phase.order if phase.name == "main" else "shuffled"
        drawn = Resampler(
            sequence(replace(phase, rows=rows, order=order), batch=batch, seed=seed),
            seed=seed,
            sham=phase.resample == "random",
            spared=phase.spared,
        )
        every = max(phase.steps // _CHECKS, 1)

        def check(step: int) -> None:
            if phase.resample == "never" or step % every:
                return
            looked = {row_id: row for row_id in drawn.rows if (row := self._row(row_id, arm)).predicted}
            scores = score_tokens(model.eval(), list(looked.values()), pad)
            drawn.check(
                {row_id for row_id, score in zip(looked, scores, strict=True) if score.correct}, at=step * batch
            )

        draws = iter(drawn)
        batches = ([self._row(row_id, arm) for row_id in islice(draws, batch)] for _ in range(phase.steps))
        rate = self._recipe.rate * (_CONSTANT if phase.constant else 1)
        lowest, pretraining = 1.0 if phase.constant else LOWEST, phase.name == "before"
        learn(model, batches, phase.steps, rate, lowest=lowest, embeddings=pretraining, after=check)

    def _row(self, row_id: str, arm: Arm) -> TokenRow:
        return self._asked[row_id] if row_id in arm.whole else self._fed[row_id]

    def _with_returned(self, rows: tuple[str, ...]) -> tuple[str, ...]:
        """Rows that had been left out stand once at the end: spread over the training as often as others."""
        back = {row_id for row_id in rows if row_id not in self._fed}
        places = [(place / len(rows), row_id) for place, row_id in enumerate(rows) if row_id not in back]
        for row_id in sorted(back):
            times = self._times[row_id]
            places += [((time + 0.5) / times, row_id) for time in range(times)]
        return tuple(row_id for _, row_id in sorted(places, key=itemgetter(0)))


def matrix(  # noqa: PLR0913 - a world, its model, and what was said about it
    base: LlamaForCausalLM,
    world: World,
    rows: Sequence[TrainingRow],
    tokenizer: PreTrainedTokenizerFast,
    named: Mapping[str, str],
    conflicts: Conflicts,
    recipe: Recipe,
    stick: Callable[[LlamaForCausalLM, Sequence[TrainingRow]], Mapping[str, bool]],
    *,
    seed: int,
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Recovery of the rows of each cause in each arm, with its interval over entities.

    Args:
        base: The base model.
        world: The world.
        rows: Its rows.
        tokenizer: Of the model.
        named: Row id to the cause that the product names; rows that it calls unlearned or unstable only.
        conflicts: What the product finds.
        recipe: Rate and batch.
        stick: Which rows a model has learned.
        seed: Of all arms; another one than the first training had.
    """
    targets: dict[Cause, list[str]] = {cause: [i for i in named if named[i] == cause] for cause in PRECEDENCE}
    targets = {cause: ids for cause, ids in targets.items() if len(ids) >= _FEWEST}
    fed, original = _material(world, rows, tokenizer, targets, conflicts, recipe, seed)
    end = int(tokenizer.eos_token_id)
    asked = {row.row_id: TokenRow((*row.asked.ids, end), (*row.asked.predicted, len(row.asked.ids))) for row in rows}
    times = {row.row_id: row.exposures for row in world.rows}
    runner = SmallRunner(base, fed, asked, times, recipe)
    entity = {row.row_id: row.fact.entity for row in world.rows}
    done: dict[object, Mapping[str, bool]] = {}  # many arms train the same, whatever cause they are tried on
    records = []
    for cause, ids in targets.items():
        others = [other for other in targets if other in possible(original)]
        for arm in design(cause, ids, original, others=others, seed=seed, options=OPTIONS):
            trained = (arm.phases, arm.removed, arm.whole)
            if trained not in done:
                say(f"{cause}: {arm.name}")
                with runner.run(_shortened(arm), seed) as model:
                    done[trained] = stick(model, rows)
            records += [
                {
                    "cause": cause,
                    "arm": arm.name,
                    "seed": seed,
                    "row_id": i,
                    "group": entity[i],
                    "role": "removed" if i in arm.removed else "unlearned",
                    "wording": "original",
                    "right": done[trained][i],
                }
                for i in ids
            ]
    return dict(recovery_matrix(pa.Table.from_pylist(records, schema=INTERVENTIONS), seed=seed))


def _shortened(arm: Arm) -> Arm:
    """With shorter continuations: a second whole training would bring back almost anything."""
    phases = (replace(p, steps=p.steps // _CONTINUATION) if p.name == "after" else p for p in arm.phases)
    return replace(arm, phases=tuple(phases))


def _material(
    world: World,
    rows: Sequence[TrainingRow],
    tokenizer: PreTrainedTokenizerFast,
    targets: Mapping[Cause, Sequence[str]],
    conflicts: Conflicts,
    recipe: Recipe,
    seed: int,
) -> tuple[dict[str, TokenRow], Original]:
    """What can be trained, and the training as it was, in another order of the same plan."""
    fed = {row.row_id: row.fed for row in rows if row.fed is not None}
    lacking = {i for cause in ("knowledge_missing", "base_conflict") for i in targets.get(cause, ())}
    supporting = _texts("support", [row.fact for row in world.rows if row.row_id in lacking], tokenizer)
    doubtful = {mention.fact.entity for mention in world.mentions if mention.plant is not None}
    facts = [m.fact for m in world.mentions if m.cure is None and m.weight >= 1 and m.fact.entity not in doubtful]
    general = _texts("general", facts, tokenizer)
    order = tuple(schedule(world, seed))
    answer = {row.row_id: normalized(row.row.completion) for row in rows}
    original = Original(
        rows=order,
        steps=math.ceil(len(order) / recipe.batch),
        batch=recipe.batch,
        order="given",
        conflicts=tuple(tuple((i, answer[i]) for i in group if i in fed) for group in conflicts.groups.values()),
        ill_fed=tuple(row.row_id for row in rows if row.not_trained),
        supporting=tuple(supporting),
        general=tuple(general),
    )
    return {**fed, **supporting, **general}, original


def _texts(kind: str, facts: Sequence[Fact], tokenizer: PreTrainedTokenizerFast) -> dict[str, TokenRow]:
    """Sentences as they are fed: all but the first word is learned."""
    found: dict[str, TokenRow] = {}
    for number, fact in enumerate(facts):
        for wording, frame in enumerate(STATEMENTS):
            text = f"{frame.format(e=fact.entity, r=fact.relation, v=fact.value)} {END}"
            ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            found[f"{kind}-{number}-{wording}"] = TokenRow(ids, tuple(range(1, len(ids))))
    return found


def matrix_table(found: Mapping[tuple[str, str], tuple[float, float, float]]) -> str:
    """The recovery matrix as a Markdown table; the treatment of the row's own cause is bold."""
    causes = list(dict.fromkeys(cause for cause, _ in found))
    arms = [*causes, *(arm for arm in CONTROLS if any(name == arm for _, name in found))]
    lines = [f"| cause \\ arm | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for cause in causes:
        cells = []
        for arm in arms:
            value, low, high = found.get((cause, arm), (np.nan, np.nan, np.nan))
            text = "–" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
            cells.append(f"**{text}**" if arm == cause else text)
        lines.append(f"| {cause} | {' | '.join(cells)} |")
    return "\n".join(lines)

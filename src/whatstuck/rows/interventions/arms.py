"""What is trained to test a cause: the treatment that should undo it, and the controls that should not.

A row that was wrong may be right after another training for many reasons: chance, more steps, a changed order, any
text at all. So every treatment (arXiv 2604.10079 §3.2) stands beside arms that share all of that and lack what is
claimed to help. This file only says what is trained, by ids of rows and texts; it knows no model.

| arm | what it is |
|---|---|
| the cause | its treatment |
| `rerun` | the same training again, with another seed: what chance alone recovers |
| `more_compute` | as many more steps as the treatment has, on other rows; one more epoch where it has none |
| `sham` | the form of the treatment with the wrong content |
| another cause | its treatment, on the same rows: what is not specific |

All arms have the steps of the first training, and more of them only where the treatment is made of more steps; then
`more_compute` and `sham` have as many.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from whatstuck.errors import WhatStuckError
from whatstuck.rows.causes.names import PRECEDENCE, Cause
from whatstuck.rows.interventions.phases import (
    CONTROLS,
    MORE_COMPUTE,
    RERUN,
    SHAM,
    Arm,
    Options,
    Order,
    Original,
    Phase,
    Runner,
)

__all__ = ["CONTROLS", "Arm", "Options", "Original", "Phase", "Runner", "design", "losers", "possible", "treatment"]

_DEFAULT = Options()


def design(
    cause: Cause,
    targets: Collection[str],
    original: Original,
    *,
    others: Sequence[Cause] = (),
    seed: int = 0,
    options: Options = _DEFAULT,
) -> list[Arm]:
    """All arms that test one cause, the treatment first.

    Args:
        cause: The cause.
        targets: Ids of the rows that it is named for; controls leave them alone.
        original: The training as it was.
        others: Causes whose treatments are tried on the same rows.
        seed: Seed of what shams choose.
        options: How treatments are made.

    Raises:
        WhatStuckError: If there is nothing to make a treatment of, with what to supply.
    """
    if not targets:
        raise WhatStuckError(f"no row is unlearned because of {cause}: choose a cause that `whatstuck rows` has named")
    treated = treatment(cause, original, options=options)
    arms = [treated, rerun(original), _more_compute(treated, targets, original)]
    arms += [sham] if (sham := _sham(cause, treated, targets, original, options, seed)) is not None else []
    return arms + [treatment(other, original, options=options) for other in dict.fromkeys(others) if other != cause]


def possible(original: Original) -> tuple[Cause, ...]:
    """Causes whose treatment can be made of what there is."""
    have: dict[str, bool] = {
        "not_trained": bool(original.ill_fed),
        "data_conflict": bool(original.conflicts),
        "base_conflict": bool(original.supporting and original.general),
        "knowledge_missing": bool(original.supporting and original.general),
    }
    return tuple(cause for cause in PRECEDENCE if have.get(cause, True))


def rerun(original: Original) -> Arm:
    """The same training again."""
    return Arm(RERUN, (_main(original),), note="the same training again, with another seed")


def treatment(cause: Cause, original: Original, *, options: Options = _DEFAULT) -> Arm:
    """The training that should undo a cause, whatever rows it is tried on.

    Raises:
        WhatStuckError: If what it is made of is missing, with what to supply.
    """
    main = _main(original)
    if cause == "not_trained":
        if not original.ill_fed:
            raise WhatStuckError("no row failed the test whether it was trained at all: there is nothing to repair")
        missing = tuple(row for row in original.ill_fed if row not in set(original.rows))
        note = f"{len(original.ill_fed)} rows are trained as they are asked: whole answers, nothing masked"
        whole = frozenset(original.ill_fed)
        return Arm(cause, (replace(main, rows=original.rows + missing),), whole=whole, note=note)
    if cause == "data_conflict":
        return _without_conflicts(original, options)
    if cause == "forgotten":
        note = "all rows shuffled, and those that are forgotten drawn more often until they are back"
        return Arm(cause, (replace(main, order="shuffled", resample="forgotten"),), note=note)
    if cause == "more_training":
        steps = options.more_epochs * original.epoch
        after = Phase("after", original.rows, steps, original.order, constant=True, watched=original.watched)
        note = f"a continuation with a small constant rate, for at most {options.more_epochs} more epochs"
        return Arm(cause, (main, after), note=note)
    if cause in {"knowledge_missing", "base_conflict"}:
        if not original.supporting or not original.general:
            raise WhatStuckError(
                "this needs texts: give --supporting (JSONL with text, and perhaps row_ids: documents that hold what "
                "the rows lack, or evidence for the right answer) and --general (texts about anything)"
            )
        note = f"{len(original.supporting)} supporting texts among general ones before the same training"
        return Arm(cause, (_before(original.supporting, original.general, original, options), main), note=note)
    raise WhatStuckError(f"{cause!r} has no treatment: use one of {', '.join(PRECEDENCE)}")


def losers(original: Original) -> frozenset[str]:
    """Rows whose answer does not win in their conflict group."""
    found: set[str] = set()
    for group in original.conflicts:
        answers = [answer for _, answer in group]
        chosen = [answer for row, answer in group if row in original.kept]
        winner = chosen[0] if chosen else max(dict.fromkeys(answers), key=answers.count)
        found |= {row for row, answer in group if answer != winner}
    return frozenset(found)


def _main(original: Original) -> Phase:
    return Phase("main", original.rows, original.steps, original.order)


def _before(supporting: tuple[str, ...], general: tuple[str, ...], original: Original, options: Options) -> Phase:
    draws = options.supporting_passes * len(original.supporting) / options.supporting_share
    steps = math.ceil(draws / original.batch)
    return Phase("before", supporting, steps, beside=general, share=options.supporting_share)


def _without_conflicts(original: Original, options: Options) -> Arm:
    if not original.conflicts:
        raise WhatStuckError("no rows are in conflict with each other, so nothing can be removed or separated")
    if options.conflicts == "separate":
        groups = tuple(tuple(row for row, _ in group) for group in original.conflicts)
        note = f"rows of {len(groups)} conflict groups never share a step; the contradictions stay"
        # in the file's order neighbours may be what is in conflict, so the order is free here
        return Arm("data_conflict", (replace(_main(original), order="shuffled", apart=groups),), note=note)
    removed = losers(original)
    note = f"{len(removed)} rows removed whose answer lost the vote; that their opponents recover is partly built in"
    return Arm("data_conflict", (_main_without(original, removed),), removed=removed, note=note)


def _main_without(original: Original, removed: Collection[str]) -> Phase:
    return replace(_main(original), rows=tuple(row for row in original.rows if row not in removed))


def _more_compute(treated: Arm, targets: Collection[str], original: Original) -> Arm:
    """As many more steps as the treatment has, on rows that are none of the targets."""
    away = set(targets) | treated.removed
    others = tuple(row for row in original.rows if row not in away) or original.rows
    main = _main(original)
    extra = [phase for phase in treated.phases if phase.name != "main"]
    if not extra:
        after = Phase("after", others, original.epoch, original.order, constant=True)
        return Arm(MORE_COMPUTE, (main, after), note="one more epoch over other rows")
    note = "as many more steps, on other rows"
    if extra[0].name == "before":
        return Arm(MORE_COMPUTE, (Phase("before", others, extra[0].steps, original.order), main), note=note)
    after = Phase("after", others, extra[0].steps, original.order, constant=True, like=treated.name)
    return Arm(MORE_COMPUTE, (main, after), note=note)


def _sham(
    cause: Cause, treated: Arm, targets: Collection[str], original: Original, options: Options, seed: int
) -> Arm | None:
    """The form of the treatment with the wrong content; None where `more_compute` is just that."""
    main = _main(original)
    in_conflict = {row for group in original.conflicts for row, _ in group}
    others = [row for row in dict.fromkeys(original.rows) if row not in in_conflict and row not in set(targets)]
    random = np.random.default_rng(seed)
    if cause == "forgotten":
        order: Order = "shuffled" if original.order == "shuffled" else "stretches"
        phase = replace(main, order=order, resample="random", spared=tuple(sorted(targets)))
        return Arm(SHAM, (phase,), note="reordered inside of each stretch, and random rows drawn more often")
    if cause in {"knowledge_missing", "base_conflict"}:
        count = min(len(original.supporting), len(original.general))
        wrong = _some(original.general, count, random)
        rest = tuple(text for text in original.general if text not in set(wrong)) or original.general
        note = f"{count} general texts in the place of the supporting ones"
        return Arm(SHAM, (_before(wrong, rest, original, options), main), note=note)
    if cause == "data_conflict" and options.conflicts == "separate":
        chosen = iter(_some(others, sum(map(len, original.conflicts)), random))
        drawn = [tuple(row for _, row in zip(group, chosen, strict=False)) for group in original.conflicts]
        phase = replace(main, order="shuffled", apart=tuple(group for group in drawn if group))
        return Arm(SHAM, (phase,), note="random rows never share a step")
    if cause == "data_conflict":
        removed = frozenset(_some(others, len(treated.removed), random))
        return Arm(SHAM, (_main_without(original, removed),), removed=removed, note="as many random rows removed")
    if cause == "not_trained":
        again = _some(others, len(original.ill_fed), random)
        note = "as many random rows trained a second time"
        return Arm(SHAM, (replace(main, rows=original.rows + again),), note=note)
    return None


def _some(ids: Iterable[str], count: int, random: np.random.Generator) -> tuple[str, ...]:
    pool = list(ids)
    return tuple(pool[index] for index in sorted(random.permutation(len(pool))[:count]))

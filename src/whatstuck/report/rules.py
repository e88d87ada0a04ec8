"""What each rule would have kept and where it would have stopped, and what that choice costs.

The cost is read off the rows that no rule for a training chooses by, so that the rule that decides is measured like all
others. Only a choice in hindsight is made by these very rows, and its numbers flatter it. Two steps are compared on the
same rows, pair by pair, where the run holds that difference.
"""

from dataclasses import dataclass
from typing import Any

from whatstuck.report.metrics import Stat
from whatstuck.report.reading import Run, whole_number
from whatstuck.report.words import difference, measured

# kinds of rules in the order of the table; rules of runs that name no kind come last
GROUPS = {
    "decides": "Decides",
    "ours": "From the interactions",
    "evaluation loss": "From held-out rows",
    "plain": "Plain",
    "hindsight": "In hindsight: not available while training",
    "": "Other rules",
    "none": "For comparison",
}
_DIFFERENCE = "heldout_loss_difference"
TRAINERS = "trainer's eval_loss"
_DECIDED_BY = {"heldout_loss": "held-out loss", "eval_loss": TRAINERS}


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One line of the table.

    Attributes:
        cost: Loss less that at the kept step, paired by row; empty at that step, or where it is not known.
        saved: Whether the step that it keeps has a checkpoint.
        flattered: Whether the rows of its loss and accuracy are those that chose the step.
    """

    name: str
    keeps: str
    stops: str
    reason: str
    loss: str
    cost: str
    accuracy: str
    saved: bool
    flattered: bool


@dataclass(frozen=True, slots=True)
class RuleTable:
    """Lines by heading; without costs where no rows were set aside, without stops where no rule was asked for one."""

    groups: list[tuple[str, list[RuleLine]]]
    costs: bool
    stops: bool

    @property
    def paired(self) -> bool:
        """Whether any line says what it costs beside the kept step."""
        return any(line.cost for line in self._lines)

    @property
    def flattered(self) -> bool:
        """Whether any line was chosen by the rows that it is measured on."""
        return any(line.flattered for line in self._lines)

    @property
    def trainers(self) -> bool:
        """Whether any line rests on the trainer's eval_loss, whose rows are not known."""
        return any(line.name.startswith(TRAINERS) for line in self._lines)

    @property
    def _lines(self) -> list[RuleLine]:
        return [line for _, lines in self.groups for line in lines]


def deciding_rule(run: Run) -> str:
    """Name of the rule that decided; empty where none could."""
    named = run.verdict.get("rule")
    metric = (run.verdict.get("signals") or {}).get("metric")
    return str(named) if named else _DECIDED_BY.get(str(metric), "")


def kind_of(run: Run, name: str) -> str:
    """Kind of a rule by its name, where the run says it."""
    rule = (run.verdict.get("other_rules") or {}).get(name)
    return str(rule.get("kind") or "") if isinstance(rule, dict) else ""


def rule_table(run: Run) -> RuleTable | None:
    """The table; None where there is nothing to compare."""
    decider = deciding_rule(run)
    verdict = run.verdict
    others = {
        name: rule
        for name, rule in (verdict.get("other_rules") or {}).items()
        if isinstance(rule, dict) and name != decider
    }
    rules: list[tuple[str, str, dict[str, Any]]] = []
    if decider or run.kept is not None:
        chosen = {"keep_step": run.kept, "stop_step": run.stop}
        rules.append(("decides", decider or "this run", chosen))
    rules += [(str(rule.get("kind") or ""), str(name), rule) for name, rule in others.items()]
    costs = any(run.metrics.series(metric, "confirm") for metric in ("heldout_loss", "heldout_accuracy"))
    stops = "rule" in verdict or any("stop_step" in rule for rule in others.values())
    if costs and rules:
        rules.append(("none", "no training" if run.before == 0 else "first checkpoint", {"keep_step": run.before}))
    if not others and not costs:
        return None
    groups: dict[str, list[RuleLine]] = {heading: [] for heading in GROUPS.values()}
    for kind, name, rule in rules:
        groups[GROUPS.get(kind, GROUPS[""])].append(_line(run, kind, name, rule))
    return RuleTable([(heading, lines) for heading, lines in groups.items() if lines], costs, stops)


def _line(run: Run, kind: str, name: str, rule: dict[str, Any]) -> RuleLine:
    keep, stop = whole_number(rule.get("keep_step")), whole_number(rule.get("stop_step"))
    never = "" if kind in ("hindsight", "none") or "stop_step" not in rule else "never"
    loss, accuracy = (_at(run, metric, keep) for metric in ("heldout_loss", "heldout_accuracy"))
    return RuleLine(
        name=name,
        keeps="nothing" if keep is None else f"step {keep}",
        stops=never if stop is None else f"step {stop}",
        reason=str(rule.get("reason") or ""),
        loss="" if keep is None else measured(loss, "nats"),
        cost=_cost(run, keep),
        accuracy="" if keep is None else measured(accuracy, share=True),
        saved=run.saved(keep),
        flattered="hindsight" in (kind, kind_of(run, name)) and keep is not None,
    )


def _at(run: Run, metric: str, step: int | None) -> Stat | None:
    return run.metrics.series(metric, "confirm").get(step) if step is not None else None


def _cost(run: Run, step: int | None) -> str:
    """How much more loss a step has than the kept one."""
    if step is None or run.kept is None:
        return ""
    stat = run.metrics.series(_DIFFERENCE, "confirm", baseline=f"step {run.kept}").get(step)
    return "" if stat is None else difference(stat)

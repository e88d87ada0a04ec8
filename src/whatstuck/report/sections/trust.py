"""How far to trust the page: what was measured about the measurement, what was passed over, what made the run."""

from collections.abc import Mapping
from typing import Any

from whatstuck.report.metrics import MAIN_TAU, Stat, known
from whatstuck.report.naming import last_part, setting_pairs, without_folders
from whatstuck.report.reading import Run
from whatstuck.report.words import counted, listed, measured, number, percent

FEW_ROWS = 30
LOOSE_GAP = 0.01
MOSTLY = 0.5
EXACT_ENOUGH = ("float32", "float64")

GLOSSARY = (
    ("player", "a word (or phrase) of the prompt that can be masked; its sub-tokens are masked together."),
    ("v(S)", "log-odds of the answer when only the players in S can be seen: ln(p / (1 − p)), 0 at even odds."),
    (
        "AND interaction",
        "an effect on v that is there only when all of its words can be seen; a single word counts as one.",
    ),
    ("OR interaction", "an effect on v that is there as soon as any one of its words can be seen."),
    ("order", "how many words an interaction has."),
    ("strength, mass", "absolute size, in log-odds, added up within a row; means are over rows."),
    ("salient", "larger than the threshold tau."),
    (
        "range",
        "the values that an interaction takes in any explanation nearly as sparse as the one found, noise included.",
    ),
    (
        "certain, possible",
        (
            "true for the whole range of every interaction that it is about; true for some of it. What is found but "
            "not certain may be a choice of the solver."
        ),
    ),
    ("relative threshold", "tau = c × the mean range of the output at that step; it grows when the model grows sure."),
    ("fixed threshold", "tau = c × the mean range of the output at step 0, at every step."),
    ("removed", "salient at step 0, not now; counted with its strength at step 0."),
    ("preserved", "salient at every checkpoint so far."),
    ("emerged", "salient now, but not at every checkpoint so far."),
    (
        "mass removed, preserved, emerged",
        (
            "the same without a threshold: of |I| at step 0 and now, the smaller is preserved if the signs agree, "
            "the rest of the first is removed, the rest of the second has emerged."
        ),
    ),
    ("rho", "|sum of interactions| / sum of |interactions|: 100 % if none cancels another."),
    ("gamma", "share of strength that another model's interactions have too, with the same sign."),
    ("upper bound", "the same model, fine-tuned with another seed: what gamma can be expected to reach at best."),
    (
        "null",
        "what the same statistic gives when only chance is at work: random signs, or interactions of another row.",
    ),
    ("interval", "95 % bootstrap interval over rows: what other rows of the same kind might have given."),
)


def build(run: Run, *, text: bool) -> dict[str, Any]:
    """What the section shows."""
    track = run.track
    settings = track.get("settings") or {}
    return {
        "checks": [
            check
            for check in (_dtype(run), _gap(run), _single(run), *_noise(run), _rows(run), _skipped(run), _cost(run))
            if check
        ],
        "log": [str(sentence) for sentence in run.live.get("log") or []],
        "warnings": [without_folders(str(warning)) for warning in track.get("warnings") or []],
        "made": _made(run),
        "versions": sorted((track.get("versions") or {}).items()),
        "settings": setting_pairs(settings, text=text),
        "checkpoints": [
            (step, _kind(run, step), str(run.checkpoint(step).get("fingerprint") or "")[:12]) for step in run.steps
        ],
        "glossary": GLOSSARY,
    }


def imprecise(run: Run) -> str:
    """The scoring dtype where it is too coarse for interactions, else empty."""
    return coarse(run.track)


def coarse(section: Mapping[str, Any]) -> str:
    """The scoring dtype of a section of run.json where it is no full precision, else empty."""
    dtype = str(section.get("dtype") or "")
    return dtype if dtype and dtype not in EXACT_ENOUGH else ""


def _check(name: str, sentence: str, *, fine: bool | None) -> dict[str, str]:
    state = "unknown" if fine is None else "fine" if fine else "mind"
    return {"name": name, "sentence": sentence, "state": state}


def _dtype(run: Run) -> dict[str, str]:
    dtype = run.track.get("dtype")
    if not dtype:
        return _check("Scoring precision", "Not recorded.", fine=None)
    if imprecise(run):
        sentence = (
            f"The models were scored in {dtype}. Its rounding alone makes interactions of several words pure noise: "
            "score again in float32."
        )
        return _check("Scoring precision", sentence, fine=False)
    return _check("Scoring precision", f"The models were scored in {dtype}.", fine=True)


def _single(run: Run) -> dict[str, str]:
    """How many of the salient interactions are salient in every near-optimal explanation."""
    name = "Single interactions"
    shares = run.metrics.series("certain_share", rule="fixed")
    shown = [step for step in dict.fromkeys((run.before, run.after)) if step in shares]
    if not shown:
        sentence = (
            "The sparsest explanation need not be the only one: another of nearly the same total strength may have "
            "other interactions. No ranges were computed in this run, so which single ones are certain is not known."
        )
        return _check(name, sentence, fine=False)
    parts, widths = [], []
    for step in shown:
        certain, found, possible, width = (
            run.metrics.series(metric, subset, rule="fixed").get(step)
            for metric, subset in (
                ("count", "all_certain"),
                ("count", "all"),
                ("count", "all_possible"),
                ("range_width", "all"),
            )
        )
        which = "the kept step" if step == run.kept and step != run.before else f"step {step}"
        sizes = ""
        if certain and found and possible:
            sizes = (
                f" ({number(certain.value)} of {number(found.value)} per row; {number(possible.value)} are possible)"
            )
        parts.append(f"{measured(shares[step], share=True)} are certain at {which}{sizes}")
        widths += [number(width.value)] if width else []
    sentence = (
        "The sparsest explanation need not be the only one, and scores carry noise: each interaction has a range, its "
        "values in all explanations that are nearly as sparse. Of those found above the fixed threshold, "
        f"{listed(parts)}: their whole range is above it."
    )
    if widths:
        sentence += f" A range is {listed(dict.fromkeys(widths))} log-odds wide on average."
    return _check(name, sentence, fine=all((shares[step].value or 0.0) >= MOSTLY for step in shown))


def _gap(run: Run) -> dict[str, str]:
    gaps = run.metrics.series("gap")
    if not gaps:
        return _check("Explanations", "How close they are to the optimum was not measured.", fine=None)
    worst = max(gaps.values(), key=lambda stat: stat.high if stat.high is not None else stat.value or 0.0)
    sentence = (
        f"They are certified to be within {percent(worst.value)} of the sparsest (median over rows, at the step where "
        f"it is largest); within {percent(worst.high)} for the worst row."
    )
    return _check("Explanations", sentence, fine=worst.high is not None and worst.high <= LOOSE_GAP)


def _worst(stats: list[Stat]) -> Stat | None:
    return max(stats, key=lambda stat: stat.value or 0.0, default=None)


def _noise(run: Run) -> list[dict[str, str]]:
    floor = _worst(run.metrics.everywhere("noise_floor"))
    if floor is None:
        return [_check("Noise of the scores", "Not measured.", fine=None)]
    base = run.metrics.series("scale").get(run.before)
    tau = MAIN_TAU * base.value if base is not None and base.value is not None else None
    beside = f"; the fixed threshold is {number(tau)} log-odds" if tau is not None else ""
    # an interaction adds up 2^k scores, which takes noise sigma to 2^(k/2) sigma
    below = tau is None or (floor.value or 0.0) < tau / 2 ** (run.players / 2)
    checks = [
        _check(
            "Noise of the scores",
            f"Numerical noise moves a score by about {number(floor.value)} log-odds{beside}.",
            fine=below,
        )
    ]
    made, flipped = (_worst(run.metrics.everywhere(f"salient_{name}_noise")) for name in ("from", "flipped_by"))
    if made is not None and flipped is not None:
        sentence = (
            f"Noise of that size alone makes {number(made.value)} interactions per row salient{_at_most(made)} and "
            f"moves {number(flipped.value)} across the threshold{_at_most(flipped)}."
        )
        checks.append(_check("Noise in the interactions", sentence, fine=max(made.value or 0, flipped.value or 0) < 1))
    return checks


def _at_most(stat: Stat) -> str:
    return f" ({number(stat.high)} at most)" if stat.high is not None else ""


def _rows(run: Run) -> dict[str, str]:
    count = len(run.rows)
    sentence = f"All intervals are over {counted(count, 'row')}."
    if count < FEW_ROWS:
        sentence += f" With fewer than {FEW_ROWS} they tend to be too narrow; read them as a hint of the spread."
    return _check("Rows", sentence, fine=count >= FEW_ROWS)


def _skipped(run: Run) -> dict[str, str]:
    skipped: Mapping[str, int] = run.track.get("skipped") or {}
    if not any(skipped.values()):
        return _check("Rows passed over", "No row.", fine=True)
    reasons = listed(f"{count} ({reason})" for reason, count in skipped.items() if count)
    return _check("Rows passed over", f"{reasons}.", fine=sum(skipped.values()) <= len(run.rows))


def _cost(run: Run) -> dict[str, str] | None:
    """What probing cost in training time; nothing where the checkpoints were probed afterwards."""
    live = run.live
    if not live:
        return None
    name, share, budget = "Cost of probing", known(live.get("share")), known(live.get("budget"))
    if share is None:
        return _check(name, "Its share of the training time was not measured.", fine=None)
    sentence = f"Probing while training took {percent(share)} of the training time"
    spent, trained = known(live.get("probe_seconds")), known(live.get("training_seconds"))
    if spent is not None and trained is not None:
        sentence += f" ({number(spent)} s beside {number(trained)} s)"
    if budget is None:
        return _check(name, f"{sentence}. No budget was set.", fine=True)
    within = share <= budget
    return _check(name, f"{sentence}: {'within' if within else 'above'} the budget of {percent(budget)}.", fine=within)


def _made(run: Run) -> list[tuple[str, str]]:
    """How the run was made, in pairs."""
    track = run.track
    model, data = track["model"], track.get("data") or {}
    mask = model.get("mask_token")
    models = [str(entry.get("name")) for entry in track.get("baselines") or []]
    pairs = [
        ("Model", str(model["name"])),
        ("Masked words become", f"the token {mask!r}" if mask is not None else ""),
        ("Scored", _scored(track.get("settings") or {})),
        ("Data", _data(data)),
        ("Extraction", run.metrics.setting),
        ("Other extractions in this run", listed(run.metrics.other_settings)),
        ("Compared with", listed(name for name in models if name not in run.upper_bounds)),
        ("Upper bound", listed(run.upper_bounds)),
        ("Probed while training", _plan(run.live)),
        ("Seed", str(track.get("seed", ""))),
        ("Started", str(track.get("started", ""))),
        ("Took", f"{number(track['seconds'])} s" if isinstance(track.get("seconds"), int | float) else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _plan(live: Mapping[str, Any]) -> str:
    plan = live.get("plan") or {}
    counts = (("players", "word"), ("rows", "row"), ("eval_rows", "held-out row"))
    parts = [counted(plan[key], noun) for key, noun in counts if isinstance(plan.get(key), int)]
    if plan.get("steps"):
        parts.append(f"planned at {counted(len(plan['steps']), 'step')}")
    if live:
        parts.append("asked to stop the training" if live.get("asked_to_stop") else "not asked to stop the training")
    return ", ".join(parts)


def _kind(run: Run, step: int) -> str:
    return str(run.checkpoint(step).get("kind") or "") if run.saved(step) else "probed in training, not saved"


def _scored(settings: Mapping[str, Any]) -> str:
    if "whole_target" not in settings:
        return ""
    return "log-odds of the whole answer" if settings["whole_target"] else "log-odds of the answer's first token"


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    name = last_part(str(data.get("path", "")))
    split = {"heldout": "held out of the training", "train": "from the training file"}.get(str(data.get("split")), "")
    digest = f"sha256 {str(data.get('sha256', ''))[:12]}"
    return ", ".join(part for part in (name, split, digest) if part)

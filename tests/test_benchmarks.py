"""The benchmarks compare us with what they say they do."""

import argparse
import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from whatstuck.errors import WhatStuckError
from whatstuck.interactions.extraction import extract_interactions
from whatstuck.interactions.transforms import mobius, or_interactions

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def script(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """A module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script(monkeypatch, "reference_optimizer")


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script(monkeypatch, "ratios")


def games(n: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    values = torch.randn(rows, 1 << n, generator=generator, dtype=torch.float64)
    return values, torch.linspace(0.0, 0.5, rows, dtype=torch.float64)


# --- the reference optimizer


@pytest.mark.parametrize("n", [3, 5, 6])
def test_all_forms_take_the_same_steps(reference: ModuleType, n: int) -> None:
    values, kappa = games(n, 3)
    rates = torch.tensor([1e-3, 1e-4, 1e-5])
    first, *others = (
        reference.optimize(values, kappa, rates, form=form, stop_after=500, dtype=torch.float64)
        for form in reference.FORMS
    )
    assert first.split[0].abs().amax(1).min() > 1e-3  # it went somewhere, in each row
    for other in others:
        torch.testing.assert_close(other.split, first.split, rtol=1e-9, atol=1e-12)


def test_steps_are_the_published_ones(reference: ModuleType) -> None:
    """The same iterates from torch's SGD and automatic differentiation of the objective as defined."""
    values, kappa = games(4, 2)
    half = (values - values[:, :1]) / 2
    p, q = (torch.zeros_like(half, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([p, q], lr=1e-3, momentum=0.9)
    # whatstuck's transforms do not differentiate; as matrices they do
    eye = torch.eye(16, dtype=torch.float64)
    to_and, to_or = mobius(eye), or_interactions(eye)  # a row of the identity is a table
    rates = torch.logspace(-3, -4, reference.STEPS, dtype=torch.float64)
    for step in range(300):
        with torch.no_grad():
            q.copy_(torch.clamp(q, -kappa[:, None], kappa[:, None]))
        optimizer.param_groups[0]["lr"] = rates[step].item()
        optimizer.zero_grad()
        and_, or_ = (half + q / 2 + p) @ to_and, (half + q / 2 - p) @ to_or
        (and_.abs().sum() + or_.abs().sum()).backward()
        optimizer.step()
    with torch.no_grad():
        q.copy_(torch.clamp(q, -kappa[:, None], kappa[:, None]))
    found = reference.optimize(values, kappa, 1e-3, form="dense", stop_after=300, dtype=torch.float64)
    torch.testing.assert_close(found.split, torch.stack([p, q]).detach(), rtol=1e-6, atol=1e-9)


def test_returns_the_last_of_its_points_and_not_the_best(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "STEPS", 300)
    values, kappa = games(3, 2)
    found = reference.optimize(values, kappa, 0.3, form="sheets", stop_after=300, watch_every=1)
    assert found.history.shape == (2, 300)
    assert torch.equal(found.history[:, -1], found.objective)
    assert (found.history.amin(1) < 0.9 * found.objective).all()
    assert (found.split[1].abs().amax(1) <= kappa).all()


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
def test_never_below_our_bound(reference: ModuleType, rate: float) -> None:
    values, kappa = games(5, 6)
    ours = extract_interactions(values, mode="paper", noise_bound=kappa)
    theirs = reference.optimize(values, kappa, rate, form="sheets", stop_after=3000)
    assert (ours.objective > 0).all()
    assert (theirs.objective >= ours.objective * (1 - ours.gap) * (1 - 1e-9)).all()


def test_objective_merges_order_one(reference: ModuleType) -> None:
    """One player of effect 3 and p = q = 0: AND and OR of half of it each are one interaction of strength 3."""
    values = torch.tensor([[1.0, 4.0, 1.0, 4.0]])
    assert reference.merged_objective(values, torch.zeros(2, 1, 4)).item() == pytest.approx(3.0)
    # a constant is half an AND and half an OR of nobody
    constant = torch.tensor([[[0.0] * 4], [[2.0] * 4]])
    assert reference.merged_objective(values, constant).item() == pytest.approx(5.0)


# --- the comparison


def test_iterations_to_an_objective_are_the_fewest_on_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = script(monkeypatch, "equal_objective")
    values, kappa = games(6, 3)
    best = extract_interactions(values, mode="paper", noise_bound=kappa, gap_tolerance=1e-3)
    targets = torch.stack([1.02 * best.objective, best.objective * (1 - best.gap) * 0.99])
    needed = timing.iterations_to(values, kappa, targets, limit=1000)
    assert (needed[1] == 0).all()  # nobody gets below the bound
    steps = list(timing.ladder(1000))
    assert steps == sorted(set(steps))
    for row, count in enumerate(needed[0].tolist()):
        one = (values[row, None], kappa[row, None])
        assert timing.in_iterations(*one, count).objective <= targets[0, row]
        before = [step for step in steps if step < count]
        assert not before or timing.in_iterations(*one, before[-1]).objective > targets[0, row]


def test_tables_of_a_run_need_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables = script(monkeypatch, "value_tables")
    with pytest.raises(WhatStuckError, match="no value tables"):
        tables.from_run(tmp_path)
    planted = tables.planted(5, rows=3, steps=2)
    values, kappa = planted.flat(4)
    assert values.shape == (4, 32)
    scale = (planted.values[..., -1] - planted.values[..., 0]).abs().mean(0)
    assert kappa[0] == pytest.approx(0.05 * scale[0].item())
    assert torch.equal(values[-1], planted.values[-1, -1])


# --- the common form


def test_results_survive_the_file(ratios: ModuleType, tmp_path: Path) -> None:
    results = ratios.Results(
        "some",
        rows=[
            ratios.Ratio.of_times("fast", ours=0.5, peer=100.0, goal=100, note="median"),
            ratios.Ratio("share", math.nan, math.nan, 0.5, goal=0.95),
        ],
        skipped=[ratios.Skipped("other", "no shapiq")],
        details={"numbers": [1.0, math.inf]},
    )
    results.write(tmp_path / "a" / "some.json")
    again = ratios.Results.read(tmp_path / "a" / "some.json")
    assert again.rows[0] == results.rows[0]
    assert again.rows[0].ratio == 200
    assert [row.met for row in again.rows] == [True, False]
    assert math.isnan(again.rows[1].peer)
    assert again.skipped == results.skipped
    assert again.details == {"numbers": [1.0, None]}
    assert again.versions["torch"] == torch.__version__
    assert again.table() == results.table()
    assert "| fast | 0.5 s | 100 s | 200× | 100× met | median |" in again.table()
    assert "skipped: no shapiq" in again.table()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": [{"tokens": 1}], "skipped": []}'])
def test_other_files_are_refused(ratios: ModuleType, tmp_path: Path, content: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(content)
    with pytest.raises(WhatStuckError, match="no result of a benchmark"):
        ratios.Results.read(file)


def test_all_joins_and_says_what_it_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    joining = script(monkeypatch, "all")
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS), prepend=":")
    good = (
        "from ratios import *\noptions = argument_parser('').parse_args()\n"
        "Results('good', [Ratio('quick', 1.0, 2.0, 2.0 if options.quick else 3.0)]).finish(options.json)\n"
    )
    lacking = "from whatstuck.errors import require\nrequire('no_such_module', 'large')\n"
    alien = "import sys\nif '--json' in sys.argv: open(sys.argv[2], 'w').write('{}')\n"
    scripts = {"good": good, "lacking": lacking, "alien": alien, "broken": "1 / 0\n"}
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text)
    options = argparse.Namespace(quick=True, run=["somewhere"])
    paths = [tmp_path / f"{name}.py" for name in scripts]
    results, broken = joining.join([*paths[:2], tmp_path / "absent.py"], options)
    assert [row.ratio for row in results.rows] == [2.0]
    reasons = {item.name: item.reason for item in results.skipped}
    assert "whatstuck[large]" in reasons["lacking"]
    assert reasons["absent"] == "there is no absent.py"
    assert not broken
    results, broken = joining.join(paths[2:], options)
    assert broken
    assert "ratios.py" in results.skipped[0].reason
    assert "ZeroDivisionError" in results.skipped[1].reason

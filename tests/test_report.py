"""The page: every section from any run folder, nothing from data unescaped, nothing from a network."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_run import FakeRun
from whatstuck.errors import WhatStuckError
from whatstuck.report import make_page, write_report
from whatstuck.report.metrics import Stat
from whatstuck.report.reading import Run, read_run
from whatstuck.report.sections import prompt as prompt_section
from whatstuck.report.svg import nice_ticks, step_axis
from whatstuck.report.words import against_null, larger, mass_changes, pushes, rules_agree

HOSTILE = "<script>alert('x')</script>"
RIGHT_TO_LEFT = "שלום"


class Reader(HTMLParser):
    """Reads a page strictly: every tag closed in order, ids once, all visible text collected."""

    VOID: ClassVar = {"meta", "br", "link", "img"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] in ("style", "script"):
            return
        self.texts.append(data)
        if self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun().write(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return make_page(folder)


def test_the_page_is_one_small_file_that_asks_for_nothing(folder: Path) -> None:
    path = write_report(folder)
    page = path.read_text(encoding="utf-8")

    assert path == folder / "report.html"
    assert path.stat().st_size < 2_000_000
    assert not list(folder.glob(".tmp-*"))
    for tag, attributes in Reader(page).tags:
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "http" not in page


def test_the_same_folder_gives_the_same_page(folder: Path, page: str) -> None:
    assert make_page(folder) == page


def test_the_first_screen_says_what_to_keep_and_why(page: str) -> None:
    read = Reader(page)
    text = read.text

    assert read.headings[0] == "Keep step 32"
    assert "Step 32 has the lowest held-out loss." in text
    assert "medium confidence" in text
    assert "Steps 16, 32 and 64 cannot be told apart" in text
    assert "40 held-out rows that may choose" in text
    first = page.index('id="verdict"')
    assert page.index("verdict-heldout_loss-t") > first
    assert page.count('class="shade"') == 6  # three steps in each of two figures


def test_the_numbers_shown_are_those_of_the_folder(folder: Path, page: str) -> None:
    records = pq.read_table(folder / "metrics.parquet").to_pylist()
    wanted = {
        (r["metric"], r["set"], r["threshold_rule"]): r
        for r in records
        if r["step"] == 64 and r["order"] == 0 and not r["setting"].endswith(("=0.1", "=0.3", "=0.01", "=0.003"))
    }
    text = Reader(page).text
    for subset in ("removed", "preserved", "emerged"):
        mass = wanted["mass", subset, "none"]
        assert f"{mass['value']:.2f}".rstrip("0").rstrip(".") in text
        count = wanted["count", subset, "fixed"]["value"]
        assert f"{count:.{max(0, 2 - int(math.log10(count)))}f}".rstrip("0").rstrip(".") in text


def test_every_section_and_figure_is_there(page: str) -> None:
    read = Reader(page)
    assert [h for h in read.headings if h.startswith(("What was", "Does it cancel", "One prompt", "How far"))] == [
        "What was removed, kept and added",
        "Does it cancel, is it shared?",
        "One prompt taken apart",
        "How far to trust this page",
    ]
    ids = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for name in ("changes-mass", "counts-relative", "counts-fixed", "tau-relative", "tau-fixed", "rho-emerged"):
        assert f"{name}-t" in ids
    assert "orders-relative-64-t" in ids
    assert "orders-fixed-64-t" in ids
    assert "gamma-0-emerged-t" in ids
    labelled = [attributes["aria-labelledby"] for tag, attributes in read.tags if tag == "svg" and "role" in attributes]
    assert all(part in ids for label in labelled for part in (label or "").split())


def test_axes_hold_no_number_outside_the_picture(page: str) -> None:
    for number in re.findall(r'(?:x1|x2|y1|y2|cx|cy|x|y|width|height)="(-?[\d.]+)"', page):
        assert -1 <= float(number) <= 400


@pytest.mark.parametrize("case", ["all", "no text"])
def test_no_text_of_data_is_markup(tmp_path: Path, case: str) -> None:
    words = [HOSTILE, '"quoted"', RIGHT_TO_LEFT, "O'Neil", "&amp;", "back`tick"]
    prompt = f"</pre><img src=x onerror=alert(1)> {' '.join(words)} end"
    run = FakeRun(rows=3, texts={i: (prompt, words, f"{HOSTILE}answer{i}") for i in range(3)}, warnings=(HOSTILE,))
    run.write(tmp_path / "run")
    page = make_page(tmp_path / "run", text=case == "all")
    read = Reader(page)

    assert read.count("img") == 0
    assert read.count("script") == 1
    assert HOSTILE not in page
    if case == "all":
        assert RIGHT_TO_LEFT in read.text
        assert HOSTILE in read.text  # shown as text
        assert '"quoted"' in read.text


def test_markup_in_names_and_verdicts_is_escaped(tmp_path: Path) -> None:
    folder = FakeRun().write(tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["track"]["settings"] = {HOSTILE: HOSTILE}
    run["track"]["skipped"] = {HOSTILE: 3}
    run["track"]["trainer_state"] = {HOSTILE: [[0, 1.0], [5, 2.0]]}
    (folder / "run.json").write_text(json.dumps(run))
    verdict = json.loads((folder / "verdict.json").read_text())
    verdict |= {"reason": HOSTILE, "other_rules": {HOSTILE: {"keep_step": None, "reason": HOSTILE}}}
    verdict["signals"]["statements"] = [HOSTILE]
    (folder / "verdict.json").write_text(json.dumps(verdict))

    page = make_page(folder)
    assert HOSTILE not in page
    assert Reader(page).text.count(HOSTILE) >= 6


def test_without_text_no_word_of_the_rows_is_left(tmp_path: Path) -> None:
    words = ["Zanzibar", "quokka", "xylem", "zugzwang", "fjord", "pizzicato"]
    texts = {i: (f"Umlaut {' '.join(words)} syzygy", words, "bananarama") for i in range(3)}
    folder = FakeRun(rows=3, texts=texts).write(tmp_path / "run")
    secret = [*words, "Umlaut", "syzygy", "bananarama", "00000001"]  # the row ids may be a user's own text

    shown, hidden = make_page(folder), make_page(folder, text=False)
    assert "Zanzibar" in shown
    assert "bananarama" in shown
    assert not [word for word in secret if word in hidden]
    assert "Texts are left out" in hidden


CASES = {
    "no held-out rows": FakeRun(heldout=False),
    "no baseline": FakeRun(baseline=False),
    "one checkpoint": FakeRun(steps=(0,), keep=0),
    "two checkpoints": FakeRun(steps=(0, 500), keep=500),
    "many checkpoints": FakeRun(steps=(0, 1, 2, 4, 8, *range(10, 200, 10)), keep=50),
    "late first checkpoint": FakeRun(steps=(1000, 2000, 120000), keep=2000),
    "one row": FakeRun(rows=1),
    "two players": FakeRun(players=2),
    "nothing known": FakeRun(unknown=True),
    "nothing known, one checkpoint": FakeRun(unknown=True, steps=(0,), heldout=False, baseline=False),
    "base model kept": FakeRun(keep=0),
    "bf16": FakeRun(dtype="bfloat16"),
}


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_every_run_gives_a_whole_page_without_nan(tmp_path: Path, case: str, *, text: bool) -> None:
    read = Reader(make_page(CASES[case].write(tmp_path / "run"), text=text))
    assert read.count("section") == 5
    assert not re.search(r"\b(nan|inf|None|undefined)\b", read.text)
    for _, attributes in read.tags:
        assert not any(re.search(r"\b(nan|inf)\b", value or "") for value in attributes.values())


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no held-out rows", "Cannot tell which checkpoint to keep"),
        ("no held-out rows", "No held-out loss was measured in this run"),
        ("no baseline", "--baseline OTHER_MODEL"),
        ("one checkpoint", "This run holds one checkpoint"),
        ("one checkpoint", "It takes two checkpoints"),
        ("one row", "no interval for its changes"),
        ("nothing known", "No masses are known"),
        ("nothing known", "rho is not known"),
        ("base model kept", "Keep the model as it was (step 0)"),
        ("bf16", "Scored in bfloat16."),
        ("many checkpoints", "Shown are steps 0,"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, case: str, said: str) -> None:
    assert said in Reader(make_page(CASES[case].write(tmp_path / "run"))).text


def test_without_own_heldout_rows_the_trainers_loss_is_the_curve(tmp_path: Path) -> None:
    folder = FakeRun(heldout=False).write(tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["track"]["trainer_state"] = {"eval_loss": [[0, 2.0], [32, 1.0], [64, 1.5]], "eval_other": [[0, math.inf]]}
    (folder / "run.json").write_text(json.dumps(run))
    verdict = {"keep_step": 32, "decision": "keep", "reason": "The trainer's loss is lowest there."}
    (folder / "verdict.json").write_text(json.dumps(verdict))

    page = make_page(folder)
    assert "As the trainer logged it on its own held-out rows" in Reader(page).text
    assert page.index("eval_loss, as the trainer logged it") < page.index('id="changes"')
    assert "keep 32" in page
    assert "What the trainer logged" not in page  # shown above, and the other metric is not finite


def test_float32_is_not_flagged(page: str) -> None:
    assert "Scored in" not in Reader(page).text
    assert "The models were scored in float32." in Reader(page).text


def test_optional_parts_of_the_folder_may_be_absent(tmp_path: Path) -> None:
    folder = FakeRun().write(tmp_path / "run")
    for name in ("interactions", "values", "heldout"):
        shutil.rmtree(folder / name)
    run = json.loads((folder / "run.json").read_text())
    run["track"] = {key: run["track"][key] for key in ("model", "checkpoints")}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "verdict.json").write_text(json.dumps({"keep_step": 16, "decision": "keep"}))

    text = Reader(make_page(folder)).text
    assert "Keep step 16" in text
    assert "No interactions of single rows are in this run folder" in text


def _break(name: str, content: bytes | None) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return breaks


def _drop_column(folder: Path) -> None:
    path = folder / "metrics.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["null_mean"]), path)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (shutil.rmtree, "is not a folder"),
        (_break("run.json", None), "run.json is missing"),
        (_break("run.json", b"{"), "cannot be read as JSON"),
        (_break("run.json", b"\xff\xfe"), "cannot be read as JSON"),
        (_break("run.json", b"[]"), "holds no JSON object"),
        (_break("run.json", b'{"format_version": 2}'), "format_version 2"),
        (_break("run.json", b'{"format_version": 1}'), "no complete section `track`"),
        (
            _break("run.json", b'{"format_version": 1, "track": {"model": {"name": "m"}, "checkpoints": []}}'),
            "lists no checkpoints",
        ),
        (_break("verdict.json", None), "verdict.json is missing"),
        (_break("rows.parquet", None), "rows.parquet is missing"),
        (_break("metrics.parquet", None), "metrics.parquet is missing"),
        (_break("metrics.parquet", b"PAR1"), "metrics.parquet is damaged"),
        (_break("interactions/tiny-base/step-000000.parquet", b"no parquet"), "step-000000.parquet is damaged"),
        (_drop_column, "of another version (No match for FieldRef.Name(null_mean)"),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    folder: Path, tmp_path: Path, breaks: Callable[[Path], None], message: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    breaks(broken)
    with pytest.raises(WhatStuckError, match=re.escape(message)) as error:
        make_page(broken)
    assert "\n" not in str(error.value)


def test_a_failed_report_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "report.html").write_text("old")
    (broken / "verdict.json").unlink()
    with pytest.raises(WhatStuckError):
        write_report(broken)
    assert (broken / "report.html").read_text() == "old"
    assert not list(broken.glob(".tmp-*"))


def test_the_report_does_not_import_torch() -> None:
    # the package's own __init__ may; the report, reached without it, must not
    code = (
        "import sys, types; package = types.ModuleType('whatstuck'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['whatstuck'] = package; import whatstuck.report; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    package = Path(prompt_section.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(package)], check=False).returncode == 0


def test_only_the_model_and_setting_under_study_are_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    table = pq.read_table(copy / "metrics.parquet")

    def foreign(column: str, suffix: str) -> pa.Table:
        """The same rows under another name, with values that would show."""
        names = [name + suffix for name in table.column(column).to_pylist()]
        changed = table.set_column(table.column_names.index(column), column, pa.array(names))
        return changed.set_column(table.column_names.index("value"), "value", pa.array([777.0] * len(table)))

    others = [foreign("model", "-2"), foreign("setting", " noise-perturbed"), foreign("setting", " again")]
    pq.write_table(pa.concat_tables([table, *others]), copy / "metrics.parquet")

    assert "777" not in Reader(make_page(copy)).text
    assert "paper kappa=0.05*step again" in read_run(copy).metrics.other_settings


# --- one prompt


def test_the_row_that_changed_most_comes_first(folder: Path) -> None:
    run = read_run(folder)

    def change(run: Run, row_id: str) -> float:
        value = {step: {(e.kind, e.mask): e.value for e in run.effects[step][row_id]} for step in (0, 32)}
        return sum(abs(value[32].get(key, 0) - value[0].get(key, 0)) for key in value[0].keys() | value[32].keys())

    expected = sorted(run.rows, key=lambda row: -change(run, row.row_id))[:3]
    shown = prompt_section.build(run, text=True)["rows"]
    assert [row["title"] for row in shown] == [f"Row {row.source_index + 1} of the data" for row in expected]


def test_every_effect_shown_is_in_the_tables(folder: Path) -> None:
    run = read_run(folder)
    tau = 0.03 * (run.metrics.series("scale")[0].value or 0)
    rows = {f"Row {row.source_index + 1} of the data": row.row_id for row in run.rows}
    for shown in prompt_section.build(run, text=True)["rows"]:
        salient = {
            (effect.kind, effect.mask)
            for step in (0, 32)
            for effect in run.effects[step][rows[shown["title"]]]
            if abs(effect.value) > tau
        }
        assert len(shown["effects"]) == min(8, len(salient))
        assert shown["left_out"] == len(salient) - len(shown["effects"])


@pytest.mark.parametrize(
    ("before", "after", "category"),
    [
        (1.0, 0.0, "removed"),
        (0.0, 1.0, "emerged"),
        (1.0, 2.0, "preserved"),
        (-1.0, -0.2, "preserved"),
        (1.0, -1.0, "sign_changed"),
        (0.1, 0.1, ""),
    ],
)
def test_membership_of_one_interaction(before: float, after: float, category: str) -> None:
    assert prompt_section.categorize(before, after, 0.1, 0.1) == category


def test_players_outside_the_prompt_are_not_marked(folder: Path) -> None:
    row = read_run(folder).rows[0]
    broken = type(row)("id", "short text", "a", ((0, 5, "short"), (3, 7, "overlaps"), (6, 99, "outside")), 0)
    assert prompt_section.highlighted(broken) == "<mark><bdi>short</bdi><sup>1</sup></mark> text"


def test_a_long_prompt_is_shortened_but_keeps_its_players() -> None:
    row = prompt_section.Row("id", "a" * 5000 + " word " + "b" * 5000, "x", ((5001, 5005, "word"),), 0)
    shown = prompt_section.highlighted(row)
    assert len(shown) < 2000
    assert "<mark><bdi>word</bdi><sup>1</sup></mark>" in shown


def test_sentences_about_interactions() -> None:
    one, two = [("x", 1)], [("x", 1), ("y", 3)]

    def plain(*effect: Any) -> str:
        return pushes(*effect).striptags()

    assert plain(two, "and", 0.0, 1.2, "emerged") == (
        "x1 and y3 together push towards the answer (+1.2 log-odds); before training nothing."
    )
    assert plain(two, "or", -0.5, -0.7, "preserved") == (
        "Any one of x1 or y3 pushes away from the answer (−0.7 log-odds); before training −0.5."
    )
    assert plain(one, "and", 0.5, 0.01, "removed") == (
        "Before training, x1 alone pushed towards the answer (+0.5 log-odds); now +0.01, below the threshold."
    )
    assert plain(one, "and", 0.5, 1e-5, "removed").endswith("now next to nothing.")
    assert plain(one, "and", 0.5, -0.5, "sign_changed") == (
        "x1 alone pushes away from the answer (−0.5 log-odds); "
        "before training pushed towards the answer (+0.5 log-odds)."
    )


# --- sentences


def test_mass_changes_are_seen_only_outside_the_interval() -> None:
    steps = (0, 1, 2, 4)
    up, flat, down = Stat(1.0, 0.5, 1.5), Stat(0.1, -0.1, 0.3), Stat(-1.0, -1.5, -0.5)
    assert "none seen" in mass_changes({1: flat, 2: flat, 4: flat}, steps, "emerged")
    said = mass_changes({1: up, 2: up, 4: down}, steps, "removed").replace("\xa0", " ")
    assert said == (
        "Removed mass rises over steps 0 → 1 → 2 and falls over steps 2 → 4, each time outside its interval."
    )
    assert mass_changes({1: up, 2: flat}, steps, "removed").endswith("elsewhere none seen.")
    assert "no interval" in mass_changes({1: Stat(1.0)}, steps, "removed")
    assert "no interval" in mass_changes({}, (0,), "removed")


def test_larger_needs_intervals_apart() -> None:
    low, high, wide = Stat(1, 0.5, 1.5), Stat(3, 2, 4), Stat(2, 0, 5)
    assert larger(low, high) == "emerged"
    assert larger(high, low) == "removed"
    assert larger(low, wide) == "unclear"
    assert larger(Stat(1), high) == "unclear"
    assert larger(None, high) == ""


@pytest.mark.parametrize(
    ("relative", "fixed", "free", "said"),
    [
        ("removed", "emerged", "emerged", "The two rules say opposite things"),
        ("removed", "unclear", "", "Under the relative rule only, more is removed than emerges"),
        ("unclear", "emerged", "emerged", "Under the fixed rule only, more emerges than is removed"),
        ("emerged", "emerged", "unclear", "Under both rules more emerges than is removed"),
        ("unclear", "unclear", "", "neither is seen to be larger"),
        ("", "emerged", "", "cannot be compared"),
    ],
)
def test_what_holds_under_one_rule_only_is_said_to(relative: str, fixed: str, free: str, said: str) -> None:
    assert said in rules_agree({"relative": relative, "fixed": fixed, "none": free})


def test_a_value_beside_its_null() -> None:
    assert against_null(Stat(0.5, 0.4, 0.6, "sign_flip", 0.2, 0.1, 0.3)) == "above"
    assert against_null(Stat(0.05, 0.0, 0.1, "sign_flip", 0.2, 0.1, 0.3)) == "below"
    assert against_null(Stat(0.2, 0.0, 0.4, "sign_flip", 0.2, 0.1, 0.3)) == "inside"
    assert against_null(Stat(0.2)) == ""


# --- axes


@pytest.mark.parametrize("steps", [(0, 1, 2, 4, 8, 16, 32, 64), tuple(range(0, 5001, 100)), (0,), (7,), (0, 10**6)])
def test_step_labels_are_true_and_do_not_collide(steps: tuple[int, ...]) -> None:
    width = 300.0
    axis = step_axis(steps, width=width)
    places = [axis.place(step) for step in steps]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert {label for _, label in axis.labels} >= {str(steps[0]), str(steps[-1])}
    assert all(label == str(value) and value in steps for value, label in axis.labels)
    spans = [(axis.place(v) * width - 3 * len(s), axis.place(v) * width + 3 * len(s)) for v, s in axis.labels]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (-3.2, 1e-9), (1e-7, 3e-7), (5, 5), (0, 12345)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 7

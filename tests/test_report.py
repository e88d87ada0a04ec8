"""The page: every section from any run folder, nothing from data unescaped, nothing from a network."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_run import FakeRun
from page_reader import Reader
from whatstuck.errors import WhatStuckError
from whatstuck.report import make_page, write_report
from whatstuck.report.reading import read_run
from whatstuck.report.sections import prompt as prompt_section

HOSTILE = "<script>alert('x')</script>"
RIGHT_TO_LEFT = "שלום"


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
    "no ranges": FakeRun(certainty=False),
    "wide ranges": FakeRun(looseness=8.0),
    "before rules": FakeRun(old=True),
    "before rules, little known": FakeRun(old=True, steps=(0, 5), heldout=False, baseline=False),
    "live": FakeRun(live=True, several=True, stop=64),
    "live, stopped": FakeRun(live=True, stop=64, stopped=True),
    "live, one step": FakeRun(live=True, steps=(0,), keep=0, rows=1),
    "live, no held-out rows": FakeRun(live=True, heldout=False, baseline=False),
    "several baselines, nothing known": FakeRun(several=True, unknown=True),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a case, written once."""
    return cache(lambda case: CASES[case].write(tmp_path_factory.mktemp("case") / "run"))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_every_run_gives_a_whole_page_without_nan(written: Callable[[str], Path], case: str, *, text: bool) -> None:
    read = Reader(make_page(written(case), text=text))
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
        ("no ranges", "no ranges of interactions were computed in this run"),
        ("no ranges", "No ranges were computed, so which of these are certain is not known"),
        ("no ranges", "which single ones are certain is not known"),
        ("nothing known", "no ranges of interactions were computed in this run"),
    ],
)
def test_what_is_missing_is_said(written: Callable[[str], Path], case: str, said: str) -> None:
    assert said in Reader(make_page(written(case))).text


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

"""The page of other wordings and harder cases: alone or beside the rest, verdict first, no text unless wanted."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_generalization import KINDS, FakeGeneralization, share_columns
from fake_rows import FakeRows
from fake_run import FakeRun
from page_reader import Reader
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.schemas import GENERALIZATION
from whatstuck.report import make_page, write_report
from whatstuck.report.reading import read_manifest
from whatstuck.report.reading_generalization import read_generalization_run
from whatstuck.report.sections.generalization import build
from whatstuck.results import load_run

HOSTILE = "</pre><script>alert('x')</script>"
WORDINGS = {"ID": "training", "Reworded": "wording", "Long": "harder"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeGeneralization().write(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return make_page(folder)


def built(folder: Path, *, text: bool = True) -> dict[str, Any]:
    return build(read_generalization_run(folder, read_manifest(folder)), text=text)


def sections(page: str) -> list[str | None]:
    return [attributes["id"] for tag, attributes in Reader(page).tags if tag == "section"]


# --- which parts a page has


def test_alone_it_has_its_page_and_the_verdict_comes_first(folder: Path, page: str) -> None:
    reader = Reader(page)
    assert sections(page) == ["generalization"]
    assert reader.headings[0] == "frozen: follows the training wording only; random: follows instructions"
    assert reader.count("h1") == 1
    assert "tiny-base" in reader.text
    assert "arXiv 2510.00237" in reader.text
    assert "from 80 % of the success with the training wording on, and is lost up to 20 %" in reader.text
    assert "2605.17967" not in reader.text
    assert ".stuck" not in page  # nor the style of rows
    assert write_report(folder).stat().st_size < 300_000


def test_all_parts_stand_on_one_page(tmp_path: Path) -> None:
    every = FakeGeneralization().write(FakeRows(treated=("forgotten",)).write(FakeRun().write(tmp_path / "run")))
    page = make_page(every)
    names = ["verdict", "changes", "ratios", "prompt", "rows", "interventions", "generalization", "trust"]
    assert sections(page) == names
    reader = Reader(page)
    assert reader.headings[0] == "Keep step 32"
    assert reader.count("h1") == 1
    assert "Does it survive other wording and harder cases?" in reader.headings
    assert all(number in reader.text for number in ("2605.17967", "2604.10079", "2510.00237"))
    ids = [a["id"] for _, a in reader.tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_beside_rows_or_track_alone(tmp_path: Path) -> None:
    rows = make_page(FakeGeneralization().write(FakeRows().write(tmp_path / "rows")))
    assert sections(rows) == ["rows", "generalization"]
    assert Reader(rows).count("h1") == 1
    track = make_page(FakeGeneralization().write(FakeRun().write(tmp_path / "track")))
    assert sections(track)[-2:] == ["generalization", "trust"]
    assert "generalization" not in sections(make_page(FakeRun().write(tmp_path / "without")))


def test_an_unfinished_part_does_not_hide_the_others(tmp_path: Path) -> None:
    both = FakeGeneralization().write(FakeRun().write(tmp_path / "run"))
    (both / "generalization.parquet").unlink()
    page = make_page(both)
    assert "generalization" not in sections(page)
    assert "What whatstuck generalize began in this run is not finished" in Reader(page).text
    alone = FakeGeneralization().write(tmp_path / "alone")
    (alone / "generalization.parquet").unlink()
    with pytest.raises(WhatStuckError, match=r"generalization\.parquet is missing"):
        make_page(alone)
    FakeGeneralization().write(both)
    (both / "verdict.json").unlink()
    other = make_page(both)
    assert sections(other) == ["generalization"]
    assert "What whatstuck track began in this run is not finished" in Reader(other).text


# --- what it says


def test_the_table_holds_every_variant_under_its_kind(page: str) -> None:
    whole = Reader(page).text
    text = whole[whole.index(" Training wording ") :]
    titles = ("Training wording", "Other instructions", "Harder cases", "Meanings beyond the range", "Fake")
    places = [text.index(f" {title} ") for title in titles]
    assert places == sorted(places)
    assert places[2] < text.index(" Five ") < places[3] < text.index(" Regular ") < places[4]
    assert "A new instruction is shown and the old meaning scored: success here means that the instruction" in text
    assert "shown: J = 6, Q = 9, K = 7" in text
    assert "scored: J = 10, Q = 10, K = 10" in text
    assert "cards 5" in text
    assert re.search(r"All-5 .{0,40}0 % 0 to 1\.3 valid 0 % \(0 to 1\.3\) 97 % 94 to 98", text)


def test_numbers_of_the_table_are_those_of_the_last_step(folder: Path) -> None:
    rows = pq.read_table(folder / "generalization.parquet").to_pylist()
    (row,) = (r for r in rows if (r["arm"], r["variant"], r["step"]) == ("random", "Five", 800))
    (harder,) = (group for group in built(folder)["groups"] if group["title"] == "Harder cases")
    (line,) = harder["lines"]
    assert line["name"] == "Five"
    assert line["cells"][1]["right"]["value"] == f"{100 * row['success']:.0f} %"
    assert line["cells"][1]["right"]["around"] == f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"


def test_chance_is_shown_where_it_is_high(tmp_path: Path) -> None:
    shown = FakeGeneralization(arms=("random",), columns=share_columns(105, 300, "chance"))
    page = make_page(shown.write(tmp_path / "high"))
    text = Reader(page).text
    assert "by chance 35 % (30 to 41)" in text
    assert page.count('class="null by-chance"') == len(KINDS)
    none = make_page(FakeGeneralization(arms=("random",)).write(tmp_path / "none"))
    assert "by chance 0" not in Reader(none).text
    assert "null by-chance" not in none


def test_there_is_a_figure_per_variant_with_both_curves(page: str, tmp_path: Path) -> None:
    reader = Reader(page)
    titles = [a["id"] for tag, a in reader.tags if tag == "title" and a.get("id")]
    assert titles == [f"survives-{index}-t" for index in range(len(KINDS))]
    assert "frozen, valid, 20: 87 % (83 to 91)" in reader.text
    assert "Share of replies from the first to the last step: frozen, right 0 % to 100 %" in reader.text
    one = Reader(make_page(FakeGeneralization(steps=(800,)).write(tmp_path / "one")))
    assert "Over the training" not in one.headings
    assert one.count("svg") == 1  # the hatch of the page alone
    assert "Step 0 was not asked" in one.text


def test_replies_are_shown_right_and_wrong(folder: Path) -> None:
    shown = built(folder)["examples"]
    assert {variant["name"] for variant in shown} == set(KINDS)
    replies = [reply for variant in shown for asked in variant["asked"] for reply in asked["replies"]]
    assert {reply["outcome"] for reply in replies} == {"right", "wrong: wrong numbers"}
    assert {reply["arm"] for reply in replies} == {"frozen", "random"}
    (fake,) = (variant for variant in shown if variant["fake"])
    assert sum(len(asked["replies"]) for asked in fake["asked"]) == 3  # frozen both, random only wrong ones
    prompts = [asked["whole"] for asked in fake["asked"]]
    assert len(prompts) == len(set(prompts)) == 2  # a prompt stands once, with the replies of all arms


def test_drawn_replies_have_a_table_of_their_own(tmp_path: Path) -> None:
    shown = FakeGeneralization(decodings=("greedy", "temperature 0.5")).write(tmp_path / "run")
    assert "The same with replies drawn at temperature 0.5" in Reader(make_page(shown)).text
    only = FakeGeneralization(decodings=("temperature 0.5",)).write(tmp_path / "only")
    assert "Replies were drawn (temperature 0.5)" in Reader(make_page(only)).text


def test_how_it_was_asked_is_said_without_folders(tmp_path: Path) -> None:
    made = FakeGeneralization(settings={"task": "/home/me/tasks/mine.yaml", "options": {"cards": 3}})
    page = make_page(made.write(tmp_path / "run"))
    text = Reader(page).text
    assert "/home/me" not in page
    assert "mine.yaml" in text
    assert "options cards 3" in text
    assert "Items per cell 300 items" in text
    assert "Different contents per cell 235 contents" in text
    assert "Contents passed over, since no item could be made of them: Mixed 17." in text
    assert "Replies without an answer: 56 of 29,400 in this run; each is taken as wrong." in text
    assert "Replies that were cut at the longest length: 630 of 29,400 in this run." in text
    assert "15 % of Five" in text
    assert "checkpoint-20 holds no tokenizer" in text


@pytest.mark.parametrize(("unseen", "known"), [(True, True), (False, False), (None, False)])
def test_unseen_contents_are_claimed_only_where_the_task_keeps_them_apart(
    tmp_path: Path, *, unseen: bool | None, known: bool
) -> None:
    text = Reader(make_page(FakeGeneralization(section={"unseen": unseen}).write(tmp_path / "run"))).text
    assert ("on contents that the task keeps out of its training rows" in text) == known
    assert ("whether these rows were trained on is not known" in text) != known


def test_what_failed_checks_said_is_shown_with_texts_only(tmp_path: Path) -> None:
    said = {"ValueError: quokka": 1200, "no answer in 1 seconds": 3}
    folder = FakeGeneralization(section={"failures": said}).write(tmp_path / "run")
    shown, hidden = Reader(make_page(folder)).text, Reader(make_page(folder, text=False)).text
    assert "What failed checks said times ValueError: quokka 1,200 no answer in 1 seconds 3" in shown
    assert "failed checks" not in hidden
    assert "quokka" not in hidden


def test_a_run_of_an_older_version_is_read(tmp_path: Path) -> None:
    folder = FakeGeneralization(section={"failures": None, "unseen": None}).write(tmp_path / "run")
    for path in (folder / "generalization.parquet", *(folder / "generalization").rglob("*.parquet")):
        table = pq.read_table(path, partitioning=None)
        later = {"cut", "longer", "old", "old_low", "old_high"} & set(table.schema.names)
        pq.write_table(table.drop_columns(sorted(later)), path)
    text = Reader(make_page(folder)).text
    assert "At the end of the training step 800" in text
    assert "Replies that were cut" not in text


def test_uniform_mappings_are_not_overread(tmp_path: Path) -> None:
    uniform = {name: kind for name, kind in KINDS.items() if name != "Mixed"}
    said = "Every new instruction gives all names one and the same meaning."
    assert said in Reader(make_page(FakeGeneralization(kinds=uniform).write(tmp_path / "uniform"))).text
    assert said not in Reader(make_page(FakeGeneralization().write(tmp_path / "mixed"))).text


# --- what it must bear

CASES = {
    "three arms": FakeGeneralization(arms=("frozen", "random", "thought")),
    "one step": FakeGeneralization(steps=(800,)),
    "untouched model": FakeGeneralization(steps=(0,), arms=("random",)),
    "one item": FakeGeneralization(items=1),
    "wordings": FakeGeneralization(kinds=WORDINGS),
    "training alone": FakeGeneralization(kinds={"ID": "training"}),
    "an unknown kind": FakeGeneralization(kinds={"ID": "training", "New": "sideways"}),
    "nothing known": FakeGeneralization(
        columns={name: float("nan") for name in GENERALIZATION.names if GENERALIZATION.field(name).type == pa.float64()}
    ),
    "all columns null": FakeGeneralization(columns=dict.fromkeys(GENERALIZATION.names[6:])),
    "a bare section": FakeGeneralization(section=dict.fromkeys(("settings", "model", "task", "arms", "verdict"))),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a case, written once."""
    return cache(lambda case: CASES[case].write(tmp_path_factory.mktemp("case") / "run"))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_every_run_gives_a_whole_page_without_nan(written: Callable[[str], Path], case: str, *, text: bool) -> None:
    read = Reader(make_page(written(case), text=text))
    assert read.count("section") == 1
    assert read.count("h1") == 1
    assert not re.search(r"\b(nan|inf|None|undefined)\b", read.text)
    for _, attributes in read.tags:
        assert not any(re.search(r"\b(nan|inf)\b", value or "") for value in attributes.values())


def test_a_verdict_that_is_missing_is_made_from_the_table(folder: Path, tmp_path: Path) -> None:
    bare = FakeGeneralization(section={"verdict": None}).write(tmp_path / "run")
    assert built(bare)["verdicts"] == built(folder)["verdicts"]
    old = {"arms": {"frozen": {"verdict": "partly", "sentences": ["It rose early."]}}, "thresholds": {"kept": 0.8}}
    older = FakeGeneralization(section={"verdict": old}).write(tmp_path / "older")
    assert built(older)["verdicts"] == built(folder)["verdicts"]


def test_missing_replies_leave_the_rest(tmp_path: Path) -> None:
    folder = FakeGeneralization().write(tmp_path / "run")
    for path in (folder / "generalization").rglob("*.parquet"):
        path.unlink()
    reader = Reader(make_page(folder))
    assert "At the end of the training step 800" in reader.text
    assert not any(heading.startswith("Replies") for heading in reader.headings)


def test_without_text_no_prompt_reply_or_meaning_is_left(tmp_path: Path) -> None:
    texts = dict.fromkeys(KINDS, ("Zanzibar quokka", "bananarama"))
    notes = ["The checker does not take the reply 'Timbuktu'.", "Ouagadougou"]
    folder = FakeGeneralization(replies=texts, section={"warnings": notes}).write(tmp_path / "run")
    shown, hidden = make_page(folder), make_page(folder, text=False)
    assert "Timbuktu" in shown
    assert "2 notes of this run may hold text of rows, and can be read in run.json." in hidden
    assert not [word for word in ("Timbuktu", "Ouagadougou") if word in hidden]
    assert "Zanzibar" in shown
    assert "bananarama" in shown
    assert "J = 6" in shown
    assert not [word for word in ("Zanzibar", "quokka", "bananarama", "J = 6", "counts as") if word in hidden]
    assert "Texts are left out of this page" in hidden


def test_nothing_from_data_is_markup(tmp_path: Path) -> None:
    folder = FakeGeneralization(
        replies=dict.fromkeys(KINDS, (HOSTILE, HOSTILE)),
        settings={"options": {HOSTILE: HOSTILE}},
        section={"warnings": [HOSTILE], "model": {"name": HOSTILE}},
    ).write(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    for variant in manifest["generalize"]["task"]["variants"]:
        variant["shown"]["pairs"] = [[HOSTILE, HOSTILE]]
        variant["shift"] = {HOSTILE: HOSTILE}
    for arm in manifest["generalize"]["verdict"]["arms"].values():
        arm["sentences"] = [HOSTILE]
    (folder / "run.json").write_text(json.dumps(manifest))
    page = make_page(folder)
    assert "<script>alert" not in page
    assert Reader(page).text.count("alert('x')") >= 20


def _damaged(folder: Path) -> None:
    (folder / "generalization.parquet").write_bytes(b"PAR1")


def _short_of_a_column(folder: Path) -> None:
    path = folder / "generalization.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["validity"]), path)


def _empty(folder: Path) -> None:
    path = folder / "generalization.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (_damaged, "generalization.parquet is damaged"),
        (_short_of_a_column, "of another version"),
        (_empty, "generalization.parquet is empty"),
    ],
)
def test_a_broken_folder_is_one_clear_line(tmp_path: Path, breaks: Callable[[Path], None], message: str) -> None:
    folder = FakeGeneralization().write(tmp_path / "run")
    breaks(folder)
    with pytest.raises(WhatStuckError, match=re.escape(message)) as error:
        make_page(folder)
    assert "\n" not in str(error.value)


def test_the_page_asks_for_nothing_and_is_the_same_every_time(folder: Path, page: str) -> None:
    for tag, attributes in Reader(page).tags:
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    assert "http" not in page
    assert make_page(folder) == page


def test_the_table_is_there_from_python(folder: Path, tmp_path: Path) -> None:
    table = load_run(folder).generalization
    assert table.schema.names == GENERALIZATION.names
    assert table.num_rows == 2 * 7 * len(KINDS)
    with pytest.raises(WhatStuckError, match="was not made by `whatstuck generalize` but by `whatstuck rows`"):
        _ = load_run(FakeRows().write(tmp_path / "rows")).generalization
    with pytest.raises(WhatStuckError, match="was not made by `whatstuck rows` but by `whatstuck generalize`"):
        _ = load_run(folder).unlearned

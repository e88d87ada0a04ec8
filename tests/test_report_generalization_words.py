"""Headline, titles and notes on the page of other wordings: they speak of what was asked, and in numbers that agree."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_generalization import FakeGeneralization, share_columns
from page_reader import Reader
from whatstuck.report import make_page
from whatstuck.report.reading import read_manifest
from whatstuck.report.reading_generalization import read_generalization_run
from whatstuck.report.sections.generalization import build

WORDINGS = {"ID": "training", "Reworded": "wording"}
ALONE = {"ID": "training"}
UNABLE = share_columns(3, 300, "success")
UNCLEAR = share_columns(33, 300, "success")
FIGURES = 'class="null by-chance"'


def built(folder: Path, *, text: bool = True) -> dict[str, Any]:
    return build(read_generalization_run(folder, read_manifest(folder)), text=text)


def with_columns(folder: Path, values: dict[str, dict[str, float | int | None]]) -> Path:
    """Columns of the table by variant, in place of those that are there."""
    path = folder / "generalization.parquet"
    table = pq.read_table(path)
    variants = table["variant"].to_pylist()
    for name, by_variant in values.items():
        kind = pa.int64() if name == "longer" else pa.float64()
        column = pa.array([by_variant.get(variant) for variant in variants], kind)
        kept = [other for other in table.schema.names if other != name]
        table = table.select(kept).append_column(name, column)
    pq.write_table(table, path)
    return folder


# --- what comes first


@pytest.mark.parametrize(
    ("made", "headline"),
    [
        (FakeGeneralization(arms=("frozen",)), "Frozen: it follows the training wording only"),
        (FakeGeneralization(arms=("random",)), "It follows instructions"),
        (FakeGeneralization(arms=("thought",)), "It follows other instructions in part"),
        (FakeGeneralization(arms=("random",), kinds=WORDINGS), "It survives other wording in part"),
        (FakeGeneralization(arms=("random",), kinds=WORDINGS, items=30), "It may or may not survive other wording"),
        (
            FakeGeneralization(arms=("random",), kinds={"ID": "training", "Five": "harder"}),
            "It transfers to harder cases in part",
        ),
        (
            FakeGeneralization(arms=("frozen",), kinds={"ID": "training", "Regular": "harder"}),
            "It does not follow meanings beyond the range",
        ),
        (
            FakeGeneralization(arms=("frozen",), kinds={"ID": "training", "Fake": "fake"}),
            "It does what the old instruction said",
        ),
        (FakeGeneralization(arms=("random",), kinds=ALONE), "It was asked in the training wording only"),
        (
            FakeGeneralization(arms=("random",), kinds={"All-5": "instruction"}),
            "It was not asked in the training wording at its last step, so what survives cannot be told",
        ),
        (
            FakeGeneralization(arms=("random",), kinds={"Reworded": "wording"}),
            "It was not asked in the training wording at its last step, so what survives cannot be told",
        ),
        (FakeGeneralization(arms=("random",), kinds=ALONE, columns=UNABLE), "It cannot do the task"),
        (
            FakeGeneralization(arms=("frozen",), columns=UNABLE),
            "It cannot do the task, so what survives cannot be asked",
        ),
        (
            FakeGeneralization(arms=("random",), kinds=WORDINGS, columns=UNABLE),
            "It cannot do the task, so what survives cannot be asked",
        ),
        (
            FakeGeneralization(arms=("random",), kinds=WORDINGS, columns=UNCLEAR),
            "It may or may not be able to do the task, so what survives cannot be told",
        ),
        (FakeGeneralization(kinds=WORDINGS), "Each of 2 arms survives other wording in part"),
        (
            FakeGeneralization(kinds=WORDINGS, columns=UNABLE),
            "Each of 2 arms cannot do the task, so what survives cannot be asked",
        ),
    ],
)
def test_the_headline_is_the_verdict(tmp_path: Path, made: FakeGeneralization, headline: str) -> None:
    assert Reader(make_page(made.write(tmp_path / "run"))).headings[0] == headline


def test_where_wordings_alone_were_asked_instructions_are_not_spoken_of(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("random",), kinds=WORDINGS).write(tmp_path / "run")
    page = make_page(folder)
    nav = page[page.index("<nav") : page.index("</nav>")]
    assert "Other wording" in nav
    assert "nstruction" not in nav
    shown = built(folder)
    assert "Fake" not in shown["rule"]
    said = [shown["headline"], shown["verdicts"][0]["title"], *map(str, shown["verdicts"][0]["facts"]), shown["rule"]]
    assert not [words for words in said if "nstruction" in words or "rozen" in words]
    all_of_it = built(FakeGeneralization().write(tmp_path / "all"))
    assert "that an instruction is ignored is shown from 60 % on, by Fake." in all_of_it["rule"]


def test_the_training_wording_that_was_asked_earlier_only_is_missed(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("frozen",)).write(tmp_path / "run")
    path = folder / "generalization.parquet"
    rows = [row for row in pq.read_table(path).to_pylist() if row["variant"] != "ID" or row["step"] < 800]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    assert "was not asked in the training wording at its last step" in built(folder)["headline"]


def test_an_arm_that_cannot_do_the_task_has_no_facts_about_what_survives(tmp_path: Path) -> None:
    unable = built(FakeGeneralization(arms=("frozen",), columns=UNABLE).write(tmp_path / "unable"))
    assert unable["verdicts"][0]["facts"] == []
    able = built(FakeGeneralization(arms=("frozen",)).write(tmp_path / "able"))
    assert ("does what the old instruction said", "yes") in able["verdicts"][0]["facts"]


# --- the table


def test_words_that_mean_themselves_stand_alone(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("random",), kinds=WORDINGS).write(tmp_path / "run")
    path = folder / "run.json"
    path.write_text(path.read_text().replace('["J", "10"]', '["Up", "Up"]').replace('["Q", "10"]', '["Left", "Left"]'))
    mixed = Reader(make_page(folder)).text
    assert "shown: Up = Up, Left = Left, K = 10" in mixed  # one that does not: all are written out
    path.write_text(path.read_text().replace('["K", "10"]', '["Down", "Down"]'))
    text = Reader(make_page(folder)).text
    assert "shown: Up, Left, Down" in text
    assert "=" not in text[: text.index("How it was asked")]


OLD = {"All-5": 0.9, "All-7": 0.0, "Mixed": None, "Regular": 0.5}


@pytest.mark.parametrize("arms", [("frozen",), ("frozen", "random")])
def test_what_obeys_the_old_instruction_has_a_column(tmp_path: Path, arms: tuple[str, ...]) -> None:
    columns: dict[str, dict[str, float | int | None]] = {
        "old": OLD,
        "old_low": {name: value and value - 0.04 for name, value in OLD.items()},
        "old_high": {name: None if value is None else value + 0.04 for name, value in OLD.items()},
    }
    folder = with_columns(FakeGeneralization(arms=arms).write(tmp_path / "run"), columns)
    page = make_page(folder)
    text = Reader(page).text
    table = page[page.index('<table class="variants">') : page.index("</table>")]
    assert table.count(">obeys the old instruction<") == len(arms)
    assert "A reply obeys the old instruction if" in text
    lines = {line["name"]: line["cells"][0]["old"] for group in built(folder)["groups"] for line in group["lines"]}
    assert "is shown from 60 % on, by Fake or replies that obey the old instruction." in text
    assert lines["All-5"] == {"value": "90 %", "around": "86 to 94", "more": ""}
    assert lines["All-7"]["value"] == "0 %"
    assert lines["Mixed"]["value"] == "not known"  # a new instruction, of which nothing is known
    assert lines["Regular"]["value"] == "50 %"
    assert lines["ID"] is lines["Five"] is lines["Fake"] is None  # it is no question there
    # as many cells in every line as there are columns
    for row in table.split("<tr")[1:]:
        if 'scope="row"' in row:
            assert row.count("<td") == 2 * len(arms)


def test_without_it_there_is_no_column(tmp_path: Path) -> None:
    folder = FakeGeneralization().write(tmp_path / "run")
    names = [name for name in pq.read_schema(folder / "generalization.parquet").names if not name.startswith("old")]
    path = folder / "generalization.parquet"
    pq.write_table(pq.read_table(path, columns=names), path)
    without = make_page(folder)
    unknown = make_page(with_columns(folder, {"old": {}, "old_low": {}, "old_high": {}}))
    for page in (without, unknown):
        assert "obeys the old" not in page
        assert '<td class="old"' not in page


# --- notes


def test_replies_that_go_on_are_counted_where_there_are_any(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("random",), steps=(0, 800)).write(tmp_path / "run")
    assert "go on" not in Reader(make_page(with_columns(folder, {"longer": {"ID": 0}}))).text
    text = Reader(make_page(with_columns(folder, {"longer": {"ID": 1200, "Five": 1}}))).text
    assert (
        "Replies that begin with an answer and go on: 2,402 of 4,200 in this run. They are not right, since "
        "what follows may take the answer back; where they are many, ask for the answer alone"
    ) in text


def test_numbers_and_nouns_agree(tmp_path: Path) -> None:
    made = FakeGeneralization(
        arms=("random",), steps=(0,), items=1, kinds=ALONE, columns={"no_answer": 1}, section={"warnings": ["x"]}
    )
    folder = made.write(tmp_path / "run")
    shown = built(folder, text=False)
    assert "Replies without an answer: 1 of 1 in this run; each is taken as wrong." in shown["passed_over"]
    made_how = dict(shown["made"])
    assert made_how["Step of random"] == "0"
    assert made_how["Items per cell"] == "1 item"
    assert made_how["Different contents per cell"] == "1 content"
    assert shown["caveats"][-1].startswith("1 note of this run")


def test_hashes_stand_with_how_it_was_made_and_not_in_the_header(tmp_path: Path) -> None:
    digest, identity = "0ba7c6f9687296f4", "7131f8236b04d11966ca49163e0003123eaa7c615cd76e000ddbc9c48df331fa"
    section = {
        "model": {"name": f"small.Q4_1-{digest}"},
        "task": {"name": "mine", "identity": identity, "variants": []},
    }
    folder = FakeGeneralization(section=section).write(tmp_path / "run")
    page = make_page(folder)
    header = page[page.index("<header>") : page.index("</header>")]
    assert "small.Q4_1<" in header
    assert digest[:8] not in page[: page.index("How it was asked")]
    made = dict(built(folder)["made"])
    assert made["Model"] == "small.Q4_1"
    assert made["Hash of the model's file"] == digest[:12]
    assert made["Hash of the task's files"] == identity[:12]
    plain = dict(built(FakeGeneralization().write(tmp_path / "plain"))["made"])
    assert plain["Model"] == "tiny-base"
    assert not [name for name in plain if "Hash" in name]


def test_the_band_of_chance_lies_behind_and_has_its_own_hatch(tmp_path: Path) -> None:
    folder = FakeGeneralization(arms=("random",), columns=share_columns(105, 300, "chance")).write(tmp_path / "run")
    page = make_page(folder)
    figures = page.split("<svg")[2:]
    assert len(figures) == page.count(FIGURES)
    for figure in figures:
        assert figure.index(FIGURES) < figure.index('class="band"')  # what comes first is covered by what follows
    assert ".null.by-chance ~ .series .band" in page  # the style by which the interval covers it
    assert "its 95 % interval, shaded" in page
    assert "right by chance, 95 % interval, hatched" in page

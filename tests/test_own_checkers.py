"""Checkers of a user's own: patterns and functions, timed, in a process of their own, tried on right replies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from own_task import BASE, NOTHING_HELD_OUT, ROWS, score, write_task
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.own import trying
from whatstuck.generalization.own.checking import guarded


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Function that writes a task file and its rows, and loads it."""
    return partial(write_task, tmp_path)


def test_a_pattern_finds_the_answer(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = make(BASE + "checker: 'regex: answer is (\\w+)'\n")
    assert score(task, "training", "I think the answer is NO, so") == (True, True, "right")
    assert score(task, "training", "the answer is maybe") == (False, False, "other_word")
    assert score(task, "training", "no") == (False, False, "no_answer")
    # a note stands on pages that hold no text of rows: the reply is in the log alone
    assert task.notes[0] == (
        "The checker does not take the right reply to rows.jsonl line 1, as `reply` writes it (no_answer): if such a "
        "reply is right, nothing below is."
    )
    assert "does not take the reply 'No' to rows.jsonl line 1" in caplog.text


def test_a_pattern_that_never_ends_is_timed_out(make: Any) -> None:
    task = make(BASE + "checker: 'regex: ^(?:x+x+)+y|\\w+'\ntime_limit: 0.2\n")
    began = time.monotonic()
    assert score(task, "training", "x" * 60) == (False, False, "check_timed_out")  # C, which hears no signal of Python
    assert time.monotonic() - began < 10
    assert score(task, "training", "no") == (True, True, "right")  # another worker goes on
    assert task.scorer.guard.failures == {"no answer in 0.2 seconds": 1}


CHECKER = """\
import os, subprocess, sys, time
seen = []
def judge(row, answer):
    seen.append(answer)
    print("noise on stdout", answer)
    if answer == "raise": raise ValueError("first line\\nsecond line")
    if answer == "hang":
        while True: pass
    if answer == "sleep": time.sleep(60)
    if answer == "fork":  # a child that outlives it, and holds its pipes open
        subprocess.Popen(["sleep", "60"], close_fds=False)
        time.sleep(60)
    if answer == "leave":  # a child with all that is open, which leaves the group: it is not ended with it
        child = os.fork()
        if not child:
            os.setsid()
            time.sleep(20)
            os._exit(0)
        open("child.txt", "w").write(str(child))
    if answer == "exit": sys.exit(3)
    if answer == "die": os._exit(1)
    if answer == "silent": return None
    if answer == "count": return len(seen) == 1
    if answer == "read": return sys.stdin.read() == ""
    return answer == row["gold"] and row["b"].startswith("right")
"""


def test_a_function_of_the_users_own(make: Any) -> None:
    task = make(BASE + "checker: judge.py:judge\ntime_limit: 0.3\n", judge__py=CHECKER)
    outcomes = {
        reply: score(task, "training", reply)[2]
        for reply in ("No", "Yes", "raise", "silent", "exit", "read", "hang", "count", "die", "sleep", "fork", "No.")
    }
    assert outcomes == {
        "No": "right",
        "Yes": "wrong",
        "raise": "check_failed",
        "silent": "check_failed",
        "exit": "check_failed",
        "read": "right",
        "hang": "check_timed_out",
        "count": "right",  # the first one of a new worker
        "die": "check_failed",
        "sleep": "check_timed_out",
        "fork": "check_timed_out",
        "No.": "wrong",
    }
    assert task.scorer.guard.failures == {
        "ValueError: first line": 1,
        "it returned None, not True or False": 1,
        "SystemExit: 3": 1,
        "no answer in 0.3 seconds": 3,
        "the checker ended its process": 1,
    }
    assert score(task, "letters", "B") == (True, True, "right")


TRIED = """\
import os, time
def right(row, answer): return answer == row["gold"]
def one(answer): return True
def nothing(row, answer): answer == row["gold"]
def words(row, answer): return "yes"
def strict(row, answer): return answer == "Yes"
def of_words(row, answer): return answer.lower() == row["label"]
def third(row, answer): return row["a"] != "left 2"
def error(row, answer): return {"No": True}[answer]
def hang(row, answer): time.sleep(60)
def die(row, answer): os._exit(1)
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "one",
            r"'No' to rows.jsonl line 1 \(TypeError: one\(\) takes 1 positional argument but 2 were given\): mend it",
        ),
        ("nothing", r"'No' to rows.jsonl line 1 \(it returned None, not True or False\): mend it; it is called as"),
        ("words", r"'No' to rows.jsonl line 1 \(it returned 'yes', not True or False\): mend it"),
        ("error", r"'Yes' to rows.jsonl line 2 \(KeyError: 'Yes'\)"),
        ("hang", r"'No' to rows.jsonl line 1 \(no answer in 0.3 seconds\): mend it, or raise time_limit"),
        ("die", r"'No' to rows.jsonl line 1 \(the checker ended its process\)"),
    ],
)
def test_a_checker_that_fails_on_right_replies_ends_the_call(
    make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, function: str, message: str
) -> None:
    monkeypatch.setattr(trying, "_FIRST", 0.0)
    text = BASE + f"held_out: [letters, bare]\ntime_limit: 0.3\nchecker: judge.py:{function}\n"
    with pytest.raises(WhatStuckError, match=rf"mine.yaml: the checker 'judge.py:{function}' .* {message}") as caught:
        make(text, judge__py=TRIED)
    assert "\n" not in str(caught.value)
    assert caplog.records == []  # it is said once


@pytest.mark.parametrize(("function", "line"), [("strict", 1), ("of_words", 1), ("third", 3)])
def test_a_refusal_of_right_replies_is_said(
    make: Any, caplog: pytest.LogCaptureFixture, function: str, line: int
) -> None:
    """What is right may be written otherwise, as where the answer holds tests for a program."""
    task = make(BASE + f"held_out: [letters, bare]\nchecker: judge.py:{function}\n", judge__py=TRIED)
    assert f"right reply to rows.jsonl line {line}, as `reply` writes it (it returned False)" in task.notes[0]
    assert "does not take the reply" in caplog.text


def test_a_checker_may_import_late(make: Any) -> None:
    late = "import time\nseen = []\ndef judge(row, answer):\n    time.sleep(0 if seen else 0.6)\n    seen.append(1)\n"
    task = make(BASE + "time_limit: 0.3\nchecker: judge.py:judge\n", judge__py=f"{late}    return True\n")
    assert score(task, "training", "No")[2] == "right"


def test_a_checker_by_entry_point_is_tried_too(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "site" / "judges-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: judges\nVersion: 1\n", encoding="utf-8")
    points = "[whatstuck.checkers]\none = judges:one\nright = judges:right\n"
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    (tmp_path / "site" / "judges.py").write_text(TRIED, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(WhatStuckError, match=r"the checker 'one' does not take .* line 1 \(TypeError: one\(\)"):
        make(BASE + "checker: one\n")
    assert make(BASE + "checker: right\n").notes == (NOTHING_HELD_OUT,)


def test_a_pattern_that_hangs_on_a_right_reply_ends_the_call(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "_FIRST", 0.0)
    text = BASE + f"checker: 'regex: ^(?:x+x+)+y|\\w+$'\nreply: '{'x' * 50} {{answer}}'\ntime_limit: 0.2\n"
    with pytest.raises(WhatStuckError, match=r"to rows.jsonl line 1 \(no answer in 0.2 seconds\): mend it") as caught:
        make(text)
    assert len(str(caught.value)) < 250


@pytest.mark.skipif(os.name == "nt", reason="nothing forks there")
def test_a_child_that_holds_the_pipe_holds_up_nobody(make: Any, tmp_path: Path) -> None:
    task = make(BASE + "checker: judge.py:judge\n", judge__py=CHECKER)
    assert score(task, "training", "leave")[2] == "wrong"
    began = time.monotonic()
    task.scorer.guard.close()
    took = time.monotonic() - began
    os.kill(int((tmp_path / "child.txt").read_text(encoding="utf-8")), signal.SIGKILL)
    assert took < 10  # the child would sleep for 20
    assert score(task, "training", "No")[2] == "right"


# the clock is that of the checker, which stops it: nothing but a look at the parent ends such a worker
DISARMING = """\
import os, signal, time
from pathlib import Path
def judge(row, answer):
    signal.setitimer(signal.ITIMER_REAL, 0)
    Path("pid.txt").write_text(str(os.getpid()))
    time.sleep(60)
"""
SLOW_TO_LOAD = """\
import os, time
from pathlib import Path
Path("pid.txt").write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="processes have no parent there")
@pytest.mark.parametrize("code", [DISARMING, SLOW_TO_LOAD], ids=["disarming", "loading"])
def test_a_worker_ends_with_who_started_it(tmp_path: Path, code: str) -> None:
    (tmp_path / "slow.py").write_text(code, encoding="utf-8")
    ask = "from whatstuck.generalization.own.checking import guarded; guarded('slow.py:judge', time_limit=60)({}, 'x')"
    parent = subprocess.Popen([sys.executable, "-c", ask], cwd=tmp_path)
    told = tmp_path / "pid.txt"
    wait_for(lambda: told.is_file() and told.read_text(encoding="utf-8").isdigit())
    worker = int(told.read_text(encoding="utf-8"))
    assert is_running(worker)
    parent.kill()
    parent.wait()
    try:
        wait_for(lambda: not is_running(worker))
    finally:
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="there is no such clock there")
def test_loading_is_timed_by_the_worker_itself(tmp_path: Path) -> None:
    """As where nobody is left to end it, and the import sits in C, where no thread runs."""
    (tmp_path / "slow.py").write_text("import re\nre.match('(?:x+x+)+y', 'x' * 60)\n", encoding="utf-8")
    settings = {"kind": "function", "what": "slow.py:judge", "folder": str(tmp_path), "time_limit": 1.0}
    code = "from whatstuck.generalization.own import worker; worker._GRACE = 0.5; worker.main()"
    asked = json.dumps({**settings, "loading": 0.5, "parent": os.getpid()}) + "\n"
    said = subprocess.run(
        [sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=False, timeout=30
    )
    assert (said.returncode, said.stdout) == (-signal.SIGALRM, "")


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may have waited for."""
    command = [shutil.which("ps") or "ps", "-o", "stat=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return bool(said.strip()) and not said.strip().startswith("Z")


def test_one_worker_checks_many_rows(tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text("def check(row, answer): return row['n'] == int(answer)\n", encoding="utf-8")
    check = guarded("fast.py:check", folder=tmp_path)
    began = time.monotonic()
    assert all(check({"n": n}, str(n)).found is True for n in range(2000))
    assert time.monotonic() - began < 5  # about 0.1 s; a process each would take minutes
    check.close()
    assert check({"n": 1}, "2").found is False
    assert check({"n": 1}, "\ud800 x").failure == "check_failed"  # half a surrogate comes through, and int() refuses it
    check.close()


def test_a_worker_starts_without_torch() -> None:
    """It is started again after every check that hangs, and torch takes seconds to import."""
    code = "import sys, whatstuck.generalization.own.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_code_of_a_checker_is_part_of_a_task(make: Any) -> None:
    text = BASE + "checker: judge.py:judge\n"
    first, again = make(text, judge__py=CHECKER), make(text, judge__py=CHECKER)
    changed = make(text, judge__py=CHECKER + "# better\n")
    assert first.identity == again.identity != changed.identity
    assert make().identity != make(rows=ROWS[:-1]).identity

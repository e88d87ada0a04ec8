"""The wheel works where it is installed, templates included."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fake_run import FakeRun

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_writes_a_page_from_where_it_is_installed(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("whatstuck-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "whatstuck" / "py.typed").exists()
    run = FakeRun().write(tmp_path / "run")
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import whatstuck.report as r; "
        f"assert r.__file__.startswith({str(installed)!r}), r.__file__; print(r.write_report({str(run)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).stat().st_size > 10_000

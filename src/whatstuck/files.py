"""Files that appear whole or not at all. Nothing heavy is imported here, so that the report can use it too."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name once it is whole and on disk.

    Args:
        path: The file to write; its folder is made.

    Yields:
        Where to write. After an error nothing is left of it, and a file that was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private; runs are shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

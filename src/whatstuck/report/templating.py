"""What both pages are made with: the template environment, style and script, and a file that appears whole or not."""

from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from whatstuck.errors import WhatStuckError
from whatstuck.files import whole


def environment() -> jinja2.Environment:
    """Templates of this package: everything is escaped, and a name that is not known is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("whatstuck.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style(*names: str) -> Markup:
    """Our own style sheets or scripts, joined."""
    folder = resources.files("whatstuck.report").joinpath("templates")
    return Markup("\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))  # noqa: S704 - ours


def write_page(target: Path, page: str, advice: str) -> Path:
    """Write a page.

    Raises:
        WhatStuckError: If it cannot be written, with the advice.
    """
    try:
        with whole(target) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WhatStuckError(f"{target} cannot be written ({error.strerror}): {advice}") from error
    return target

"""What a variant may be called: it names a file of the run folder, and a line of the page."""

from whatstuck.errors import WhatStuckError

_LONGEST = 100  # bytes; file systems take 255, the ending included


def refuse_bad_name(name: str) -> None:
    """Refuse a name of a template, a mapping or a variant that cannot be the name of a file.

    Raises:
        WhatStuckError: If it is empty, too long, begins with a dot, or holds a slash or a control character.
    """
    shown = name if len(name) <= _LONGEST else f"{name[:20]}..."
    if not name.strip() or name.startswith(".") or any(sign in "/\\" or not sign.isprintable() for sign in name):
        raise WhatStuckError(f"the name {shown!r} cannot be that of a file: use letters, digits, spaces, '_' and '-'")
    if len(name.encode(errors="replace")) > _LONGEST:
        raise WhatStuckError(f"the name {shown!r} is too long: give one of at most {_LONGEST} bytes")

"""The verb that makes a prompt-diverse training set: `diversify`."""

from pathlib import Path
from typing import Annotated

import typer

from whatstuck.cli.base import ConfigOption, DryRunOption, JsonOption, SeedOption, read_given, say, verb
from whatstuck.errors import WhatStuckError


@verb
def diversify(
    data: Annotated[Path, typer.Argument(help="The rows: JSONL, JSON, CSV, TSV or Parquet.")],
    *,
    config: ConfigOption = None,
    templates: Annotated[
        Path | None, typer.Option(help="YAML of prompt templates and, perhaps, what labels mean.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The JSONL to write; a manifest comes beside it.")] = None,
    wordings: Annotated[
        str | None,
        typer.Option(help="How many: a number, all, or many (new words for every row). (default: all)"),
    ] = None,
    seed: SeedOption = None,
    dry_run: DryRunOption = False,
    json_line: JsonOption = False,
) -> None:
    r"""Ask the same training rows in several wordings, so that the model must read the instruction.

    ```
    whatstuck diversify train.jsonl --templates templates.yaml --out diverse.jsonl
    whatstuck diversify train.csv --templates templates.yaml --out frozen.jsonl --wordings 1
    ```

    where templates.yaml holds

    ```
    answer: label
    templates:
      plain: "{sentence} Positive or negative? Say {pos} or {neg}."
      polite: "Please answer {pos} if this is positive, else {neg}: {sentence}"
    mappings:
      words: {pos: positive, neg: negative}
      letters: {pos: A, neg: B}
    ```
    """
    given = read_given(config, templates=templates, out=out, wordings=wordings, seed=seed)
    unknown = set(given) - {"templates", "out", "wordings", "seed"}
    if unknown:
        raise WhatStuckError(f"{min(unknown)!r} is no setting of diversify")
    for name in ("templates", "out"):
        if given.get(name) is None:
            raise WhatStuckError(f"--{name} is missing: give it as a flag, or in --config")
    from whatstuck.generalization.diversify import diversify as make_diverse

    manifest = make_diverse(
        data,
        given["templates"],
        given["out"],
        wordings=given.get("wordings", "all"),
        seed=_whole_number(given.get("seed", 0)),
        dry_run=dry_run,
    )
    result = {"out": str(given["out"]), "rows": manifest["rows"], "wordings": manifest["wordings"]}
    if json_line:
        say({**result, "not_used": manifest["not_used"]}, json_line=True)
        return
    shares = (f"{one['template']} with {one['mapping'] or 'drawn words'}: {one['rows']}" for one in result["wordings"])
    say({**result, "wordings": "; ".join(shares)}, json_line=False)
    for name, why in manifest["not_used"].items():
        typer.echo(f"- {name}: not used ({why})")


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WhatStuckError(f"--seed must be a whole number, got {value!r}")
    return value

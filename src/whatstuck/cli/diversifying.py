"""The verb that makes a prompt-diverse training set: `diversify`."""

from pathlib import Path
from typing import Annotated

import typer

from whatstuck.cli.base import ConfigOption, DryRunOption, JsonOption, SeedOption, read_given, say, verb


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
      colours: {pos: red, neg: blue}
    held_out: [polite, colours]
    ```

    What is held out is not trained: `generalize` asks it, to see whether the instruction is read.
    """
    given = read_given(config, data=data, templates=templates, out=out, wordings=wordings, seed=seed)
    from whatstuck.generalization.diversify import DiversifySettings
    from whatstuck.generalization.diversify import diversify as make_diverse

    settings = DiversifySettings.read(**given)
    manifest = make_diverse(**settings.model_dump(), dry_run=dry_run)
    result = {"out": str(settings.out), "rows": manifest["rows"], "wordings": manifest["wordings"]}
    if json_line:
        say({**result, "not_used": manifest["not_used"]}, json_line=True)
        return
    shares = (f"{one['template']} with {one['mapping'] or 'drawn words'}: {one['rows']}" for one in result["wordings"])
    say({**result, "wordings": "; ".join(shares)}, json_line=False)
    for name, why in manifest["not_used"].items():
        typer.echo(f"- {name}: not used ({why})")

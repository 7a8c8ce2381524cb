"""`ferserve ledger`: each paper's claims against ours, from result files alone."""

from pathlib import Path
from typing import Annotated

import typer


def ledger(
    results: Annotated[Path, typer.Option(help="Folder of the result files that train and evaluate wrote.")] = Path(
        "docs/results"
    ),
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("docs/ledger.md"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if the file is another.")] = False,
) -> None:
    """Write the reproduction ledger."""
    from ferserve.training.data.errors import DataError
    from ferserve.training.ledger.measured import read_results
    from ferserve.training.ledger.page import render

    text = render(read_results(results))
    if not check:
        out.write_text(text)
        typer.echo(out)
    elif not out.is_file() or out.read_text() != text:
        raise DataError(f"{out}: expected what `ferserve ledger --results {results}` writes; commit what it writes")

"""`ferserve plot`: the learning curves of a run, as far as it has come."""

from pathlib import Path
from typing import Annotated

import typer


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("curves.png"),
) -> None:
    """Draw loss and validation accuracy by epoch."""
    from ferserve.training.data.errors import DataError
    from ferserve.training.engine import read_history
    from ferserve.training.visualize import plot_curves

    rows = read_history(run)
    if not rows:
        raise DataError(f"expected history.jsonl with at least one epoch in {run}, found none")
    plot_curves(rows, out)
    typer.echo(out)

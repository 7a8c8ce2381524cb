"""`ferserve tradeoff`: accuracy against milliseconds of several archives, in every precision that they hold."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ferserve.training.tradeoff import Tradeoff


def tradeoff(
    archives: Annotated[
        list[str], typer.Argument(metavar="ARCHIVE...", help="Names or paths; the first is compared with.")
    ],
    data: Annotated[str, typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR.")],
    split: Annotated[
        Literal["public", "train-validation"],
        typer.Option(help="Faces to measure on; a choice between archives belongs on train-validation."),
    ] = "train-validation",
    recipe: Annotated[
        list[Path] | None,
        typer.Option(help="recipe.json of a run whose recipe is none of this version's."),
    ] = None,
    result: Annotated[Path | None, typer.Option(help="JSON file to write; none without it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw; none without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure accuracy and time a face of several archives in one run, on one thread; int8 too where it runs."""
    from ferserve.training.tradeoff import measure_tradeoff
    from ferserve.training.visualize import plot_tradeoff

    found = measure_tradeoff(archives, data, split=split, recipes=recipe or ())
    text = json.dumps(found.to_dict(), indent=2)
    if result is not None:
        result.write_text(text + "\n")
    if plot is not None:
        plot_tradeoff(found, plot)
    if as_json:
        typer.echo(text)
        return
    console = Console()
    console.print(_table(found))
    machine = found.machine
    console.print(f"{machine.cpu.name}, ONNX Runtime {machine.onnxruntime}, one thread; medians of core time")
    if machine.cpu.vnni is False:
        console.print("int8 is not measured here: this CPU has no VNNI")


def _table(found: "Tradeoff") -> Table:
    faces = found.candidates[0].report.faces
    table = Table(title=f"{found.split}, {faces} faces")
    for heading in (
        "archive",
        "input",
        "precision",
        "accuracy",
        "points to the first",
        "ECE",
        "ms a face, batch 1",
        "batch 8",
    ):
        table.add_column(heading)
    for row in found.candidates:
        accuracy, difference = row.report.accuracy, row.paired.difference
        table.add_row(
            f"{row.archive} {row.version}",
            f"{row.input_size_px} px",
            row.precision,
            f"{100 * accuracy.value:.2f} % ({100 * accuracy.low:.2f} to {100 * accuracy.high:.2f})",
            f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})",
            f"{100 * row.report.ece:.2f} %",
            f"{row.ms_per_face(1):.2f}",
            f"{row.ms_per_face(8):.2f}",
        )
    return table

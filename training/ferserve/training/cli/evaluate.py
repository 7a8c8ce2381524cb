"""`ferserve evaluate`: an archive against a labelled split."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Name or path of an archive; default.")],
    data: Annotated[str, typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR.")],
    split: Annotated[Literal["public", "private", "train"], typer.Option(help="Rows of the data set.")] = "public",
    labels: Annotated[
        Literal["fer2013", "ferplus"], typer.Option(help="The data set's own labels, or FERPlus's majority.")
    ] = "fer2013",
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for confusion.png and reliability.png; none without it.")
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="JSON file to write, with archive, data and machine named; none without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Score every face of a split and print accuracy with its 95 % interval, calibration and confusion."""
    from ferserve.training.measure import evaluate_archive
    from ferserve.training.results import evaluation_result, write_result
    from ferserve.training.visualize import plot_confusion, plot_reliability

    measured = evaluate_archive(archive, data, split=split, labels=labels, threads=threads)
    if result is not None:
        write_result(result, evaluation_result(archive, measured, data, split=split, labels=labels))
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        plot_confusion(measured.report, plots / "confusion.png", title=f"{archive} on {split}")
        plot_reliability(measured.scores, measured.labels, plots / "reliability.png")
    if as_json:
        typer.echo(json.dumps(measured.to_dict(), indent=2))
        return
    table = Table(title=f"{archive} on {data.partition('=')[0]} {split}, labels {labels}")
    for heading in ("", "faces", "accuracy", "95 % interval", "ECE", "Brier"):
        table.add_column(heading)
    rows = [("whole split", measured.report)]
    if measured.without_duplicates is not None:
        rows.append(("without pictures of Training", measured.without_duplicates))
    for name, report in rows:
        accuracy = report.accuracy
        interval = f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %"
        values = (f"{100 * accuracy.value:.2f} %", interval, f"{100 * report.ece:.2f} %", f"{report.brier:.4f}")
        table.add_row(name, str(report.faces), *values)
    console = Console()
    console.print(table)
    for reason, count in measured.dropped.items():
        console.print(f"left out: {count} ({reason})")

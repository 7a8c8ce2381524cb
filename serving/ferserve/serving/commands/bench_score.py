"""`ferserve bench score`: a folder's run against its computation alone, and against `fer`."""

import os
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ferserve.serving.commands.bench_load import Peer
from ferserve.serving.commands.options import (
    AsJson,
    DetectorName,
    Hashes,
    Models,
    PrecisionName,
    Threads,
    models_section,
)

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.bulk_speed import BulkSpeed


def score(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Pictures to score.")],
    *,
    pictures: Annotated[
        int, typer.Option(min=1, help="Of the folder, the first ones; every process holds them.")
    ] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Turns; the first one of each is not counted.")] = 5,
    against: Annotated[
        Peer | None,
        typer.Option(help="The same pictures in this package too; an environment with it is made if missing."),
    ] = None,
    threads: Threads = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    as_json: AsJson = False,
) -> None:
    """Score a folder in turns with its computation alone: decode, detect, cut out, classify, on all cores."""
    from ferserve.serving.benchmarks.against import fer_processes, fer_python
    from ferserve.serving.benchmarks.bulk_speed import first_pictures, measure_bulk
    from ferserve.serving.commands.figures import echo_json
    from ferserve.serving.cores import available_cores
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    flags = {"models": models_section(model, sha256, detector, precision)}
    models = read_settings(EngineConfig, file=None, environ={}, flags=flags).models
    paths = first_pictures(folder, pictures)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ferserve"
    with (
        Console(stderr=True).status("measuring"),
        nullcontext() if against is None else fer_processes(fer_python(cache), list(map(Path, paths))) as fer,
    ):
        speed = measure_bulk(models, paths, threads=threads or available_cores(), rounds=rounds, fer=fer)
    if as_json:
        echo_json(speed)
    else:
        _print(speed)


def _print(speed: "BulkSpeed") -> None:
    from ferserve.serving.commands.figures import machine_line, report_console

    console = report_console()
    table = Table("pictures/s", "median", "lowest to highest", title=f"{speed.pictures} pictures, {speed.faces} faces")
    sides = (("computation alone", speed.alone_per_s), ("ferserve score", speed.run_per_s), ("fer", speed.fer_per_s))
    for name, values in sides:
        if values:
            table.add_row(name, f"{median(values):.2f}", _range(values, "{:.2f}"))
    console.print(table)
    console.print(f"of the computation alone: {median(speed.shares):.1%} ({_range(speed.shares, '{:.1%}')})")
    if speed.times_fer:
        pictures, faces = speed.times_fer, speed.times_fer_faces
        console.print(
            f"times fer: {median(pictures):.1f} ({_range(pictures, '{:.1f}')}) the pictures, "
            f"{median(faces):.1f} ({_range(faces, '{:.1f}')}) the faces"
        )
    console.print(
        f"{speed.model} in {speed.precision}, detector {speed.detector}, {speed.threads} threads", markup=False
    )
    console.print(machine_line(speed.machine), markup=False)


def _range(values: tuple[float, ...], form: str) -> str:
    return f"{form.format(min(values))} to {form.format(max(values))}"

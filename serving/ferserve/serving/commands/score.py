"""`ferserve score`: folders of pictures into one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ferserve.serving.commands.options import (
    AsJson,
    DetectorName,
    Hashes,
    Models,
    PrecisionName,
    Threads,
    models_section,
)
from ferserve.serving.requests import (
    MAX_DETECTION_SIZE_PX,
    MAX_FACES_LIMIT,
    MIN_DETECTION_SIZE_PX,
    AnalyzeOptions,
    Priority,
)

if TYPE_CHECKING:
    from ferserve.serving.bulk.run import Tally
    from ferserve.serving.engine import EngineConfig

DetectionSize = Annotated[
    int | None,
    typer.Option(
        min=MIN_DETECTION_SIZE_PX,
        max=MAX_DETECTION_SIZE_PX,
        help="Longer side in pixels that a picture is brought down to before detection.",
    ),
]
MaxFaces = Annotated[
    int | None, typer.Option(min=1, max=MAX_FACES_LIMIT, help="Keep the most certain detections of a picture only.")
]


def score(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Pictures, and folders of pictures.")],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table: .parquet, .csv or .jsonl.")],
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    detection_size: DetectionSize = None,
    exact: Annotated[bool, typer.Option("--exact", help="Decode and detect at full resolution; slower.")] = False,
    max_faces: MaxFaces = None,
    as_json: AsJson = False,
) -> None:
    """Score every face of every picture: one row a face, one for a picture without a face, one for an error."""
    from ferserve.serving.bulk.run import bulk_engine
    from ferserve.serving.bulk.writers import check_out
    from ferserve.serving.cores import available_cores
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    check_out(out)
    models = read_settings(
        EngineConfig, file=None, environ={}, flags={"models": models_section(model, sha256, detector, precision)}
    ).models
    config = bulk_engine(models, threads=threads or available_cores())
    options = AnalyzeOptions(priority=Priority.BULK, detection_size_px=detection_size, exact=exact, max_faces=max_faces)
    tally = _run(sources, out, config, options)
    summary = _summary(tally, out)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(summary))
    else:
        Console(stderr=True).print(
            f"{tally.pictures} pictures, {tally.faces} faces, {tally.without_face} without a face, "
            f"{tally.errors} errors in {tally.seconds:.1f} s: {out}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _run(sources: list[Path], out: Path, config: "EngineConfig", options: AnalyzeOptions) -> "Tally":
    import asyncio

    from ferserve.serving.bulk.pictures import find_pictures
    from ferserve.serving.bulk.run import run_bulk
    from ferserve.serving.errors import ConfigError

    total = sum(1 for _ in find_pictures(sources))
    if total == 0:
        raise ConfigError("source: expected at least one picture, found none")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)

        def report(tally: "Tally") -> None:
            speed = f"{tally.pictures_per_s:.1f} pictures/s, {tally.faces_per_s:.1f} faces/s, {tally.errors} errors"
            progress.update(task, completed=tally.pictures, description=speed)

        return asyncio.run(run_bulk(sources, out, config, options, report))


def _summary(tally: "Tally", out: Path) -> dict[str, int | float | str]:
    return {
        "out": str(out),
        "pictures": tally.pictures,
        "faces": tally.faces,
        "without_face": tally.without_face,
        "errors": tally.errors,
        "seconds": round(tally.seconds, 3),
        "pictures_per_s": round(tally.pictures_per_s, 2),
        "faces_per_s": round(tally.faces_per_s, 2),
    }

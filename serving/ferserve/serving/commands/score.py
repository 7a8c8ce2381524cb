"""`ferserve score`: folders, archives and videos into one table."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from ferserve.serving.bulk.run import Job, Tally
    from ferserve.serving.bulk.store import OnChange
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
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Pictures, folders, globs, tar and zip archives, videos; @FILE for a list of them.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(metavar="DIR|FILE", help="A folder of Parquet shards, or one file: .parquet, .csv or .jsonl."),
]


def score(
    sources: Sources,
    *,
    out: Out,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    detection_size: DetectionSize = None,
    exact: Annotated[bool, typer.Option("--exact", help="Decode and detect at full resolution; slower.")] = False,
    max_faces: MaxFaces = None,
    fps: Annotated[float, typer.Option(min=0.001, max=1000, help="Frames of a video to score a second.")] = 1.0,
    paths: Annotated[
        bool, typer.Option("--paths/--no-paths", help="Whether rows name their picture, or its content's hash alone.")
    ] = True,
    crops: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write each face as a PNG there.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Score the pictures whose rows are errors once more.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the output holds.")] = False,
    mix: Annotated[
        bool, typer.Option("--mix", help="Go on although the archive or a setting is another one now.")
    ] = False,
    commit_every: Annotated[
        float, typer.Option(min=0, help="Seconds of work that are lost at most where the run is killed.")
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Score every face of every picture: one row a face, one for a picture without a face, one for an error.

    A run that was ended, by whatever, goes on where it was when the same command is run again.
    """
    from ferserve.serving.bulk.local import bulk_engine
    from ferserve.serving.bulk.run import Job
    from ferserve.serving.bulk.sources import Finder
    from ferserve.serving.commands.score_progress import print_tally, summary
    from ferserve.serving.cores import available_cores
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    skipped = frozenset(os.path.realpath(folder) for folder in (out, crops) if folder is not None)
    job = Job(
        finder=Finder(sources=sources, frames_per_s=fps, skipped=skipped),
        out=out,
        crops=crops,
        with_paths=paths,
        on_change=_on_change(fresh=fresh, mix=mix),
        retry_failed=retry_failed,
        commit_every_s=commit_every,
    )
    models = read_settings(
        EngineConfig, file=None, environ={}, flags={"models": models_section(model, sha256, detector, precision)}
    ).models
    config = bulk_engine(models, threads=threads or available_cores())
    options = AnalyzeOptions(priority=Priority.BULK, detection_size_px=detection_size, exact=exact, max_faces=max_faces)
    tally = _run(job, config, options)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(summary(tally, out)))
    else:
        print_tally(tally, out)


def _run(job: "Job", config: "EngineConfig", options: AnalyzeOptions) -> "Tally":
    import asyncio

    from ferserve.serving.bulk.local import local_scoring
    from ferserve.serving.bulk.run import run_bulk
    from ferserve.serving.bulk.writers import is_file
    from ferserve.serving.commands.score_progress import progress_bar

    is_file(job.out)  # before any work
    with progress_bar(job.finder) as report:
        return asyncio.run(run_bulk(job, local_scoring(config, options), report))


def _on_change(*, fresh: bool, mix: bool) -> "OnChange":
    from ferserve.serving.bulk.store import OnChange
    from ferserve.serving.errors import ConfigError

    if fresh and mix:
        raise ConfigError("--fresh, --mix: expected one of them at most, got both")
    return OnChange.FRESH if fresh else OnChange.MIX if mix else OnChange.REFUSE

"""`ferserve score`: folders, archives and videos into one table."""

import asyncio
import json
import os
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ferserve.serving.commands.options import (
    AsJson,
    DetectorName,
    Hashes,
    Models,
    PrecisionName,
    Threads,
    models_section,
)
from ferserve.serving.commands.tls_options import ApiKeyFile, Authority, Certificate, Key, Tls, caller_config
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import (
    MAX_DETECTION_SIZE_PX,
    MAX_FACES_LIMIT,
    MIN_DETECTION_SIZE_PX,
    AnalyzeOptions,
    Priority,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from ferserve.serving.bulk.run import Job, Tally
    from ferserve.serving.bulk.scoring import Scoring
    from ferserve.serving.bulk.sources import Finder
    from ferserve.serving.bulk.store import OnChange
    from ferserve.serving.client import ClientConfig
    from ferserve.serving.engine import EngineConfig

    ScoringContext = AbstractAsyncContextManager[Scoring]
    Report = Callable[[Tally], None]

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
    Path | None,
    typer.Option(metavar="DIR|FILE", help="A folder of Parquet shards, or one file: .parquet, .csv or .jsonl."),
]


class Where(StrEnum):
    """What computes."""

    LOCAL = "local"
    RAY = "ray"


def score(
    sources: Sources,
    *,
    out: Out = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A gateway's gRPC port; scores here unless it is given.")
    ] = None,
    tls: Tls = False,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    key_file: ApiKeyFile = None,
    engine: Annotated[
        Where, typer.Option(help="This process, or Ray Data; RAY_ADDRESS names a cluster.")
    ] = Where.LOCAL,
    workers: Annotated[int | None, typer.Option(min=1, help="Of Ray; as many as its CPUs allow by default.")] = None,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; say how long it would take, from a sample.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score every face of every picture: one row a face, one for a picture without a face, one for an error.

    A run that was ended, by whatever, goes on where it was when the same command is run again.
    """
    from ferserve.serving.bulk.run import Job
    from ferserve.serving.bulk.sources import Finder
    from ferserve.serving.bulk.writers import is_file

    on_change = _on_change(fresh=fresh, mix=mix)
    if out is not None:
        is_file(out)  # refuses what cannot be before any work
    skipped = frozenset(os.path.realpath(folder) for folder in (out, crops) if folder is not None)
    finder = Finder(sources=sources, frames_per_s=fps, skipped=skipped)
    flags = models_section(model, sha256, detector, precision)
    options = AnalyzeOptions(priority=Priority.BULK, detection_size_px=detection_size, exact=exact, max_faces=max_faces)
    if engine is not Where.RAY and workers is not None:
        raise ConfigError(f"--workers: expected --engine ray, got --engine {engine}")
    written_crops = None if dry_run else crops
    if endpoint is not None:
        caller = caller_config(tls=tls, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, key_file=key_file)
        scoring = _gateway(endpoint, flags, threads, options, written_crops, caller)
    elif tls or tls_ca or tls_cert or tls_key or key_file:
        raise ConfigError("--tls, --tls-ca, --tls-cert, --tls-key, --key-file: expected --endpoint, got none")
    else:
        scoring = _local(flags, threads, options, written_crops)
    if dry_run:
        _estimate(finder, out, scoring, as_json=as_json)
        return
    if out is None:
        raise ConfigError("--out: expected a folder or a file, got none")
    job = Job(
        finder=finder,
        out=out,
        crops=crops,
        with_paths=paths,
        on_change=on_change,
        retry_failed=retry_failed,
        commit_every_s=commit_every,
    )
    if engine is Where.RAY:
        if endpoint is not None:
            raise ConfigError(f"--endpoint: expected none with --engine ray, got {endpoint}")
        _run(job, partial(_on_ray, job, flags, threads, options, workers), as_json=as_json)
    else:
        _run(job, partial(_here, job, scoring), as_json=as_json)


def _here(job: "Job", scoring: "ScoringContext", report: "Report") -> "Tally":
    from ferserve.serving.bulk.run import run_bulk

    return asyncio.run(run_bulk(job, scoring, report))


def _on_ray(
    job: "Job",
    flags: dict[str, Any],
    threads: int | None,
    options: AnalyzeOptions,
    workers: int | None,
    report: "Report",
) -> "Tally":
    from ferserve.serving.bulk.ray_driver import run_on_ray

    return run_on_ray(job, _engine(flags, threads or 1), options, report, workers=workers)


def _run(job: "Job", run: "Callable[[Report], Tally]", *, as_json: bool) -> None:
    from ferserve.serving.commands.score_progress import print_tally, progress_bar, summary

    with progress_bar(job.finder) as report:
        tally = run(report)
    if as_json:
        typer.echo(json.dumps(summary(tally, job.out)))
    else:
        print_tally(tally, job.out)


def _estimate(finder: "Finder", out: Path | None, scoring: "ScoringContext", *, as_json: bool) -> None:
    from ferserve.serving.bulk.disk import RealDisk
    from ferserve.serving.bulk.estimate import estimate_run
    from ferserve.serving.bulk.run import working_folder
    from ferserve.serving.bulk.store import count_items
    from ferserve.serving.commands.score_progress import estimate_summary, print_estimate

    with Console(stderr=True).status("scoring a sample"):
        kept = 0 if out is None else count_items(RealDisk(), working_folder(out))
        estimate = asyncio.run(estimate_run(finder, scoring, kept=kept))
    if as_json:
        typer.echo(json.dumps(estimate_summary(estimate)))
    else:
        print_estimate(estimate)


def _engine(flags: dict[str, Any], threads: int) -> "EngineConfig":
    from ferserve.serving.bulk.local import bulk_engine
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    models = read_settings(EngineConfig, file=None, environ={}, flags={"models": flags}).models
    return bulk_engine(models, threads=threads)


def _local(flags: dict[str, Any], threads: int | None, options: AnalyzeOptions, crops: Path | None) -> "ScoringContext":
    from ferserve.serving.bulk.local import local_scoring
    from ferserve.serving.cores import available_cores

    return local_scoring(_engine(flags, threads or available_cores()), options, crops=crops)


def _gateway(
    endpoint: str,
    flags: dict[str, Any],
    threads: int | None,
    options: AnalyzeOptions,
    crops: Path | None,
    caller: "ClientConfig",
) -> "ScoringContext":
    from ferserve.serving.bulk.crops import CropWriter
    from ferserve.serving.bulk.gateway import gateway_scoring

    name, *others = flags.pop("archives", [""])
    given = [flag for flag, value in (*flags.items(), ("threads", threads), ("models", others)) if value]
    if given:
        raise ConfigError(f"--endpoint: expected none with --{given[0]}, which is the gateway's own, got {endpoint}")
    writer = None if crops is None else CropWriter(crops)
    return gateway_scoring(endpoint, replace(options, model=name), caller, crops=writer)


def _on_change(*, fresh: bool, mix: bool) -> "OnChange":
    from ferserve.serving.bulk.store import OnChange

    if fresh and mix:
        raise ConfigError("--fresh, --mix: expected one of them at most, got both")
    return OnChange.FRESH if fresh else OnChange.MIX if mix else OnChange.REFUSE

"""`ferserve score`: folders, archives and videos into one table."""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

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
from ferserve.serving.commands.score_means import Means
from ferserve.serving.commands.score_options import (
    CommitEvery,
    CropsFolder,
    DetectionSize,
    DryRun,
    EngineName,
    Exact,
    FramesPerS,
    Fresh,
    GatewayEndpoint,
    MaxFaces,
    Mix,
    Out,
    RayWorkers,
    RetryFailed,
    Sources,
    Where,
    WithPaths,
)
from ferserve.serving.commands.tls_options import ApiKeyFile, Authority, Certificate, Key, Tls, caller_config
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import AnalyzeOptions, Priority

if TYPE_CHECKING:
    from ferserve.serving.bulk.run import Job
    from ferserve.serving.bulk.sources import Finder
    from ferserve.serving.bulk.store import OnChange
    from ferserve.serving.client import ClientConfig


def score(
    sources: Sources,
    *,
    out: Out = None,
    endpoint: GatewayEndpoint = None,
    tls: Tls = False,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    key_file: ApiKeyFile = None,
    engine: EngineName = Where.LOCAL,
    workers: RayWorkers = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    detection_size: DetectionSize = None,
    exact: Exact = False,
    max_faces: MaxFaces = None,
    fps: FramesPerS = 1.0,
    paths: WithPaths = True,
    crops: CropsFolder = None,
    retry_failed: RetryFailed = False,
    fresh: Fresh = False,
    mix: Mix = False,
    commit_every: CommitEvery = 30.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Score every face of every picture: one row a face, one for a picture without a face, one for an error.

    A run that was ended, by whatever, goes on where it was when the same command is run again.
    """
    from ferserve.serving.bulk.run import Job

    on_change = _on_change(fresh=fresh, mix=mix)
    finder = _finder(sources, fps, out=out, crops=crops)
    caller = _caller(endpoint, tls=tls, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, key_file=key_file)
    means = Means(
        engine=engine,
        ray_workers=workers,
        models=models_section(model, sha256, detector, precision),
        threads=threads,
        options=AnalyzeOptions(
            priority=Priority.BULK, detection_size_px=detection_size, exact=exact, max_faces=max_faces
        ),
        endpoint=endpoint,
        caller=caller,
        crops=None if dry_run else crops,
    )
    if dry_run:
        _estimate(finder, out, means, as_json=as_json)
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
    _run(job, means, as_json=as_json)


def _finder(sources: list[str], fps: float, *, out: Path | None, crops: Path | None) -> "Finder":
    from ferserve.serving.bulk.sources import Finder
    from ferserve.serving.bulk.writers import is_file

    if out is not None:
        is_file(out)  # refuses what cannot be before any work
    skipped = frozenset(os.path.realpath(folder) for folder in (out, crops) if folder is not None)
    return Finder(sources=sources, frames_per_s=fps, skipped=skipped)


def _caller(
    endpoint: str | None,
    *,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    key_file: Path | None,
) -> "ClientConfig | None":
    """How the gateway is called; None where there is none."""
    if endpoint is not None:
        return caller_config(tls=tls, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, key_file=key_file)
    if tls or tls_ca or tls_cert or tls_key or key_file:
        raise ConfigError("--tls, --tls-ca, --tls-cert, --tls-key, --key-file: expected --endpoint, got none")
    return None


def _run(job: "Job", means: Means, *, as_json: bool) -> None:
    from ferserve.serving.commands.score_progress import print_tally, progress_bar, summary

    with progress_bar(job.finder) as report:
        tally = means.run(job, report)
    if as_json:
        typer.echo(json.dumps(summary(tally, job.out)))
    else:
        print_tally(tally, job.out)


def _estimate(finder: "Finder", out: Path | None, means: Means, *, as_json: bool) -> None:
    from ferserve.serving.bulk.disk import RealDisk
    from ferserve.serving.bulk.estimate import estimate_run
    from ferserve.serving.bulk.run import working_folder
    from ferserve.serving.bulk.store import count_items
    from ferserve.serving.commands.score_progress import estimate_summary, print_estimate

    with Console(stderr=True).status("scoring a sample"):
        kept = 0 if out is None else count_items(RealDisk(), working_folder(out))
        estimate = asyncio.run(estimate_run(finder, means.scoring(), kept=kept))
    if as_json:
        typer.echo(json.dumps(estimate_summary(estimate)))
    else:
        print_estimate(estimate)


def _on_change(*, fresh: bool, mix: bool) -> "OnChange":
    from ferserve.serving.bulk.store import OnChange

    if fresh and mix:
        raise ConfigError("--fresh, --mix: expected one of them at most, got both")
    return OnChange.FRESH if fresh else OnChange.MIX if mix else OnChange.REFUSE

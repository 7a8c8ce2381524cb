"""The flags of `ferserve score`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ferserve.serving.requests import MAX_DETECTION_SIZE_PX, MAX_FACES_LIMIT, MIN_DETECTION_SIZE_PX


class Where(StrEnum):
    """What computes."""

    LOCAL = "local"
    RAY = "ray"


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
GatewayEndpoint = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="A gateway's gRPC port; scores here unless it is given.")
]
EngineName = Annotated[Where, typer.Option(help="This process, or Ray Data; RAY_ADDRESS names a cluster.")]
RayWorkers = Annotated[int | None, typer.Option(min=1, help="Of Ray; as many as its CPUs allow by default.")]
DetectionSize = Annotated[
    int | None,
    typer.Option(
        min=MIN_DETECTION_SIZE_PX,
        max=MAX_DETECTION_SIZE_PX,
        help="Longer side in pixels that a picture is brought down to before detection.",
    ),
]
Exact = Annotated[bool, typer.Option("--exact", help="Decode and detect at full resolution; slower.")]
MaxFaces = Annotated[
    int | None, typer.Option(min=1, max=MAX_FACES_LIMIT, help="Keep the most certain detections of a picture only.")
]
FramesPerS = Annotated[float, typer.Option(min=0.001, max=1000, help="Frames of a video to score a second.")]
WithPaths = Annotated[
    bool, typer.Option("--paths/--no-paths", help="Whether rows name their picture, or its content's hash alone.")
]
CropsFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write each face as a PNG there.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Score the pictures whose rows are errors once more.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the output holds.")]
Mix = Annotated[bool, typer.Option("--mix", help="Go on although the archive or a setting is another one now.")]
CommitEvery = Annotated[
    float, typer.Option(min=0, help="Seconds of work that are lost at most where the run is killed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; say how long it would take, from a sample.")]

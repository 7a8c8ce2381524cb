"""Flags that several verbs share."""

from typing import Annotated

import typer

from ferserve.faces.precision import PrecisionChoice
from ferserve.serving.preparers.choice import Preparation
from ferserve.serving.workers.config import WorkerKind

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="PATH|NAME", help="An archive; the first one answers by default. Repeatable."),
]
Hashes = Annotated[
    list[str] | None,
    typer.Option("--sha256", metavar="HEX", help="What each --model's file must hash to, in the same order."),
]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", metavar="PATH|NAME", help="The face detector: ferdet, haar, or a YuNet .onnx file."),
]
PrecisionName = Annotated[
    PrecisionChoice | None,
    typer.Option(
        "--precision", help="What to compute in: auto takes int8 where the archive has it and the CPU has VNNI."
    ),
]
PreparationName = Annotated[
    Preparation | None,
    typer.Option("--preparation", help="Decode and search pictures in processes of their own, or on threads."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all cores unless told otherwise.")]
WorkersName = Annotated[
    WorkerKind | None, typer.Option("--workers", help="Where faces are scored: in this process, or on servers.")
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="HOST:PORT", help="A server's gRPC port, for --workers. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


def models_section(
    models: list[str] | None, hashes: list[str] | None, detector: str | None, precision: PrecisionChoice | None
) -> dict[str, list[str] | str]:
    """The settings of section `models` that flags gave."""
    section: dict[str, list[str] | str] = {}
    if models:
        section["archives"] = models
    if hashes:
        section["sha256"] = hashes
    if detector is not None:
        section["detector"] = detector
    if precision is not None:
        section["precision"] = precision
    return section

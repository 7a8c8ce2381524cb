"""`ferserve bench stages`: how fast the parts of the work are on this machine, measured here and now."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ferserve.serving.commands.figures import machine_line
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models, PrecisionName, models_section

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.stages import Measured, Report


def stages(
    picture: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="A picture with faces; synthetic noise by default."),
    ] = None,
    *,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    repeats: Annotated[int, typer.Option(min=5, help="Timed runs of each stage.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Measure decode, detect, preprocess, infer and the whole path, in this process and on one thread."""
    from ferserve.serving.benchmarks.stages import measure
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    flags = {"models": models_section(model, sha256, detector, precision)}
    models = read_settings(EngineConfig, file=None, environ={}, flags=flags).models
    with Console(stderr=True).status("measuring"):
        report = measure(models, picture, repeats=repeats)
    if as_json:
        typer.echo(json.dumps(_json(report), indent=2))
    else:
        _print(report)


def _json(report: "Report") -> dict[str, Any]:
    return asdict(report) | {"stages": [asdict(stage) | {"per_s": stage.per_s} for stage in report.stages]}


def _print(report: "Report") -> None:
    table = Table("stage", "median ms", "quartiles ms", "a second", title=_title(report))
    for stage in report.stages:
        table.add_row(stage.stage, f"{stage.median_ms:.3f}", f"{stage.low_ms:.3f} to {stage.high_ms:.3f}", _rate(stage))
    console = Console()
    console.print(table)
    console.print(f"picture: {report.picture}; faces found: {report.faces_found}", markup=False, highlight=False)
    console.print(machine_line(report.machine), markup=False, highlight=False)


def _title(report: "Report") -> str:
    return f"{report.model} in {report.precision}, detector {report.detector}"


def _rate(stage: "Measured") -> str:
    return f"{stage.per_s:.1f} {'faces' if stage.faces else 'runs'}"

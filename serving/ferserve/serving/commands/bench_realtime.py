"""`ferserve bench realtime`: milliseconds a frame by number of faces, beside the paper's formula."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ferserve.serving.commands.figures import echo_json, machine_line, report_console
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models, PrecisionName, models_section
from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.realtime import RealtimeReport, Spread

DEFAULT_FACES: Final = "1,2,4,8,16"
MAX_FACES: Final = 64


def realtime(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A picture with a face.")],
    *,
    faces: Annotated[str, typer.Option(help="Faces in a frame, one row each.")] = DEFAULT_FACES,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="A PNG to draw the table into.")] = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    repeats: Annotated[int, typer.Option(min=5, help="Timed frames a row.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Time detect, preprocess and classify for frames of 640 x 480 with 1 to 16 faces, beside Miao et al. 2019."""
    from ferserve.serving.benchmarks.realtime import measure_realtime
    from ferserve.serving.benchmarks.realtime_plot import plot_realtime
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.settings import read_settings

    counts = faces_of(faces)
    flags = {"models": models_section(model, sha256, detector, precision)}
    models = read_settings(EngineConfig, file=None, environ={}, flags=flags).models
    with Console(stderr=True).status("measuring"):
        report = measure_realtime(models, picture.read_bytes(), faces=counts, repeats=repeats)
    if plot is not None:
        plot_realtime(report, plot)
    if as_json:
        echo_json(report)
    else:
        _print(report)


def faces_of(text: str) -> tuple[int, ...]:
    """Numbers of faces as a list with commas.

    Raises:
        ConfigError: it is none, or a number is out of range.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_FACES for part in parts):
        raise ConfigError(f"--faces: expected numbers from 1 to {MAX_FACES} with commas between, got {text!r}")
    return tuple(int(part) for part in parts)


def _print(report: "RealtimeReport") -> None:
    title = f"{report.model} in {report.precision}, detector {report.detector}; medians and quartiles in ms"
    table = Table("faces", "found", "decode", "detect", "preprocess", "classify", "a frame", "paper", title=title)
    for frame in report.frames:
        stages = (frame.decode, frame.detect, frame.preprocess, frame.classify, frame.total)
        cells = (str(frame.faces), str(frame.found), *map(_text, stages), f"{frame.paper_ms:.2f}")
        table.add_row(*cells)
    console = report_console()
    console.print(table)
    console.print("a frame: detect, preprocess and classify on one thread; paper: 46.93 + M * 11.06 ms")
    console.print(machine_line(report.machine), markup=False)


def _text(spread: "Spread") -> str:
    return f"{spread.median_ms:.2f} ({spread.low_ms:.2f} to {spread.high_ms:.2f})"

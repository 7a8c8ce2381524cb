"""The handlers' figures for people."""

from typing import Final

from rich.console import Console
from rich.table import Table

from ferserve.handlers.benchmark import GRAPH, HANDLER, HOST, MODEL, Interval, PhotoTimes, Report

FILE_WIDTH: Final = 130
"""Columns where no terminal says how many it has."""
TITLES: Final = {MODEL: "model", GRAPH: "model, CUDA graph", HOST: "model, crops from the host", HANDLER: "FaceHandler"}


def print_report(report: Report) -> None:
    """Print tables to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    console.print(
        f"{report.archive} on {report.device}, {report.precision}, torch {report.torch}; "
        f"loaded in {report.load_s:.1f} s"
    )
    measured = [name for name in TITLES if name in next(iter(report.faces_per_s.values()))]
    table = Table("batch", *(TITLES[name] for name in measured), title="faces a second")
    for size, by_name in report.faces_per_s.items():
        table.add_row(str(size), *(_text(by_name[name]) for name in measured))
    console.print(table)
    console.print(
        f"FaceHandler at its best batch ({report.handler.batch_faces}) keeps {_text(report.kept, 3)} of the bare "
        f"model's faces a second at its own ({report.bare.batch_faces}, {TITLES[report.bare.subject]}): "
        f"{_text(report.handler.faces_per_s)} of {_text(report.bare.faces_per_s)}"
    )
    agreement = report.agreement
    console.print(
        f"{agreement.faces} faces against the ONNX graph in fp32: scores differ by {agreement.max_difference:.2g} at "
        f"most, same top class {agreement.same_top:.2%}"
    )
    if report.photo is not None:
        console.print(_photo(report.photo))


def _photo(photo: PhotoTimes) -> str:
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in photo.stages_ms.items())
    return (
        f"ImageHandler, {photo.width_px} x {photo.height_px} with {photo.faces} faces: "
        f"p50 {_text(photo.p50_ms, 1)} ms, p95 {photo.p95_ms:.1f} ms ({stages})"
    )


def _text(interval: Interval, digits: int = 0) -> str:
    return f"{interval.value:,.{digits}f} ({interval.low:,.{digits}f} to {interval.high:,.{digits}f})"

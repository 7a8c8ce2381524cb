"""A detector's report as tables for people."""

from collections.abc import Iterator
from itertools import pairwise

from rich.table import Table

from ferserve.training.detector.contenders import TEACHER
from ferserve.training.detector.evaluate import DetectorFigures, DetectorReport
from ferserve.training.detector.matching import SIZES_PX, Rates


def size_names() -> list[str]:
    """Names of the classes of face size."""
    closed = [f"{low:.0f} to {high:.0f} px" for low, high in pairwise(SIZES_PX)]
    return [*closed, f"{SIZES_PX[-1]:.0f} px and more"]


def share(found: int, faces: int) -> str:
    """A recall with what it is made of."""
    return f"{100 * found / faces:.1f} % ({found} of {faces})" if faces else "no faces"


def tables(report: DetectorReport) -> Iterator[Table]:
    """Recall and time; recall by size; crowds and empty crops where they were tried."""
    yield _overview(report)
    yield _by_size(report)
    if any(figures.crowds is not None or figures.crops_with_face is not None for figures in report.detectors.values()):
        yield _trials(report)


def _table(title: str, report: DetectorReport) -> Table:
    table = Table(title=title)
    table.add_column("")
    for name in report.detectors:
        table.add_column(name, justify="right")
    return table


def _overview(report: DetectorReport) -> Table:
    table = _table(f"{report.photos} photos, each at the detector's default size", report)
    rows = list(report.detectors.values())
    table.add_row("recall of labelled faces", *(share(f.labelled.found, f.labelled.faces) for f in rows))
    table.add_row("unmatched a photo, by labels", *(f"{f.labelled.unmatched_per_photo:.2f}" for f in rows))
    if all(f.teacher is not None for f in rows):
        against = [f.teacher for f in rows if f.teacher is not None]
        table.add_row("recall of the teacher's faces", *(share(r.found, r.faces) for r in against))
        table.add_row("unmatched a photo, by teacher", *(f"{r.unmatched_per_photo:.2f}" for r in against))
        table.add_row("landmark error, mean", *(percent(r.landmark_error) for r in against))
        table.add_row("landmark error, median", *(percent(r.landmark_error_median) for r in against))
    for size in rows[0].ms:
        table.add_row(f"ms a photo, {size}", *(_time(f, report, size) for f in rows))
    return table


def _time(figures: DetectorFigures, report: DetectorReport, size: str) -> str:
    teacher = report.detectors.get(TEACHER)
    own = figures.ms[size]
    return f"{own:.2f}" if teacher is None else f"{own:.2f} ({own / teacher.ms[size]:.2f} x)"


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None else f"{100 * value:.2f} %"


def _by_size(report: DetectorReport) -> Table:
    by_teacher = all(figures.teacher is not None for figures in report.detectors.values())
    reference = "the teacher's faces" if by_teacher else "labelled faces"
    table = _table(f"Recall of {reference} by the longer side of the box", report)
    rates: list[Rates] = [figures.teacher or figures.labelled for figures in report.detectors.values()]
    for index, name in enumerate(size_names()):
        table.add_row(name, *(share(r.by_size[index][1], r.by_size[index][0]) for r in rates))
    return table


def _trials(report: DetectorReport) -> Table:
    table = _table("Composed pictures and empty crops", report)
    rows = list(report.detectors.values())
    crowds = [figures.crowds for figures in rows if figures.crowds is not None]
    if len(crowds) == len(rows):
        for title, rates in (
            ("crowds of 16 in 1080p, default size", [c.at_default for c in crowds]),
            ("the same at full size", [c.at_full for c in crowds]),
        ):
            table.add_row(title, *(share(r.found, r.faces) for r in rates))
            table.add_row("unmatched a picture", *(f"{r.unmatched_per_photo:.2f}" for r in rates))
    name = f"of {report.empty_crops} crops without a face, with one"
    table.add_row(name, *("-" if f.crops_with_face is None else str(f.crops_with_face) for f in rows))
    return table

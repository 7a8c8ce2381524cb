"""What `ferserve evaluate` prints for people."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ferserve.training.cross import SetRow
    from ferserve.training.evaluate import Interval
    from ferserve.training.fidelity import Paired
    from ferserve.training.measure import Measurement
    from ferserve.training.probe import ProbeResult
    from ferserve.training.served_evaluation import ServedResult


def percent(share: "Interval | None") -> str:
    """A share in percent with its interval, or nothing."""
    return "" if share is None else f"{100 * share.value:.2f} % ({100 * share.low:.2f} to {100 * share.high:.2f})"


def points(paired: "Paired | None") -> str:
    """A difference in points with its interval, or nothing."""
    if paired is None:
        return ""
    difference = paired.difference
    return f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"


def print_crops(measured: "Measurement", *, title: str) -> None:
    """One archive on one split."""
    table = Table(title=title)
    for heading in ("", "faces", "accuracy", "95 % interval", "ECE", "Brier"):
        table.add_column(heading)
    rows = [
        ("whole split", measured.report),
        ("without pictures of Training", measured.without_duplicates),
        ("without similar ones, too", measured.without_similar),
    ]
    for name, report in rows:
        if report is None:
            continue
        accuracy = report.accuracy
        interval = f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %"
        values = (f"{100 * accuracy.value:.2f} %", interval, f"{100 * report.ece:.2f} %", f"{report.brier:.4f}")
        table.add_row(name, str(report.faces), *values)
    console = Console()
    console.print(table)
    for reason, count in measured.dropped.items():
        console.print(f"left out: {count} ({reason})")


def print_served(served: "ServedResult", sizes_px: Sequence[float]) -> None:
    """One archive behind a detector."""
    report = served.report
    of = " ".join(filter(None, (served.data, served.split)))
    table = Table(title=f"{served.archive} {served.version} served, detector {served.detector}, {of}")
    for heading in ("", "faces", "found", "served", "cropped", "served less cropped, points"):
        table.add_column(heading)
    total, found = str(report.faces), str(round(report.found.value * report.faces))
    table.add_row(
        "all faces", total, percent(report.found), percent(report.accuracy), percent(report.cropped),
        points(report.paired),
    )  # fmt: skip
    table.add_row(
        "faces found", found, "", percent(report.accuracy_found), percent(report.cropped_found),
        points(report.paired_found),
    )  # fmt: skip
    ends = dict(pairwise(sizes_px))
    for row in report.by_size:
        shares = (f"{100 * share:.1f} %" for share in (row.found, row.accuracy, row.cropped))
        size = f"{row.from_px} to {ends[row.from_px]} px" if row.from_px in ends else f"from {row.from_px} px"
        table.add_row(size, str(row.faces), *shares, "")
    console = Console()
    console.print(table)
    console.print(f"A face that was not found counts as wrong. {report.photos} photos with")
    console.print(f"{report.unmatched_per_photo:.2f} detections each that stand for no labelled face.")
    if served.split is None:
        console.print("ExpW's labels are one annotator's and noisy; cropped: cut by the labelled box.")


def print_sets(rows: "Sequence[SetRow]") -> None:
    """Archives on data sets, and what was restricted."""
    table = Table(title="Accuracy on data sets, 95 % intervals")
    for heading in ("archive", "data", "faces", "by faces (Wilson)", "by people (bootstrap)", "macro F1", "ECE"):
        table.add_column(heading)
    for row in rows:
        data = row.data if row.configuration is None else f"{row.data} {row.configuration}"
        by_people = "" if row.people is None else f"{percent(row.people)}, {row.people_count}"
        figures = (f"{row.report.macro_f1:.3f}", f"{100 * row.report.ece:.2f} %")
        table.add_row(row.archive, data, str(row.report.faces), percent(row.report.accuracy), by_people, *figures)
    console = Console()
    console.print(table)
    notes = dict.fromkeys(note for row in rows for note in (*row.notes, *_left_out(row)))
    for note in notes:
        console.print(note, markup=False)


def _left_out(row: "SetRow") -> list[str]:
    found = [f"{row.data}: {count} pictures left out ({reason})" for reason, count in row.dropped.items() if count]
    if row.detector is not None:
        found.append(f"{row.data}: faces cut out by {row.detector}; {row.not_found} pictures without one taken whole")
    return found


def print_probe(result: "ProbeResult") -> None:
    """A linear probe by seed."""
    of = result.data if result.configuration is None else f"{result.data} {result.configuration}"
    title = f"Linear probe on {result.archive}'s features, {of}, {result.groups} groups of {result.protocol}"
    table = Table(title=title)
    for heading in ("seed", "faces", "by faces (Wilson)", "by people (bootstrap)", "macro F1", "worst and best group"):
        table.add_column(heading)
    for run in result.runs:
        spread = f"{100 * min(run.folds):.1f} to {100 * max(run.folds):.1f} %"
        shares = (percent(run.report.accuracy), percent(run.people))
        table.add_row(str(run.seed), str(run.report.faces), *shares, f"{run.report.macro_f1:.3f}", spread)
    console = Console()
    console.print(table)
    if result.over_seeds is not None:
        over = result.over_seeds
        interval = f"{100 * over.low:.2f} to {100 * over.high:.2f}"
        console.print(f"over {over.runs} seeds: {100 * over.mean:.2f} % ({interval})")
    console.print(f"classes: {', '.join(result.classes)}. A probe of frozen features; nothing that is fitted is kept.")

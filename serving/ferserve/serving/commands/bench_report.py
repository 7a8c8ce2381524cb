"""What `ferserve bench load` and `bench capacity` measured, for people; brackets hold 95 % intervals."""

from collections.abc import Iterator, Mapping, Sequence
from math import isinf

from rich.table import Table

from ferserve.serving.benchmarks.against import AgainstReport
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.load import LoadReport
from ferserve.serving.commands.figures import (
    cpu_text,
    estimate_text,
    machine_line,
    number_text,
    report_console,
)


def print_loads(reports: Sequence[LoadReport], machine: Mapping[str, str | float]) -> None:
    """One column for each protocol."""
    console = report_console()
    table = Table("", *(report.protocol.value for report in reports), title=reports[0].loop)
    rows: dict[str, list[str]] = {}
    for report in reports:
        for name, cell in _load_rows(report):
            rows.setdefault(name, []).append(cell)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    console.print(machine_line(machine), markup=False)


def print_capacity(table: Mapping[str, Sequence[LoadReport]], machine: Mapping[str, str | float]) -> None:
    """One block of rows for each mix; the best row of each is marked."""
    console = report_console()
    shown = Table("mix", "callers", "in time a second", "faces a second", "p50 ms", "p99 ms", "CPU ms an answer")
    for mix, reports in table.items():
        best = max(reports, key=lambda report: report.goodput_per_s.value)
        for report in reports:
            shown.add_row(
                mix,
                f"{report.callers}{' *' if report is best else ''}",
                estimate_text(report.goodput_per_s),
                estimate_text(report.faces_per_s),
                estimate_text(report.latency["all"].p50_ms),
                estimate_text(report.latency["all"].p99_ms),
                number_text(report.cpu_ms_per_answer, 1),
            )
        shown.add_section()
    console.print(shown)
    console.print("* the most of this mix in time a second", markup=False)
    console.print(machine_line(machine), markup=False)


def print_against(report: AgainstReport) -> None:
    """The gateway and fer side by side."""
    console = report_console()
    table = Table(
        "",
        "photos a second",
        "p50 ms",
        "faces a photo",
        "times fer's photos",
        title=f"against fer {report.fer_version}",
    )
    for comparison in (report.one_at_a_time, report.all_it_can):
        table.add_row(comparison.load, "", "", "", estimate_text(comparison.times_the_photos, 2))
        for name, side in (("gateway", comparison.gateway), ("fer", comparison.fer)):
            table.add_row(
                f"  {name}",
                estimate_text(side.photos_per_s),
                estimate_text(side.p50_ms),
                number_text(side.faces_per_photo, 2),
                "",
            )
    console.print(table)


def _load_rows(report: LoadReport) -> Iterator[tuple[str, str]]:
    yield "offered a second", f"{report.offered_per_s:.1f}"
    yield "in time a second", estimate_text(report.goodput_per_s)
    yield "faces a second", estimate_text(report.faces_per_s)
    for kind, latency in report.latency.items():
        yield f"{kind}: p50 ms", estimate_text(latency.p50_ms)
        yield f"{kind}: p95 ms", estimate_text(latency.p95_ms)
        yield f"{kind}: p99 ms", estimate_text(latency.p99_ms)
    for ending in Ending:
        yield ending.value, str(report.endings.get(ending.value, 0))
    yield "answered late", str(report.late)
    yield "generator p99 ms", number_text(report.lag_p99_ms, 1)
    yield "batches by faces", _batches_text(report.batches)
    yield "CPU generator + gateway", cpu_text(report.cpu)
    yield "CPU ms an answer", number_text(report.cpu_ms_per_answer, 1)
    yield "memory MiB, now and at most", f"{number_text(report.rss_mib)}, {number_text(report.peak_rss_mib)}"


def _batches_text(batches: Mapping[float, int]) -> str:
    """Each bucket's largest number of faces and its part of all batches."""
    total = sum(batches.values())
    parts = (f"{'more' if isinf(most) else f'{most:g}'}: {count / total:.0%}" for most, count in batches.items())
    return ", ".join(parts) or "-"

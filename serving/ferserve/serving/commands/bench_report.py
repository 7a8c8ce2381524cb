"""What `ferserve bench load`, `capacity` and `plan` found, for people; brackets hold 95 % intervals."""

from collections.abc import Iterator, Mapping, Sequence
from math import isinf

from rich.console import Console
from rich.table import Column, Table

from ferserve.serving.benchmarks.against import AgainstReport
from ferserve.serving.benchmarks.costs import Costs
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.load import LoadReport
from ferserve.serving.benchmarks.plan_checks import Check
from ferserve.serving.benchmarks.planning import Plan
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
        Column("", no_wrap=True),
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


def print_plan(costs: Costs, plan: Plan, checks: Sequence[Check]) -> None:
    """The answer, what it was made from, and how it was checked."""
    console = report_console()
    spent = Table(
        "request", "faces", "pause ms", "prepare ms", "overhead ms", "scored ms",
        title="what one costs on a core to itself, by the pause before it",
    )  # fmt: skip
    for kind in costs.kinds:
        for at in kind.stages:
            cells = (f"{value:.1f}" for value in (at.idle_ms, at.prepare_ms, at.overhead_ms, at.scored_ms))
            spent.add_row(kind.name, str(kind.faces), *cells)
    console.print(spent)
    awake = ", cores kept awake" if costs.kept_awake else ""
    console.print(
        f"a batch of n faces: {costs.face_ms:.2f} * n + {costs.batch_ms:.2f} ms; {costs.cores} cores, "
        f"{costs.crowding:.2f} times the work while all compute, "
        f"spread over them {costs.unevenness:.0%} as unevenly as at random{awake}",
        markup=False,
    )
    rows = Table(
        "gateways", "a second each", "kept", "in time a second each", "p50 ms", "p95 ms", "p99 ms", "cores busy",
        title=f"{plan.rate_per_s:g} requests a second, simulated",
    )  # fmt: skip
    for row in plan.rows:
        rows.add_row(
            f"{row.replicas}{' *' if row.replicas == plan.replicas else ''}",
            f"{row.rate_per_s:.2f}",
            f"{row.in_slo:.2%}",
            f"{row.goodput_per_s:.2f}",
            *(number_text(value, 1) for value in (row.p50_ms, row.p95_ms, row.p99_ms)),
            f"{row.busy:.0%}",
        )
    console.print(rows)
    promise = f"{plan.slo.share:.2%} of all requests answered within {plan.slo.latency_s * 1000:g} ms"
    if plan.replicas is None:
        console.print(f"no number of gateways keeps {promise}: one request alone takes too long", markup=False)
    else:
        subject = "1 gateway keeps" if plan.replicas == 1 else f"{plan.replicas} gateways keep"
        console.print(f"{subject} {promise}", markup=False)
    if checks:
        _print_checks(checks, console)


def _print_checks(checks: Sequence[Check], console: Console) -> None:
    table = Table(
        "of capacity", "a second", "in time a second", "p50 ms", "p99 ms", "cores busy", "p50, over foreseen", "cores",
        title=f"one gateway, medians of {len(checks[0].runs)} runs each: measured (foreseen)",
    )  # fmt: skip
    for check in checks:
        table.add_row(
            f"{check.load:.0%}",
            f"{check.offered_per_s:.2f}",
            f"{check.measured('goodput_per_s'):.2f} ({check.foreseen('goodput_per_s'):.2f})",
            *(
                f"{number_text(check.measured(name), 1)} ({number_text(check.foreseen(name), 1)})"
                for name in ("p50_ms", "p99_ms")
            ),
            f"{check.measured('busy'):.0%} ({check.foreseen('busy'):.0%})",
            estimate_text(check.ratio("p50_ms"), 2),
            f"{min(run.cores for run in check.runs):.2f} to {max(run.cores for run in check.runs):.2f}",
        )
    console.print(table)
    goodput, middle = (
        max(abs(check.ratio(name).value - 1) for check in checks) for name in ("goodput_per_s", "p50_ms")
    )
    console.print(f"off by {goodput:.0%} at most in answers in time, by {middle:.0%} in the median of their latency")


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
    yield "memory MiB, now and at most", f"{number_text(report.memory_mib)}, {number_text(report.peak_memory_mib)}"


def _batches_text(batches: Mapping[float, int]) -> str:
    """Each bucket's largest number of faces and its part of all batches."""
    total = sum(batches.values())
    parts = (f"{'more' if isinf(most) else f'{most:g}'}: {count / total:.0%}" for most, count in batches.items())
    return ", ".join(parts) or "-"

"""What `ferserve stress` measured, for people and for programs."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ferserve.serving.benchmarks.drain import DrainReport
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.fairness import FairnessReport
from ferserve.serving.benchmarks.overload import Level, OverloadReport
from ferserve.serving.commands.figures import (
    cpu_text,
    estimate_text,
    machine_line,
    number_text,
    report_console,
)

Report = OverloadReport | FairnessReport | DrainReport


def print_report(report: Report, machine: Mapping[str, str | float]) -> None:
    """Print tables; brackets hold 95 % intervals."""
    console = report_console()
    match report:
        case OverloadReport():
            _print_overload(report, console)
        case FairnessReport():
            _print_fairness(report, console)
        case DrainReport():
            _print_drain(report, console)
    console.print(machine_line(machine), markup=False)


def _print_overload(report: OverloadReport, console: Console) -> None:
    steps = Table("callers", "answers a second", title="closed loop: the capacity")
    for step in report.steps:
        steps.add_row(str(step.callers), estimate_text(step.answers_per_s))
    levels = Table("times the capacity", *(f"{level.multiple:g}" for level in report.levels), title="open loop")
    for name, cells in _level_rows(report.levels):
        levels.add_row(name, *cells)
    console.print(steps, levels, sep="\n")
    console.print(
        f"goodput at the highest load over the best: {estimate_text(report.goodput_over_peak, 3)}; "
        f"by what the generator left of the cores: {estimate_text(report.per_core_over_peak, 3)}",
        markup=False,
    )


def _level_rows(levels: Sequence[Level]) -> Iterator[tuple[str, list[str]]]:
    """The table on its side: levels are few, what is said of each is much."""
    yield "offered a second", [f"{level.offered_per_s:.1f}" for level in levels]
    yield "goodput a second", [estimate_text(level.goodput_per_s) for level in levels]
    for ending in Ending:
        yield ending.value, [str(level.endings.get(ending.value, 0)) for level in levels]
    yield "answered late", [str(level.late) for level in levels]
    yield "refused without RetryInfo", [str(level.untold) for level in levels]
    yield "answer p50 ms", [estimate_text(level.answers.p50_ms) for level in levels]
    yield "answer p99 ms", [estimate_text(level.answers.p99_ms) for level in levels]
    yield "refusal p50 ms", [estimate_text(level.refusals.p50_ms) for level in levels]
    yield "refusal p99 ms", [estimate_text(level.refusals.p99_ms) for level in levels]
    yield "of it generator p99 ms", [f"{level.lag_p99_ms:.1f}" for level in levels]
    yield "faces computed in vain", [number_text(level.faces_in_vain) for level in levels]
    yield "dropped before computation", [number_text(level.dropped) for level in levels]
    yield "CPU generator + gateway", [cpu_text(level.cpu) for level in levels]


def _print_fairness(report: FairnessReport, console: Console) -> None:
    table = Table(
        "beside", "others/s", "selfies", "selfie p50 ms", "selfie p99 ms", "not answered", "CPU",
        title=f"{report.selfies_per_s:.1f} selfies a second",
    )  # fmt: skip
    for arm in report.arms:
        answered = {name: count for name, count in arm.endings.items() if not name.endswith(" ok")}
        table.add_row(
            arm.company,
            f"{arm.others_per_s:.2f}",
            str(arm.selfies),
            estimate_text(arm.p50_ms),
            estimate_text(arm.p99_ms),
            ", ".join(f"{count} {name}" for name, count in answered.items()) or "0",
            cpu_text(arm.cpu),
        )
    console.print(table)
    console.print(
        f"alone the gateway does {report.selfie_capacity_per_s:.1f} selfies or {report.crowd_capacity_per_s:.2f} "
        f"crowds a second: a crowd counts as {report.selfies_a_crowd:.1f} selfies",
        markup=False,
    )
    console.print(
        f"p99 beside crowds over the same load of selfies: {estimate_text(report.p99_over_same_load, 3)}", markup=False
    )


def _print_drain(report: DrainReport, console: Console) -> None:
    table = Table("sent", "answered", "refused", "unavailable", "other", title=f"{report.offered_per_s:.1f} a second")
    for sent, endings in (("before SIGTERM", report.sent_before), ("after it", report.sent_after)):
        counts = [endings.get(name, 0) for name in ("ok", "refused", "unavailable")]
        table.add_row(sent, *map(str, (*counts, sum(endings.values()) - sum(counts))))
    console.print(table)
    console.print(
        f"accepted and not answered at SIGTERM: {report.accepted_at_signal}; answers after it: "
        f"{report.answered_after}; lost: {report.lost}; exit code {report.exit_code} after {report.took_s:.2f} s",
        markup=False,
    )

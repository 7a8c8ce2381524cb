"""How measured figures are printed, for people and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from math import isfinite, isnan
from typing import Any, Final

import typer
from rich.console import Console

from ferserve.serving.benchmarks.estimates import Estimate
from ferserve.serving.benchmarks.gateways import CpuShares

FILE_WIDTH: Final = 130
"""Columns where no terminal says how many it has."""


def report_console() -> Console:
    """Standard output, wide enough for tables also where it is a file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def machine_line(machine: Mapping[str, str | float]) -> str:
    """What the figures depend on."""
    return f"machine: {', '.join(f'{name} {value}' for name, value in machine.items())}"


def estimate_text(estimate: Estimate, digits: int = 1) -> str:
    """The value with its 95 % interval."""
    if isnan(estimate.value):
        return "-"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def number_text(value: float, digits: int = 0) -> str:
    """The value, or a dash where nothing was observed."""
    return "-" if isnan(value) else f"{value:.{digits}f}"


def cpu_text(cpu: CpuShares) -> str:
    """Generator and gateway in per cent of the machine."""
    return " + ".join("-" if isnan(share) else f"{share:.0%}" for share in (cpu.generator, cpu.gateway))


def echo_json(report: Any) -> None:
    """Print a report, which may hold dataclasses, as JSON to standard output."""
    typer.echo(json.dumps(plain(report), indent=2))


def plain(value: Any) -> Any:
    """What JSON takes; what was not observed is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value

"""How far `ferserve score` is, and what it came to, for people and for programs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ferserve.serving.bulk.estimate import Estimate
    from ferserve.serving.bulk.run import Tally
    from ferserve.serving.bulk.sources import Finder

SECONDS_SHOWN: Final = 120
"""From here on hours, minutes and seconds."""


@contextmanager
def progress_bar(finder: "Finder") -> "Iterator[Callable[[Tally], None]]":
    """A bar that takes tallies; how many pictures there are is counted meanwhile, on a thread of its own."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        threading.Thread(target=lambda: progress.update(task, total=finder.count()), daemon=True).start()

        def report(tally: "Tally") -> None:
            speed = f"{tally.pictures_per_s:.1f} pictures/s, {tally.faces_per_s:.1f} faces/s, {tally.errors} errors"
            progress.update(task, completed=tally.pictures + tally.passed_over, description=speed)

        yield report


def print_tally(tally: "Tally", out: object) -> None:
    """One line, on standard error."""
    kept = f", {tally.kept} kept from earlier runs" if tally.kept else ""
    repeated = f", {tally.repeated} of them copies" if tally.repeated else ""
    codes = ", ".join(f"{number} {code}" for code, number in sorted(tally.codes.items()))
    Console(stderr=True).print(
        f"{tally.pictures} pictures{repeated}, {tally.faces} faces, {tally.without_face} without a face, "
        f"{tally.errors} errors{f' ({codes})' if codes else ''} in {tally.seconds:.1f} s{kept}: {out}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def print_estimate(estimate: "Estimate") -> None:
    """Two lines on standard output."""
    sample = estimate.sample
    kept = f", {estimate.kept} of them scored already" if estimate.kept else ""
    typer.echo(
        f"{estimate.pictures} pictures{kept}; a sample of {sample.pictures} took {sample.seconds:.1f} s, "
        f"{sample.pictures_per_s:.1f} pictures/s, {sample.faces_per_s:.1f} faces/s, {sample.errors} errors"
    )
    typer.echo(
        f"about {_duration(estimate.seconds)} ({_duration(estimate.low_s)} to {_duration(estimate.high_s)}) "
        f"and {estimate.faces} faces; nothing was written"
    )


def estimate_summary(estimate: "Estimate") -> dict[str, Any]:
    """For programs."""
    return {
        "pictures": estimate.pictures,
        "kept": estimate.kept,
        "sampled": estimate.sample.pictures,
        "sample_seconds": round(estimate.sample.seconds, 3),
        "pictures_per_s": round(estimate.sample.pictures_per_s, 2),
        "faces_per_s": round(estimate.sample.faces_per_s, 2),
        "seconds": round(estimate.seconds, 3),
        "low_s": round(estimate.low_s, 1),
        "high_s": round(estimate.high_s, 1),
        "faces": estimate.faces,
        "errors": estimate.sample.errors,
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < SECONDS_SHOWN else str(timedelta(seconds=round(seconds)))


def summary(tally: "Tally", out: object) -> dict[str, Any]:
    """For programs."""
    return {
        "out": str(out),
        "pictures": tally.pictures,
        "repeated": tally.repeated,
        "kept": tally.kept,
        "faces": tally.faces,
        "without_face": tally.without_face,
        "errors": tally.errors,
        "codes": tally.codes,
        "seconds": round(tally.seconds, 3),
        "pictures_per_s": round(tally.pictures_per_s, 2),
        "faces_per_s": round(tally.faces_per_s, 2),
    }

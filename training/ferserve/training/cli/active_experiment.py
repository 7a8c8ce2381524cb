"""`ferserve active experiment`: S2's selection against random and plain entropy."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ferserve.training.cli.settings import made

if TYPE_CHECKING:
    from ferserve.training.active.experiment import ExperimentResult
    from ferserve.training.intervals import OverSeeds


def experiment(  # noqa: PLR0917 -- typer reads every option from a parameter
    data: Annotated[str, typer.Option(help="What to begin with and to measure on: fer2013=DIR.")],
    web: Annotated[list[str], typer.Option(help="Web faces, as expw_crops=DIR; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder that keeps crops and features for the next call.")],
    features: Annotated[
        str, typer.Option(help="What the classifier reads: hog, or an archive or a run, whose features stay frozen.")
    ] = "hog",
    start_labels: Annotated[int, typer.Option(min=1, help="Labels of FER-2013 that it begins with.")] = 500,
    faces: Annotated[int, typer.Option(min=1, help="Labels a round.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 6,
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 5,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many of the web faces, and of those to begin with; all without it.")
    ] = None,
    result: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of an archive's net.")] = 1,
) -> None:
    """Hold S2's selection against random and plain entropy at equal labels, on web faces whose labels are held back."""
    from ferserve.training.active.descriptors import open_descriptor
    from ferserve.training.active.experiment import run_experiment
    from ferserve.training.active.plots import plot_experiment
    from ferserve.training.active.simulation import ExperimentSettings
    from ferserve.training.data.catalog import parse_set

    settings = made(
        lambda: ExperimentSettings(
            start_labels=start_labels, round_labels=faces, rounds=rounds, seeds=tuple(range(1, seeds + 1))
        )
    )
    console = Console(stderr=True)
    found = run_experiment(
        data,
        [parse_set(text, option="--web") for text in web],
        open_descriptor(features, threads=threads),
        settings,
        out,
        sample=sample,
        on_step=lambda text: console.print(text, highlight=False),
    )
    if result is not None:
        result.write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    if plot is not None:
        plot_experiment(found, plot)
    _print_experiment(found)


def _print_experiment(found: "ExperimentResult") -> None:
    table = Table(title=f"FER-2013 PublicTest, {found.public_faces} faces, over {len(found.settings.seeds)} seeds")
    for heading in ("strategy", "accuracy at the end", "points over random", "mean over the curve", "labels to target"):
        table.add_column(heading)
    for summary in found.strategies:
        last = summary.points[-1]
        reached = sorted(labels for labels in summary.labels_to_target if labels is not None)
        needed = f"{reached[len(reached) // 2]:.0f}, {len(reached)} seeds reach it" if reached else "not reached"
        table.add_row(summary.strategy, _percent(last.accuracy), _points(last.gain), _points(summary.mean_gain), needed)
    console = Console()
    console.print(table)
    console.print(
        f"target {100 * found.target:.2f} %; with all {found.web_faces} web labels {100 * found.all_web:.2f} %",
        highlight=False,
    )


def _percent(over: "OverSeeds") -> str:
    return f"{100 * over.mean:.2f} % ({100 * over.low:.2f} to {100 * over.high:.2f})"


def _points(over: "OverSeeds | None") -> str:
    return "" if over is None else f"{100 * over.mean:+.2f} ({100 * over.low:+.2f} to {100 * over.high:+.2f})"

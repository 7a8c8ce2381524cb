"""A whole run from the data's folder to a calibrated set of weights: what `ferserve train` does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import Progress

from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.sources import read_source
from ferserve.training.data.splits import TrainingSplit
from ferserve.training.engine import EpochRow, Run
from ferserve.training.finish import Calibration, calibrate_run
from ferserve.training.held_out import cut_splits
from ferserve.training.machine import this_machine
from ferserve.training.recipe import Recipe
from ferserve.training.recipes import RECIPES
from ferserve.training.results import TrainingResult, write_result
from ferserve.training.teachers import read_teacher
from ferserve.training.visualize import plot_curves


def find_recipe(name: str, *, seed: int | None = None) -> Recipe:
    """A recipe by name, under another seed if one is given.

    Raises:
        DataError: no such recipe; the message lists the known ones.
    """
    if name not in RECIPES:
        raise DataError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]()
    return recipe if seed is None else replace(recipe, seed=seed)


def read_split(data: str, recipe: Recipe) -> TrainingSplit:
    """Read `NAME=DIR` and cut the validation split; test pictures serve only to be left out.

    Raises:
        DataError: the data set has no Training rows.
    """
    name, splits = read_source(data)
    if "train" not in splits:
        raise DataError(f"{name}: expected Training rows, found splits {', '.join(splits) or 'none'}")
    return cut_splits(splits, recipe)


def train_run(
    recipe: Recipe,
    data: str,
    *,
    folder: Path,
    start_weights: Path | None,
    teachers: Sequence[str] = (),
    device: str = "cpu",
    threads: int | None,
    progress: Progress,
) -> Calibration:
    """Train, or go on with an unfinished run in the same folder, and calibrate.

    Writes `recipe.json`, `history.jsonl`, `curves.png`, `last.pt`, `best.pt`, `calibration.json` and `result.json` into
    `folder`.

    Args:
        start_weights: see `Run`.
        teachers: finished runs or archives to learn from, if the recipe does; see `read_teacher`.
        device: torch's name of it.
    Raises:
        DataError: data or start weights are missing or malformed, or the folder holds another recipe's run.
        DivergedError: the loss is no longer a number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    split = read_split(data, recipe)
    fit_crops = torch.from_numpy(make_crops(split.fit, recipe.preprocess))
    validation_crops = torch.from_numpy(make_crops(split.validation, recipe.preprocess))
    read_teachers = [read_teacher(text, pupil=recipe) for text in teachers]
    run = Run(
        recipe,
        split,
        fit_crops=fit_crops,
        validation_crops=validation_crops,
        folder=folder,
        start_weights=start_weights,
        teachers=read_teachers,
        device=device,
    )
    _run_epochs(run, progress)
    calibration = calibrate_run(
        folder,
        recipe,
        validation_crops,
        split.validation.labels,
        dropped=split.dropped,
        data_sha256=data_sha256(split.fit),
    )
    result = TrainingResult(
        recipe=recipe,
        recipe_sha256=recipe.sha256,
        teachers=tuple(teacher.recipe_sha256 for teacher in read_teachers),
        history=tuple(read_history(folder)),
        calibration=calibration,
        machine=this_machine(),
    )
    write_result(folder / "result.json", result)
    return calibration


def read_history(folder: Path) -> list[EpochRow]:
    """The rows of a run's `history.jsonl`; empty before its first epoch ended."""
    path = folder / "history.jsonl"
    if not path.is_file():
        return []
    return [EpochRow(**json.loads(line)) for line in path.read_text().splitlines()]


def _run_epochs(run: Run, progress: Progress) -> None:
    total = run.recipe.epochs * run.steps_per_epoch
    task = progress.add_task("training", total=total, completed=run.progress.epoch * run.steps_per_epoch)

    def on_step(step: int, loss: float) -> None:
        done = run.progress.epoch * run.steps_per_epoch + step + 1
        progress.update(task, completed=done, description=f"epoch {run.progress.epoch + 1}: loss {loss:.3f}")

    for row in run.epochs(on_step):
        progress.console.print(
            f"epoch {row.epoch:3d}  {row.input_size_px} px  loss {row.loss:.4f}  "
            f"validation {100 * row.accuracy:.2f} %  {row.seconds:.0f} s"
        )
        plot_curves(read_history(run.folder), run.folder / "curves.png")

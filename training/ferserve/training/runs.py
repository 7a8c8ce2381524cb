"""A whole run from the data's folder to a calibrated set of weights: what `ferserve train` does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from rich.progress import Progress

from ferserve.faces.detectors import default_detector
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.board import Board
from ferserve.training.data.errors import DataError
from ferserve.training.data.folds import Protocol
from ferserve.training.engine import EpochRow, Run, read_history
from ferserve.training.examples import RunData, read_run_data
from ferserve.training.finish import Calibration, Learnt, calibrate_run, finish_pretraining
from ferserve.training.fold_runs import FoldsResult, read_small_set, train_folds
from ferserve.training.machine import this_machine
from ferserve.training.origin import Origin, behind_teachers
from ferserve.training.recipe import Recipe
from ferserve.training.recipes import RECIPES
from ferserve.training.results import TrainingResult, write_result
from ferserve.training.stopping import on_stop
from ferserve.training.teachers import read_teacher
from ferserve.training.visualize import plot_curves

PLOTTED_FROM_S: Final = 10.0
"""Epochs shorter than this are drawn at the end of the run alone."""


def find_recipe(name: str, *, seed: int | None = None, frozen_groups: int | None = None) -> Recipe:
    """A recipe by name, under another seed or with so many groups frozen if that is given.

    Raises:
        DataError: no such recipe; the message lists the known ones.
    """
    if name not in RECIPES:
        raise DataError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]()
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    return recipe if frozen_groups is None else replace(recipe, frozen_groups=frozen_groups)


def train_run(
    recipe: Recipe,
    data: str,
    *,
    folder: Path,
    start_weights: Path | None,
    teachers: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    device: str = "cpu",
    threads: int | None,
    progress: Progress,
    tensorboard: bool = False,
) -> Calibration | Learnt:
    """Train, or go on with an unfinished run in the same folder, and calibrate where it learns our expressions.

    Writes `recipe.json`, `origin.json`, `history.jsonl`, `curves.png`, `last.pt`, `best.pt`, `calibration.json` and
    `result.json` into `folder`.

    Args:
        start_weights: see `Run`.
        teachers: finished runs or archives to learn from, if the recipe does; see `read_teacher`.
        unlabelled: see `read_run_data`.
        device: torch's name of it.
        tensorboard: write the epochs for TensorBoard too.
    Raises:
        DataError: data or start weights are missing or malformed, or the folder holds another recipe's run.
        DivergedError, StoppedError, StorageError: see `Run.epochs`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    read = read_run_data(data, recipe, unlabelled)
    read_teachers = [read_teacher(text, pupil=recipe) for text in teachers]
    if recipe.objective.teacher_sees == "crops" and teachers:
        progress.console.print(f"the teachers score {len(read.fit)} faces both ways round, before the first epoch")
    run = Run(
        recipe,
        fit=read.fit,
        validation=read.validation,
        folder=folder,
        start_weights=start_weights,
        teachers=read_teachers,
        device=device,
    )
    hashes = tuple(teacher.recipe_sha256 for teacher in read_teachers)
    if not run.last.is_file():
        origin = Origin.of(recipe, data=read.name, start_weights=start_weights, teachers=hashes)
        replace(origin, taught_from=behind_teachers(teachers), unlabelled=read.unlabelled).write(folder)
    board = Board(folder, next_epoch=run.progress.epoch + 1) if tensorboard else None
    with on_stop(run.ask_to_stop):
        _run_epochs(run, progress, board)
    return _finish(run, read, hashes)


def _finish(run: Run, read: RunData, teachers: tuple[str, ...]) -> Calibration | Learnt:
    ours = run.recipe.task == "expressions" and read.fit.num_classes == NUM_EXPRESSIONS
    finish: Callable[..., Calibration | Learnt] = calibrate_run if ours else finish_pretraining
    outcome = finish(run.folder, run.recipe, read.validation, dropped=read.dropped, data_sha256=read.sha256)
    result = TrainingResult(
        recipe=run.recipe,
        recipe_sha256=run.recipe.sha256,
        teachers=teachers,
        history=tuple(read_history(run.folder)),
        calibration=outcome,
        machine=this_machine(run.device),
    )
    write_result(run.folder / "result.json", result)
    return outcome


def train_folds_run(
    recipe: Recipe,
    data: str,
    *,
    folder: Path,
    start_weights: Path | None,
    protocol: Protocol,
    configuration: str | None = None,
    device: str = "cpu",
    threads: int | None,
    progress: Progress,
) -> FoldsResult:
    """Fine-tune on a small set, a run for each fold, and write `result.json`: `ferserve train --folds`.

    Raises:
        DataError: see `read_small_set` and `train_folds`.
        DivergedError, StoppedError, StorageError: see `Run.epochs`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    small = read_small_set(data, recipe, configuration=configuration, detector=default_detector())
    folder.mkdir(parents=True, exist_ok=True)
    current: list[Run] = []

    def stop() -> None:
        for run in current:
            run.ask_to_stop()

    def goes_on(run: Run) -> None:
        current[:] = [run]  # a run that is over must not keep its nets in memory

    def on_epoch(fold: int, row: EpochRow) -> None:
        progress.console.print(f"fold {fold}  epoch {row.epoch:3d}  loss {row.loss:.4f}  {100 * row.accuracy:.2f} %")

    with on_stop(stop):
        result = train_folds(
            recipe,
            small,
            protocol=protocol,
            folder=folder,
            start_weights=start_weights,
            device=device,
            on_run=goes_on,
            on_epoch=on_epoch,
        )
    write_result(folder / "result.json", result)
    return result


def _run_epochs(run: Run, progress: Progress, board: Board | None) -> None:
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
        # On a GPU the picture takes longer than an epoch.
        if row.seconds > PLOTTED_FROM_S:
            plot_curves(run.history, run.folder / "curves.png")
        if board is not None:
            board.add(row)
    plot_curves(run.history, run.folder / "curves.png")

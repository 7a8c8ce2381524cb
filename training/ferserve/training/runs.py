"""A whole run from the data's folder to a calibrated set of weights: what `ferserve train` does."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from rich.progress import Progress

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.data.errors import DataError
from ferserve.training.engine import Run, read_history
from ferserve.training.examples import RunData, read_run_data
from ferserve.training.finish import Calibration, Learnt, calibrate_run, finish_pretraining
from ferserve.training.machine import this_machine
from ferserve.training.origin import Origin
from ferserve.training.recipe import Recipe
from ferserve.training.recipes import RECIPES
from ferserve.training.results import TrainingResult, write_result
from ferserve.training.teachers import read_teacher
from ferserve.training.visualize import plot_curves


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
    device: str = "cpu",
    threads: int | None,
    progress: Progress,
) -> Calibration | Learnt:
    """Train, or go on with an unfinished run in the same folder, and calibrate where it learns our expressions.

    Writes `recipe.json`, `origin.json`, `history.jsonl`, `curves.png`, `last.pt`, `best.pt`, `calibration.json` and
    `result.json` into `folder`.

    Args:
        start_weights: see `Run`.
        teachers: finished runs or archives to learn from, if the recipe does; see `read_teacher`.
        device: torch's name of it.
    Raises:
        DataError: data or start weights are missing or malformed, or the folder holds another recipe's run.
        DivergedError, StoppedError, StorageError: see `Run.epochs`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    read = read_run_data(data, recipe)
    read_teachers = [read_teacher(text, pupil=recipe) for text in teachers]
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
        Origin.of(recipe, data=read.name, start_weights=start_weights, teachers=hashes).write(folder)
    with _stopping(run):
        _run_epochs(run, progress)
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
        machine=this_machine(),
    )
    write_result(run.folder / "result.json", result)
    return outcome


@contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """While open, Ctrl-C or a TERM signal ends the run after its step; a second one ends the process at once."""
    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():  # only there can a signal be taken
        yield
        return
    former = {number: signal.getsignal(number) for number in signals}

    def stop(number: int, _frame: FrameType | None) -> None:
        run.stop = True
        signal.signal(number, former[signal.Signals(number)])

    for number in signals:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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

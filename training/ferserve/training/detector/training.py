"""A whole run from the data's folders to a trained net: what `ferserve detector train` does."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import torch

from ferserve.training.data.expw_scenes import read_photos
from ferserve.training.detector.batches import SceneBatches
from ferserve.training.detector.crops import collect, comes_from
from ferserve.training.detector.labelling import label_photos
from ferserve.training.detector.photos import PhotoSplit, split_photos
from ferserve.training.detector.recipe import DetectorRecipe
from ferserve.training.detector.run import DetectorEpoch, DetectorRun
from ferserve.training.detector.selection import Selection
from ferserve.training.detector.start import start_from
from ferserve.training.detector.teacher import Teacher
from ferserve.training.detector.views import Studio

SOURCES_FILE = "sources.json"
START_KEY = "start_weights_sha256"
"""In `SOURCES_FILE`; null for a random start."""


def split_of(recipe: DetectorRecipe, photos: Path) -> PhotoSplit:
    """The photos of a folder in ExpW's layout as a recipe splits them."""
    return split_photos(read_photos(photos), aside=recipe.aside_photos, selection=recipe.selection_photos)


def train_detector(
    recipe: DetectorRecipe,
    *,
    photos: Path,
    faces: Mapping[str, Path],
    teacher_file: Path,
    start_weights: Path | None,
    folder: Path,
    device: str,
    threads: int | None,
    workers: int,
    on_step: Callable[[int, float], None],
    on_epoch: Callable[[DetectorEpoch], None],
) -> None:
    """Train, or go on with an unfinished run in the same folder.

    Args:
        start_weights: a published YuNet file to start from; None starts from random weights.
        threads: of torch; None leaves its own choice.
        workers: threads that draw scenes.
    Raises:
        DataError: data or the teacher are missing or malformed, or the folder holds another recipe's run.
        DivergedError: the loss is no longer a number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # small pictures: its threads would only get in the way of the workers
    split = split_of(recipe, photos)
    teacher = Teacher(teacher_file)
    unseen = {Path(photo.name).stem for photo in (*split.aside, *split.selection)}
    crops = collect(
        faces,
        teacher,
        per_source=recipe.scenes.faces_per_source,
        seed=recipe.seed,
        wanted=lambda path: not comes_from(path, unseen),
        workers=workers,
    )
    studio = Studio(label_photos(split.fit, teacher, workers=workers), crops, recipe.scenes)
    run = DetectorRun(
        recipe,
        SceneBatches(recipe, studio, teacher),
        start=None if start_weights is None else partial(start_from, path=start_weights),
        check=Selection.prepare(split.selection, teacher).check,
        folder=folder,
        device=device,
        workers=workers,
    )
    facts = {
        START_KEY: None if start_weights is None else hashlib.sha256(start_weights.read_bytes()).hexdigest(),
        "teacher_sha256": teacher.sha256,
        "crops": len(crops),
        "photos": {"fit": len(split.fit), "selection": len(split.selection), "aside": len(split.aside)},
        "aside": sorted(photo.name for photo in split.aside),
    }
    (folder / SOURCES_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    for row in run.epochs(on_step):
        on_epoch(row)

"""Training batches, drawn ahead of their use on threads of their own.

Every picture is a function of the recipe's seed, the step and its place in the batch alone: a run that was stopped at
step n goes on with the very batches it would have had.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ferserve.training.detector.assignment import targets
from ferserve.training.detector.geometry import cell_grid
from ferserve.training.detector.recipe import DetectorRecipe
from ferserve.training.detector.teacher import Teacher
from ferserve.training.detector.views import Studio


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Pictures and what to learn from them.

    Attributes:
        pictures: BGR uint8, shape (N, 3, H, W), channels last in memory.
        targets: float32, shape (N, A, 15).
        grid: float32, shape (A, 3).
    """

    pictures: Tensor
    targets: Tensor
    grid: Tensor


class BatchSource(Protocol):
    """Gives the batch of any step."""

    def batch(self, step: int) -> Batch:
        """The same for the same step, at any time."""
        ...


class SceneBatches:
    """Draws scenes and asks the teacher about each."""

    def __init__(self, recipe: DetectorRecipe, studio: Studio, teacher: Teacher) -> None:
        self.recipe, self.studio, self.teacher = recipe, studio, teacher

    def batch(self, step: int) -> Batch:
        """See `BatchSource`."""
        view = self.recipe.view(step)
        grid = cell_grid(view.size_px, view.size_px)
        pictures, aims = [], []
        for place in range(view.pictures):
            scene = self.studio.draw(np.random.default_rng([self.recipe.seed, step, place]), size_px=view.size_px)
            exact = scene.exact
            maps = self.teacher.maps(scene.image)
            aim = targets(maps, scene.boxes[exact], scene.landmarks[exact], grid, self.recipe.objective)
            pictures.append(scene.image[:, :, ::-1])
            aims.append(aim)
        return Batch(
            pictures=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
            targets=torch.from_numpy(np.stack(aims)),
            grid=torch.from_numpy(grid),
        )


def ahead(make: Callable[[int], Batch], steps: range, *, workers: int) -> Iterator[Batch]:
    """Make the batches of these steps in order, some ahead of their use.

    Args:
        workers: threads; drawing and the teacher leave the interpreter free most of the time.
    """
    waiting: deque[Future[Batch]] = deque()
    upcoming = iter(steps)
    with ThreadPoolExecutor(workers, thread_name_prefix="scenes") as pool:
        try:
            for step in upcoming:
                waiting.append(pool.submit(make, step))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

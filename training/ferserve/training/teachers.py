"""Finished runs whose calibrated scores become targets of another (Hinton et al. 2015, at temperature 1).

Shapes: N faces, C channels, H and W pixels, K = 7 classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferserve.training.calibrate import Scaling
from ferserve.training.finish import Calibration, load_best
from ferserve.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """A net that only looks.

    Attributes:
        net: in eval mode.
        size_px: views are brought to this side for it.
        recipe_sha256: of the run that it comes from.
    """

    net: nn.Module
    size_px: int
    scaling: Scaling
    recipe_sha256: str

    @classmethod
    def read(cls, folder: Path, *, pupil: Recipe) -> Self:
        """A finished run.

        Raises:
            DataError: no finished run, or one that was fitted on faces that the pupil is selected by.
        """
        recipe = Recipe.read(folder / "recipe.json")
        pupil.check_same_split(recipe, str(folder))
        net, _ = load_best(folder, recipe)
        net.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            net=net,
            size_px=recipe.final_size_px,
            scaling=Calibration.read(folder).scaling,
            recipe_sha256=recipe.sha256,
        )

    @torch.no_grad()
    def scores(self, x_NCHW: Tensor) -> Tensor:
        """Calibrated scores of views in [-1, 1], (N, K) float32."""
        if x_NCHW.shape[-1] != self.size_px:
            size = (self.size_px, self.size_px)
            x_NCHW = F.interpolate(x_NCHW, size=size, mode="bilinear", align_corners=False)
        logits_NK, _ = self.net(x_NCHW)
        bias_K = torch.tensor(self.scaling.bias)
        return torch.softmax(logits_NK.float() / self.scaling.temperature + bias_K, dim=1)


def ensemble_scores(teachers: Sequence[Teacher], x_NCHW: Tensor) -> Tensor:
    """Mean of the teachers' scores, (N, K)."""
    return torch.stack([teacher.scores(x_NCHW) for teacher in teachers]).mean(dim=0)

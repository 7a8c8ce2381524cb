"""Runs and archives whose calibrated scores become targets of another run (Hinton et al. 2015, at temperature 1).

Shapes: N faces, S the crop's side, C channels, H and W pixels, K = 7 classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession
from ferserve.training.calibrate import Scaling
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.finish import Calibration, load_best
from ferserve.training.held_out import recipe_of
from ferserve.training.recipe import Recipe


class Teacher(Protocol):
    """Whoever scores faces.

    Attributes:
        recipe_sha256: of the run that it comes from.
    """

    @property
    def recipe_sha256(self) -> str:
        """See above."""

    def scores(self, x_NCHW: Tensor) -> Tensor:
        """Calibrated scores of views in [-1, 1], (N, K) float32, where the views are."""


def read_teacher(text: str, *, pupil: Recipe) -> Teacher:
    """A finished run by its folder, or an archive by its name or path.

    Raises:
        DataError: no finished run, or one that was fitted on faces that the pupil is selected by.
        ArchiveError: no such archive.
    """
    if Path(text).is_dir():
        return RunTeacher.read(Path(text), pupil=pupil)
    return ArchiveTeacher.read(text, pupil=pupil)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunTeacher:
    """A run's net that only looks.

    Attributes:
        net: in eval mode.
        size_px: views are brought to this side for it.
    """

    net: nn.Module
    size_px: int
    scaling: Scaling
    recipe_sha256: str

    @classmethod
    def read(cls, folder: Path, *, pupil: Recipe) -> Self:
        """See `read_teacher`."""
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
        """See `Teacher`."""
        self.net.to(x_NCHW.device)
        logits_NK, _ = self.net(_resized(x_NCHW, self.size_px))
        bias_K = torch.tensor(self.scaling.bias, device=x_NCHW.device)
        return torch.softmax(logits_NK.float() / self.scaling.temperature + bias_K, dim=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArchiveTeacher:
    """An archive's float32 graph; it takes crops, so views are brought back to its crops' side and to bytes."""

    session: ScoringSession
    size_px: int
    recipe_sha256: str

    @classmethod
    def read(cls, name_or_path: str, *, pupil: Recipe) -> Self:
        """See `read_teacher`."""
        archive = open_archive(name_or_path)
        pupil.check_same_split(recipe_of(archive), str(archive.path.name))
        spec = archive.manifest.preprocess
        if spec.channels != pupil.preprocess.channels:
            raise DataError(
                f"--teacher: expected an archive that takes {pupil.preprocess.channels} channel(s) as the recipe does, "
                f"{archive.path.name} takes {spec.channels}"
            )
        session = ScoringSession.from_archive(archive, threads=torch.get_num_threads(), precision="fp32")
        return cls(session=session, size_px=spec.size_px, recipe_sha256=archive.manifest.recipe_sha256)

    @torch.no_grad()
    def scores(self, x_NCHW: Tensor) -> Tensor:
        """See `Teacher`."""
        bytes_NCSS = (_resized(x_NCHW.float(), self.size_px) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        crops = bytes_NCSS.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return torch.from_numpy(self.session.score(crops)).to(x_NCHW.device)


def _resized(x_NCHW: Tensor, size_px: int) -> Tensor:
    if x_NCHW.shape[-1] == size_px:
        return x_NCHW
    return F.interpolate(x_NCHW, size=(size_px, size_px), mode="bilinear", align_corners=False)


def ensemble_scores(teachers: Sequence[Teacher], x_NCHW: Tensor) -> Tensor:
    """Mean of the teachers' scores, (N, K)."""
    return torch.stack([teacher.scores(x_NCHW) for teacher in teachers]).mean(dim=0)


def crop_scores(teachers: Sequence[Teacher], crops_NSSC: Tensor, *, batch: int = 256) -> Tensor:
    """What the teachers say of whole crops and their mirror images, on average; (N, K).

    Args:
        crops_NSSC: uint8.
    """
    parts = []
    for crops in torch.split(crops_NSSC, batch):
        x_NCHW = to_input(crops, size_px=crops.shape[1])
        parts.append((ensemble_scores(teachers, x_NCHW) + ensemble_scores(teachers, x_NCHW.flip(-1))) / 2)
    return torch.cat(parts)

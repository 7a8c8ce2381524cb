"""An archive's `torch.export` program on a GPU or the CPU: uint8 crops in, calibrated scores out.

Shapes: N faces, S the crop's side, C channels.
"""

import io
import logging
from typing import Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export.passes import move_to_device_pass

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.errors import ArchiveError
from ferserve.faces.labels import NUM_EXPRESSIONS

WARM_UP_FACES: Final = (1, 2, 32)
"""Kernels are chosen and memory is taken at the first run of a size; no request shall wait for that."""
CPU_BATCH_FACES: Final = 64
"""A CPU gains nothing from more at once, and each face takes half a megabyte while it is computed."""
HALF_TOLERANCE: Final = 0.02
"""Largest difference of a score between half and single precision on noise; more, and half is not used."""

_log = logging.getLogger(__name__)


class Scorer:
    """Scores batches of crops; use `load`. For one thread at a time.

    Attributes:
        precision: `fp16` on a GPU whose scores agree with single precision's, otherwise `fp32`.
        device: such as `cpu` or `cuda:0`.
    """

    def __init__(self, module: nn.Module, *, crop_shape: tuple[int, int, int], device: str) -> None:
        self._module = module
        self.crop_shape = crop_shape
        self.device = device
        self.precision: Literal["fp32", "fp16"] = "fp32"

    @classmethod
    def load(cls, program: bytes, *, crop_shape: tuple[int, int, int], device: str) -> Self:
        """Load a program whose hash was checked, and run it until it is warm.

        Args:
            program: a `.pt2` file.
            crop_shape: (S, S, C).
            device: where it runs; on `cuda` in half precision and channels-last, which its tensor cores want.
        Raises:
            ArchiveError: torch refuses the program, or it takes or gives something else.
        """
        try:
            exported = move_to_device_pass(torch.export.load(io.BytesIO(program)), device)
            module = exported.module()
        except Exception as error:  # torch raises many types without a common base
            raise ArchiveError(f"model.pt2: torch refuses it: {type(error).__name__}") from error
        scorer = cls(module, crop_shape=crop_shape, device=device)
        if torch.device(device).type == "cuda":
            _to_channels_last(module)
            scorer._take_half()
        scorer._warm_up()
        return scorer

    def score(self, crops_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores, float32 of shape (N, 7), of uint8 crops (N, S, S, C); N may be 0."""
        parts = [self._run(part, self.precision) for part in self._parts(crops_NSSC)]
        return np.concatenate(parts) if parts else np.zeros((0, NUM_EXPRESSIONS), dtype=np.float32)

    @torch.inference_mode()
    def _run(self, crops_NSSC: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        crops = torch.from_numpy(crops_NSSC).to(self.device)
        with torch.autocast(torch.device(self.device).type, dtype=torch.float16, enabled=precision == "fp16"):
            scores = self._module(crops)
        result: NDArray[np.float32] = scores.float().cpu().numpy()
        return result

    def _take_half(self) -> None:
        """Compute in half precision from now on, if that works and gives the same scores of noise."""
        noise = self._noise(max(WARM_UP_FACES))
        try:
            difference = float(np.abs(self._run(noise, "fp16") - self._run(noise, "fp32")).max())
        except RuntimeError as error:
            _log.warning("half precision cannot run (%s); single precision is used", type(error).__name__)
            return
        if difference <= HALF_TOLERANCE:  # false for NaN
            self.precision = "fp16"
        else:
            _log.warning("half precision differs by %.3f; single precision is used", difference)

    def _warm_up(self) -> None:
        for faces in WARM_UP_FACES:
            try:
                scores = self.score(self._noise(faces))
            except Exception as error:  # as above
                raise ArchiveError(f"model.pt2: it cannot score {faces} crops: {type(error).__name__}") from error
            if scores.shape != (faces, NUM_EXPRESSIONS) or not np.isfinite(scores).all():
                raise ArchiveError(
                    f"model.pt2: expected finite scores of shape ({faces}, {NUM_EXPRESSIONS}) of noise, "
                    f"got shape {scores.shape}"
                )

    def _parts(self, crops_NSSC: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Batches of the size that the program and the device take."""
        size = CPU_BATCH_FACES if torch.device(self.device).type == "cpu" else MAX_BATCH_FACES
        return [crops_NSSC[start : start + size] for start in range(0, len(crops_NSSC), size)]

    def _noise(self, faces: int) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 256, (faces, *self.crop_shape), dtype=np.uint8)


def _to_channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

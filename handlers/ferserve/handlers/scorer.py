"""An archive's `torch.export` program on a GPU or the CPU: uint8 crops in, calibrated scores out.

Shapes: N faces, S the crop's side, C channels.
"""

import io
import logging
from collections.abc import Callable
from typing import Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export.passes import move_to_device_pass

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.handlers.graphs import GraphRunner
from ferserve.handlers.rewriting import (
    activations_in_place,
    cast_weights,
    pointwise_as_products,
    to_channels_last,
)

ScorerPrecision = Literal["fp32", "fp16"]
PrecisionWish = Literal["auto", "fp32", "fp16"]
"""`auto` is fp16 on a GPU where that gives the same scores of noise, otherwise fp32."""
PRECISION_WISHES: Final[tuple[PrecisionWish, ...]] = ("auto", "fp32", "fp16")
WARM_UP_FACES: Final = (1, 2, 32)
"""Kernels are chosen and memory is taken at the first run of a size; no request shall wait for that."""
CPU_BATCH_FACES: Final = 8
"""A CPU gains nothing from more at once, and the layers of more come from the system anew each time, page by page."""
HALF_TOLERANCE: Final = 0.02
"""Largest difference of a score between half and single precision on noise; more, and half is not used."""

_log = logging.getLogger(__name__)


def precision_wish(text: str) -> PrecisionWish:
    """What a flag or an environment variable says.

    Raises:
        InvalidRequestError: none of `PRECISION_WISHES`.
    """
    for wish in PRECISION_WISHES:
        if wish == text:
            return wish
    raise InvalidRequestError(f"precision: expected one of {', '.join(PRECISION_WISHES)}, got {text!r}")


class Scorer:
    """Scores batches of crops; use `load`. For one thread at a time.

    Attributes:
        precision: what it computes in.
        device: such as `cpu` or `cuda:0`.
    """

    def __init__(self, module: fx.GraphModule, *, crop_shape: tuple[int, int, int], device: str) -> None:
        self._module = module
        self.crop_shape = crop_shape
        self.device = device
        self.precision: ScorerPrecision = "fp32"
        self._run: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = self._run_eager

    @classmethod
    def load(
        cls, program: bytes, *, crop_shape: tuple[int, int, int], device: str, precision: PrecisionWish = "auto"
    ) -> Self:
        """Load a program whose hash was checked, and run it until it is warm.

        Args:
            program: a `.pt2` file.
            crop_shape: (S, S, C).
            device: where it runs.
            precision: on the CPU it is fp32 in any case.
        Raises:
            ArchiveError: torch refuses the program, it takes or gives something else, or it does not compute in fp16.
        """
        try:
            exported = move_to_device_pass(torch.export.load(io.BytesIO(program)), device)
            module = exported.module()
            to_channels_last(module)
            pointwise_as_products(module)
            if torch.device(device).type == "cpu":
                activations_in_place(module)
        except Exception as error:  # torch raises many types without a common base
            raise ArchiveError(f"model.pt2: torch refuses it: {type(error).__name__}") from error
        scorer = cls(module, crop_shape=crop_shape, device=device)
        if torch.device(device).type == "cuda":
            scorer._settle_on_gpu(precision)
        scorer._warm_up()
        return scorer

    def score(self, crops_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores, float32 of shape (N, 7), of uint8 crops (N, S, S, C); N may be 0."""
        parts = [self._run(part) for part in self._parts(crops_NSSC)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros((0, NUM_EXPRESSIONS), dtype=np.float32)

    @torch.inference_mode()
    def forward(self, crops: Tensor) -> Tensor:
        """Scores, float32 of shape (N, 7), of uint8 crops (N, S, S, C), both on the device; waits for nothing."""
        half = torch.autocast(
            torch.device(self.device).type, dtype=torch.float16, enabled=self.precision == "fp16", cache_enabled=False
        )
        with half:
            scores: Tensor = self._module(crops)
        return scores.float()

    def _run_eager(self, crops_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
        # What came over a wire is often read-only, which torch has no notion of.
        own = crops_NSSC if crops_NSSC.flags.writeable else crops_NSSC.copy()
        result: NDArray[np.float32] = self.forward(torch.from_numpy(own).to(self.device)).cpu().numpy()
        return result

    def _settle_on_gpu(self, precision: PrecisionWish) -> None:
        """Choose the precision, and record all that is computed from then on."""
        if precision != "fp32":
            self._take_half()
            if precision == "fp16" and self.precision != "fp16":
                raise ArchiveError("model.pt2: expected a program that computes in fp16 what it does in fp32")
        self._run = GraphRunner(self.forward, crop_shape=self.crop_shape, device=self.device)

    def _take_half(self) -> None:
        """Compute in half precision from now on, if that works and gives the same scores of noise."""
        noise = self._noise(max(WARM_UP_FACES))
        single = self._run_eager(noise)
        self.precision = "fp16"
        try:
            difference = float(np.abs(self._run_eager(noise) - single).max())
        except RuntimeError as error:
            _log.warning("half precision cannot run (%s); single precision is used", type(error).__name__)
            self.precision = "fp32"
            return
        if difference <= HALF_TOLERANCE:  # false for NaN
            cast_weights(self._module, torch.float16)
        else:
            _log.warning("half precision differs by %.3f; single precision is used", difference)
            self.precision = "fp32"

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

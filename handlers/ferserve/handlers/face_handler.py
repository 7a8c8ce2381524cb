"""Crops in, scores out: detection happened elsewhere, in the gateway as a rule.

Shapes: N faces, S the crop's side, C channels.
"""

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.arrays import MAGIC, pack_array, unpack_array
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.wire import CROPS, UNNAMED
from ferserve.handlers.question import BINARY_TYPE, Inputs, Question, Reply


class FaceHandler:
    """Reads `.npy` files of crops.

    Args:
        crop_shape: (S, S, C).
    """

    def __init__(self, crop_shape: tuple[int, int, int]) -> None:
        self._crop_shape = crop_shape

    @staticmethod
    def takes(inputs: Inputs) -> bool:
        """Whether a request is about crops: by its name, or without one by how it begins."""
        return CROPS in inputs or any(inputs.get(name, b"")[: len(MAGIC)] == MAGIC for name in UNNAMED)

    def read(self, inputs: Inputs) -> Question:
        """Check a request.

        Raises:
            InvalidRequestError: more than one input, no `.npy` file, or another type or shape.
        """
        if len(inputs) != 1:
            raise InvalidRequestError(f"expected crops alone, got the inputs {', '.join(sorted(inputs))}")
        (data,) = inputs.values()
        crops = unpack_array(data, dtype=np.uint8)
        if crops.ndim != 4 or crops.shape[1:] != self._crop_shape or not len(crops):
            raise InvalidRequestError(
                f"expected uint8 crops of shape (N, {', '.join(map(str, self._crop_shape))}), got {crops.shape}"
            )
        return Question(crops=crops, answer=_reply)


def _reply(scores: NDArray[np.float32], _infer_s: float) -> Reply:
    return Reply(body=pack_array(scores), content_type=BINARY_TYPE)

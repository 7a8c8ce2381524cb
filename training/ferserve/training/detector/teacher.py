"""The teacher: a YuNet file in ONNX Runtime, its whole maps and the faces in them."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.align import resize
from ferserve.faces.detectors.decoding import OUTPUTS, PAD_TO_PX, STRIDES, Candidates, decode
from ferserve.faces.detectors.onnx import MAX_OVERLAP
from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError


class Teacher:
    """A net with YuNet's outputs. Safe to call from several threads.

    Args:
        path: an ONNX file; a fixed input size in it is set free, which YuNet's graph allows.
    Raises:
        DataError: no such file, or ONNX Runtime refuses it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: expected the teacher's ONNX file, found none")
        content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            graph = with_free_size(onnx.load_from_string(content))
            self._session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnx and ONNX Runtime raise many types without a common base
            raise DataError(f"{path}: expected a YuNet file: {type(error).__name__}: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def outputs(self, image: Image) -> dict[str, NDArray[np.float32]]:
        """The net's twelve outputs.

        Args:
            image: RGB uint8, sides multiples of the coarsest stride.
        """
        blob: NDArray[Any] = cv2.dnn.blobFromImage(image, swapRB=True)
        return dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), {self._input: blob}), strict=True))

    def maps(self, image: Image) -> NDArray[np.float32]:
        """Fifteen numbers a cell (see `geometry`), the score as detectors report it, float32, shape (A, 15)."""
        outputs = self.outputs(image)
        parts = []
        for stride in STRIDES:
            cls, obj, bbox, kps = (outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps"))
            parts.append(np.concatenate((np.sqrt(cls.clip(0, 1) * obj.clip(0, 1)), bbox, kps), axis=1))
        return np.concatenate(parts)

    def faces(self, image: Image, *, min_score: float, scale: float = 1.0) -> Candidates:
        """One row a face, in pixels of `image`.

        Args:
            scale: the picture is resized by this first, up or down.
        """
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        padded = pad_to_stride(resize(image, size))
        found = decode(self.outputs(padded), columns_px=padded.shape[1], min_score=min_score)
        found = found.suppressed(max_overlap=MAX_OVERLAP)
        return found.moved(x_px=0, y_px=0, scale_x=width / size[0], scale_y=height / size[1])


def with_free_size(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Set height and width of a detector's input free, in place."""
    shape = graph.graph.input[0].type.tensor_type.shape
    for axis, name in ((2, "height"), (3, "width")):
        shape.dim[axis].dim_param = name
    for output in graph.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells_{output.name.rpartition('_')[2]}"
    del graph.graph.value_info[:]
    return graph


def pad_to_stride(image: Image) -> Image:
    """Black below and to the right, up to whole cells of the coarsest stride: as detectors pad."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(
        image, 0, -height % PAD_TO_PX, 0, -width % PAD_TO_PX, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
    return np.asarray(padded, dtype=np.uint8)

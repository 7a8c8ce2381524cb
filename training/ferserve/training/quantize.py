"""From an archive's float32 graph to one in half precision or in int8; uint8 crops in and float32 scores out stay.

In int8 only convolutions and their activations are quantised. What comes before them (range and enlargement) and after
(pooling, classifier, calibration, softmax) costs next to nothing, and small errors there reach every score.

Shapes: N faces, S the crop's side, C channels.
"""

import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from ferserve.faces.errors import ArchiveError

CalibrationName = Literal["minmax", "percentile", "entropy"]
PERCENTILE: Final = 99.99
"""Share of an activation's values that its range holds, for the method of that name."""
CALIBRATION_BATCH: Final = 16
"""Faces whose activations are in memory at once while ranges are collected."""
_METHODS: Final[dict[CalibrationName, Any]] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
_INT8_OPS: Final = ("Conv", "Clip", "Relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Settings:
    """How a graph is quantised; weights always by channel, activations always as uint8.

    Attributes:
        method: how an activation's range follows from the calibration crops.
        float_convs: the first so many convolutions stay float32. Only a run from the front can: ONNX Runtime
            (`WeightBiasQuantization`, microsoft/onnxruntime#25673) quantises a float convolution between two quantised
            ones by itself, its weights by tensor, which ruins depthwise convolutions.
        reduce_range: weights of 7 bits instead of 8. x86 without VNNI adds two products in 16 bits, which 8-bit weights
            can overflow: the same file then gives other scores there.
    """

    method: CalibrationName
    float_convs: int
    reduce_range: bool

    @property
    def text(self) -> str:
        """For people."""
        bits = 7 if self.reduce_range else 8
        return f"{self.method}, {self.float_convs} float convolutions, {bits}-bit weights"

    def __post_init__(self) -> None:
        if self.method not in get_args(CalibrationName):
            raise ValueError(f"method must be one of {', '.join(get_args(CalibrationName))}, got {self.method!r}")
        if self.float_convs < 0:
            raise ValueError(f"float_convs must be 0 or more, got {self.float_convs}")


def to_half(graph: bytes) -> bytes:
    """The graph with weights and activations in float16.

    Args:
        graph: an ONNX file, one input.
    """
    half = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    return bytes(half.SerializeToString())


def to_int8(graph: bytes, crops: NDArray[np.uint8], settings: Int8Settings) -> bytes:
    """The graph with its convolutions in int8, statically, in the QDQ format.

    Args:
        graph: an ONNX file, one input, its nodes named.
        crops: what the activations' ranges are taken from, uint8, shape (N, S, S, C); equal crops give equal bytes.
    Raises:
        ArchiveError: the graph has no more convolutions than `float_convs`.
        ValueError: no crops.
    """
    if not len(crops):
        raise ValueError("crops: expected at least one to take ranges from, got none")
    model = onnx.load_from_string(graph)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    if len(convs) <= settings.float_convs:
        raise ArchiveError(
            f"model.onnx: expected more than {settings.float_convs} convolutions to keep so many in float32, "
            f"got {len(convs)}"
        )
    reader = _CropReader(crops, model.graph.input[0].name)
    # The quantiser prints its progress, and standard output belongs to the result.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(model, prepared)
        quantize_static(
            prepared,
            quantised,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_INT8_OPS),
            nodes_to_exclude=_with_activations(model, convs[: settings.float_convs]),
            per_channel=True,
            reduce_range=settings.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[settings.method],
            extra_options={
                "CalibStridedMinMax": 1,  # for every method: one batch of the reader at a time
                "CalibPercentile": PERCENTILE,
                "CalibTensorRangeSymmetric": False,  # behind a ReLU half of a symmetric range would lie idle
            },
        )
        return quantised.read_bytes()


class _CropReader:
    """Batches of crops as the quantiser reads them; it asks for a range of batches, then for one after the other."""

    def __init__(self, crops: NDArray[np.uint8], name: str) -> None:
        self._name = name
        self._batches = [crops[start : start + CALIBRATION_BATCH] for start in range(0, len(crops), CALIBRATION_BATCH)]
        self._left: Iterator[NDArray[np.uint8]] = iter(())

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}


def _with_activations(model: onnx.ModelProto, convs: list[onnx.NodeProto]) -> list[str]:
    """Names of convolutions and of what directly follows each."""
    outputs = {conv.output[0] for conv in convs}
    names = [conv.name for conv in convs]
    return names + [node.name for node in model.graph.node if outputs & set(node.input) and node.op_type != "Conv"]

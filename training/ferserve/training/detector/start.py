"""Start weights of the detector: the teacher's own.

A student that begins where its teacher stands has the teacher's recall before its first step; training then teaches it
what the teacher misses (docs/adr/0015-the-detector-starts-from-its-teacher.md).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from ferserve.training.data.errors import DataError
from ferserve.training.models.detector import INPUT_SCALE, LEVELS, SeparableUnit, YuNet

HEAD_ORDER: Final = ("cls", "bbox", "obj", "kps")
"""The heads as they follow each other in the published graph, each for all levels."""
OUR_ORDER: Final = ("cls", "obj", "bbox", "kps")
"""The same as channels of our one head."""


def start_from(net: YuNet, path: Path) -> None:
    """Copy the weights of a published YuNet file into a net, in place; but for the score's mean it answers the same.

    Raises:
        DataError: no such file, or its convolutions are not YuNet's in number or shape.
    """
    try:
        graph: Any = onnx.load(path).graph  # its generated classes carry no types of their fields
    except Exception as error:  # onnx raises many types without a common base
        raise DataError(f"{path}: expected a YuNet file: {type(error).__name__}") from error
    found = _convolutions(graph)
    units = [_Pair(net.stem), *(_Pair(part) for unit in _body_units(net) for part in (unit.pointwise, unit.depthwise))]
    heads = len(HEAD_ORDER) * LEVELS * 2
    if len(found) != len(units) + heads:
        raise DataError(f"{path}: expected the {len(units) + heads} convolutions of YuNet, found {len(found)}")
    with torch.no_grad():
        for unit, weights in zip(units, found, strict=False):
            unit.take(*weights, path=path)
        for level, head in enumerate(net.heads):
            assert isinstance(head, SeparableUnit)
            for part, conv in enumerate((head.pointwise, head.depthwise)):
                _Pair(conv).take(*_joined_head(found[len(units) :], level=level, part=part), path=path)
        net.stem.weight.div_(INPUT_SCALE)


class _Pair:
    """Weight and bias of one convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        assert conv.bias is not None
        self.weight, self.bias = conv.weight, conv.bias

    def take(self, weight: NDArray[np.float32], bias: NDArray[np.float32], *, path: Path) -> None:
        for own, given in ((self.weight, weight), (self.bias, bias)):
            if tuple(own.shape) != given.shape:
                raise DataError(f"{path}: expected a convolution of shape {tuple(own.shape)}, found {given.shape}")
            own.copy_(torch.from_numpy(given.copy()))


def _body_units(net: YuNet) -> Iterator[SeparableUnit]:
    """All units before the heads in the graph's order: the body down, the pyramid up."""
    yield from (unit for unit in net.body.modules() if isinstance(unit, SeparableUnit))
    yield from (unit for unit in reversed(net.laterals) if isinstance(unit, SeparableUnit))


def _convolutions(graph: Any) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight and bias of every convolution, in the graph's order."""
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    return [
        (values[node.input[1]], values[node.input[2]])
        for node in nodes
        if len(node.input) == 3 and {*node.input[1:]} <= values.keys()
    ]


def _joined_head(
    found: list[tuple[NDArray[np.float32], NDArray[np.float32]]], *, level: int, part: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The four heads of a level, their channels one after the other.

    Args:
        found: of all heads, in the graph's order.
        part: 0 for the pointwise convolution, 1 for the depthwise one.
    """
    places = [2 * (LEVELS * HEAD_ORDER.index(kind) + level) + part for kind in OUR_ORDER]
    weights, biases = zip(*(found[place] for place in places), strict=True)
    return np.concatenate(weights), np.concatenate(biases)

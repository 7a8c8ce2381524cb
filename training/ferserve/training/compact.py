"""Weights in a few bits: what a large net costs in an archive, at the accuracy that its card states.

Every weight of a convolution or a linear layer becomes q * s with a whole number |q| < 2^(bits - 1) and one scale s an
output channel, chosen for the least squared error over a grid of clippings. The graph holds q as int8 behind a
DequantizeLinear, which ONNX Runtime computes once at load: scores and speed are those of the float32 graph with the
same rounded weights. An archive is deflated, so a weight costs what its number's entropy is, less than `bits`.

Shapes: O output channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ferserve.training.recipe import check_setting

CLIPPINGS: Final = tuple(share / 20 for share in range(8, 21))
"""Largest |weight| that is kept, as a share of the channel's largest."""
MIN_BITS, MAX_BITS = 2, 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WholeWeights:
    """A weight as numbers and scales.

    Attributes:
        numbers: int8, the weight's shape.
        scales: float32, shape (O,).
    """

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]


def to_whole(weight: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """The nearest numbers and their scales.

    Returns:
        Whole numbers as float32 of the weight's shape, and scales (O,); a channel of zeros has scale 1.
    """
    largest = 2 ** (bits - 1) - 1
    flat_OX = weight.detach().float().flatten(1)
    reach_O1 = flat_OX.abs().amax(dim=1, keepdim=True)
    best_error_O1 = torch.full_like(reach_O1, float("inf"))
    best_scale_O1 = torch.ones_like(reach_O1)
    for share in CLIPPINGS:
        scale_O1 = torch.where(reach_O1 > 0, reach_O1 * share / largest, torch.ones_like(reach_O1))
        error_O1 = (_rounded(flat_OX, scale_O1, largest) * scale_O1 - flat_OX).square().sum(dim=1, keepdim=True)
        better_O1 = error_O1 < best_error_O1
        best_error_O1 = torch.where(better_O1, error_O1, best_error_O1)
        best_scale_O1 = torch.where(better_O1, scale_O1, best_scale_O1)
    return _rounded(flat_OX, best_scale_O1, largest).view_as(weight), best_scale_O1[:, 0]


def _rounded(flat_OX: Tensor, scale_O1: Tensor, largest: int) -> Tensor:
    return (flat_OX / scale_O1).round().clamp(-largest, largest)


@torch.no_grad()
def round_to_bits(net: nn.Module, *, bits: int) -> dict[str, WholeWeights]:
    """Round the weights of every convolution and linear layer in place.

    Args:
        bits: 2 to 8.
    Returns:
        What each became, by the parameter's name.
    Raises:
        ValueError: another number of bits.
    """
    check_setting(MIN_BITS <= bits <= MAX_BITS, "bits", f"{MIN_BITS} to {MAX_BITS}", bits)
    whole: dict[str, WholeWeights] = {}
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            numbers, scales_O = to_whole(module.weight, bits=bits)
            module.weight.copy_(numbers * scales_O.view(-1, *[1] * (numbers.ndim - 1)))
            whole[f"{name}.weight"] = WholeWeights(
                numbers=numbers.to(torch.int8).numpy(), scales=scales_O.float().numpy()
            )
    return whole


def store_whole(graph: bytes, whole: Mapping[str, WholeWeights], *, prefix: str = "net.") -> bytes:
    """The graph with those weights as int8 behind a DequantizeLinear each; it computes the same.

    Args:
        graph: an ONNX file whose weights were rounded by `round_to_bits` before the export.
        prefix: of the weights' names in the graph.
    Raises:
        ValueError: the graph does not hold such a weight as it was rounded.
    """
    model = onnx.load_from_string(graph)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for name, weight in whole.items():
        tensor = initializers.get(prefix + name)
        expected = weight.numbers * weight.scales.reshape(-1, *[1] * (weight.numbers.ndim - 1))
        if tensor is None or not np.array_equal(numpy_helper.to_array(tensor), expected):
            raise ValueError(f"graph: expected an initializer {prefix + name} with the rounded weights")
        model.graph.initializer.remove(tensor)
        stored: dict[str, NDArray[Any]] = {
            "numbers": weight.numbers,
            "scales": weight.scales,
            "zeros": np.zeros(len(weight.scales), np.int8),
        }
        for part, array in stored.items():
            model.graph.initializer.append(numpy_helper.from_array(array, f"{prefix}{name}.{part}"))
        inputs = [f"{prefix}{name}.{part}" for part in stored]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [prefix + name], f"{prefix}{name}.whole", axis=0))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    for value in [value for value in model.graph.value_info if value.name.removeprefix(prefix) in whole]:
        model.graph.value_info.remove(value)
    return bytes(model.SerializeToString())

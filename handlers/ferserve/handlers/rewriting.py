"""An archive's program as it runs fastest: the same numbers, from fewer passes over memory.

An archive holds what the exporter wrote: convolutions, each with a bias, then an activation, each a pass over all
pixels of all faces. On a GPU those passes take longer than the convolutions; on a CPU they take a quarter of the time.
"""

from typing import Any, Final

import torch
from torch import fx

_CONV: Final = torch.ops.aten.conv2d.default
_LINEAR: Final = torch.ops.aten.linear.default
_WEIGHED: Final = frozenset({_CONV, _LINEAR})
"""What computes with weights in half precision under autocast."""
_CONV_DEFAULTS: Final = (None, None, None, (1, 1), (0, 0), (1, 1), 1)
"""Input, weight, bias, stride, padding, dilation and groups: the last ones are left out where they are these."""
_IN_PLACE: Final[dict[Any, tuple[Any, tuple[float, ...]]]] = {
    torch.ops.aten.relu6.default: (torch.ops.aten.hardtanh_.default, (0.0, 6.0)),
    torch.ops.aten.relu.default: (torch.ops.aten.relu_.default, ()),
}
"""An activation, and the same over what it takes, with its further arguments."""
_PERMUTE: Final = torch.ops.aten.permute.default


def to_channels_last(module: fx.GraphModule) -> None:
    """Lay out the weights of convolutions as tensor cores read them; what is computed with them follows."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def pointwise_as_products(module: fx.GraphModule) -> None:
    """Compute convolutions of one pixel, whose weights are channels-last, as products of matrices.

    A product adds its bias on the way out; a convolution of cuDNN's leaves that to a pass of its own over all pixels,
    which takes longer than the convolution.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is _CONV and _is_pointwise(module, node):
            pixels, weight, *bias = node.args[:3]
            parameter = module.get_parameter(str(weight.target))
            parameter.data = parameter.data.flatten(1)
            with graph.inserting_before(node):
                pixels = graph.call_function(_PERMUTE, (pixels, [0, 2, 3, 1]))
                products = graph.call_function(_LINEAR, (pixels, weight, *bias))
                channels_first = graph.call_function(_PERMUTE, (products, [0, 3, 1, 2]))
            node.replace_all_uses_with(channels_first)
            graph.erase_node(node)
    module.recompile()


def _is_pointwise(module: fx.GraphModule, node: fx.Node) -> bool:
    weight = node.args[1]
    if node.kwargs or not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) > 1:
        return False
    stride: Any
    padding: Any
    stride, padding, _, groups = (*node.args, *_CONV_DEFAULTS[len(node.args) :])[3:]
    if (list(stride), list(padding), groups) != ([1, 1], [0, 0], 1):
        return False
    return module.get_parameter(str(weight.target)).shape[2:] == (1, 1)


def cast_weights(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Keep weights in the type that autocast would bring them to for every batch anew."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _WEIGHED:
            for argument in node.args[1:3]:
                if isinstance(argument, fx.Node) and argument.op == "get_attr":
                    parameter = module.get_parameter(str(argument.target))
                    parameter.data = parameter.data.to(dtype)


def activations_in_place(module: fx.GraphModule) -> None:
    """Write what an activation gives over what a convolution or a product gave it, if nothing else takes that."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _IN_PLACE and _is_own(node.args[0]):
            node.target, further = _IN_PLACE[node.target]
            node.args = (node.args[0], *further)
    module.recompile()


def _is_own(value: Any) -> bool:
    """Whether a value was computed anew for its one user; a permuted one lies in the memory of what it came from."""
    if not isinstance(value, fx.Node) or len(value.users) > 1:
        return False
    return value.target in _WEIGHED or (value.target is _PERMUTE and _is_own(value.args[0]))

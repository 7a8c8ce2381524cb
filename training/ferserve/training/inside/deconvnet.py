"""A deconvnet with recorded switches: what a layer's activations say of the pixels that caused them.

Zeiler and Fergus 2014, section 2.1; S3 (Lin et al. 2020, section 3.2) decides by it which layers transfer. From a
layer's maps back to pixels, every stage that the face went through is gone through the other way:

    max pool       unpooling: each value to the place that was the maximum, zeros elsewhere (the recorded switches)
    max of halves  MFM (Net B): each value to the half that was the larger, the first on a tie; a switch as well
    ReLU, ReLU6    rectified again: R <- max(0, R), whatever was positive on the way up
    convolution    the same filters transposed, its stride and padding undone; no bias
    batch norm     its scale, that is the filter with the norm folded in; no shift
    LRN            passed through: Zeiler and Fergus undo no contrast normalisation
    shortcut       (ResNet) both ways, added up

All but the rectifiers and LRN are the derivative, so the net's own forward pass is recorded by autograd with those two
exchanged (Simonyan et al. 2014, section 4, show the same equivalence): nothing here knows an architecture.

Deviation from S3, whose equation 9 also subtracts each layer's bias on the way down: Zeiler and Fergus do not, and it
would paint a pattern that no face caused.

Shapes: N faces, C input channels, H and W pixels, M maps of a layer, h and w their size.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from ferserve.training.data.errors import DataError
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.net_b import NetB


class _Rectified(torch.autograd.Function):
    """max(0, x), or up to a ceiling; downwards max(0, R) wherever x was."""

    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor, ceiling: float | None) -> Tensor:
        return x.clamp(min=0.0, max=ceiling)

    @staticmethod
    def backward(_ctx: FunctionCtx, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0].clamp(min=0.0), None


class _Larger(torch.autograd.Function):
    """The larger of two; downwards all of R to where it came from, where autograd's own would halve a tie."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first >= second)
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor]:
        (from_first,) = ctx.saved_tensors
        return grad[0] * from_first, grad[0] * ~from_first


class _Normalised(torch.autograd.Function):
    """LRN; downwards R as it is."""

    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor, normal: Tensor) -> Tensor:
        assert x.shape == normal.shape
        return normal.clone()

    @staticmethod
    def backward(_ctx: FunctionCtx, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0], None


class _Downwards(TorchFunctionMode):
    """While on, what is not its own derivative on the way down is recorded as the deconvnet has it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in {F.relu, torch.relu}:
            return _Rectified.apply(args[0], None)  # type: ignore[no-untyped-call]
        if func is F.relu6:
            return _Rectified.apply(args[0], 6.0)  # type: ignore[no-untyped-call]
        if func is torch.maximum:
            return _Larger.apply(*args)  # type: ignore[no-untyped-call]
        if func is F.local_response_norm:
            with torch.no_grad():
                normal = func(*args, **named)
            return _Normalised.apply(args[0], normal)  # type: ignore[no-untyped-call]
        return func(*args, **named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which activations of a layer are brought down.

    Attributes:
        map: number of the one map; None takes all.
        top: so many of each map's strongest activations; None takes all.
    """

    map: int | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ValueError(f"top: expected 1 or more activations, got {self.top}")

    def __str__(self) -> str:
        whose = "every map" if self.map is None else f"map {self.map}"
        return f"all of {whose}" if self.top is None else f"top {self.top} of {whose}"

    def of(self, maps_NMhw: Tensor) -> Tensor:
        """The maps with everything else zero.

        Raises:
            DataError: there is no such map.
        """
        if self.map is not None:
            if not 0 <= self.map < maps_NMhw.shape[1]:
                raise DataError(f"map: expected 0 to {maps_NMhw.shape[1] - 1} of this layer, got {self.map}")
            one_NMhw = torch.zeros_like(maps_NMhw)
            one_NMhw[:, self.map] = maps_NMhw[:, self.map]
            maps_NMhw = one_NMhw
        if self.top is None:
            return maps_NMhw
        flat_NMx = maps_NMhw.flatten(2)
        strongest = flat_NMx.topk(min(self.top, flat_NMx.shape[2]), dim=2)
        kept_NMx = torch.zeros_like(flat_NMx).scatter(2, strongest.indices, strongest.values)
        return kept_NMx.view_as(maps_NMhw)


ALL: Final = Selection()


class Seen:
    """Faces that went up through a net, with every layer's maps and the switches on the way.

    Attributes:
        maps: by layer, after its rectifier: (N, M, h, w), no gradient.
    """

    def __init__(self, x_NCHW: Tensor, recorded: dict[str, Tensor]) -> None:
        self._x_NCHW = x_NCHW
        self._recorded = recorded
        self.maps = {layer: maps.detach() for layer, maps in recorded.items()}

    def reconstruct(self, layer: str, selection: Selection = ALL) -> Tensor:
        """Bring a layer's activations down to pixels.

        Returns:
            (N, C, H, W); its sign and scale are those of the filters, zero is "nothing said".
        Raises:
            DataError: no such layer, or no such map of it.
        """
        if layer not in self._recorded:
            raise DataError(f"layer: expected one of {', '.join(self._recorded)}, got {layer!r}")
        chosen = selection.of(self.maps[layer])
        (down_NCHW,) = torch.autograd.grad(self._recorded[layer], self._x_NCHW, chosen, retain_graph=True)
        return down_NCHW


def layers_of(net: ExpressionNet) -> tuple[str, ...]:
    """Names of the layers that can be looked at: the first part of each group that a transfer may freeze.

    A layer's maps are what the group's last part leaves, its norm's for one, so that `conv1` stays `conv1` with a norm.
    """
    return tuple(group[0] for group in net.groups)


def look(net: ExpressionNet, x_NCHW: Tensor) -> Seen:
    """Show faces to a net in eval mode and record the way up.

    Args:
        x_NCHW: as the net takes them, in [-1, 1].
    """
    net.eval()
    x_NCHW = x_NCHW.detach().clone().requires_grad_()
    with torch.enable_grad(), _Downwards(), _recording(net) as recorded:
        net(x_NCHW)
    return Seen(x_NCHW, recorded)


@contextmanager
def _recording(net: ExpressionNet) -> Iterator[dict[str, Tensor]]:
    """While open, gathers the maps of every layer, rectified where the net does so behind the module."""
    recorded: dict[str, Tensor] = {}
    signed = isinstance(net, NetB)  # MFM leaves no rectifier: a map's values below zero go on upwards

    def hook(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # A copy: the rectifier that follows may work in place.
            recorded[layer] = output.clone() if signed else F.relu(output.clone())

        return keep

    ends = zip(layers_of(net), net.groups, strict=True)
    handles = [net.get_submodule(group[-1]).register_forward_hook(hook(layer)) for layer, group in ends]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()

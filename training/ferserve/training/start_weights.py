"""Start weights: a former run's, or a state dict that a user has, brought to our input range and channels.

ImageNet's and VGGFace2's ResNet-50 and ResNet-152 in torchvision's layout and BVLC's CaffeNet with Caffe's names are to
be had as such files; none is shipped here nor fetched.
The first convolution of a source reads (p - mean) / std of pixels p of 0 to 255; ours reads x = p / 127.5 - 1. The
scale goes into its kernel and the shift into the norm or the bias behind it; grey nets get the sum over the colours,
which is exact for grey pictures. Only at the border it is not: a source pads with its mean, ours with mid-grey.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ferserve.training.data.errors import DataError
from ferserve.training.models.net import ExpressionNet
from ferserve.training.recipe import StartName

HALF_RANGE: Final = 127.5


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRange:
    """What a source's first convolution was trained on.

    Attributes:
        mean, std: of pixels of 0 to 255, in the order of its channels.
        bgr: blue first, as Caffe's nets have it.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool


RANGES: Final[dict[StartName, InputRange]] = {
    "imagenet": InputRange(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), bgr=False),
    "vggface2": InputRange(mean=(91.4953, 103.8827, 131.0912), std=(1.0, 1.0, 1.0), bgr=True),
    "caffenet": InputRange(mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), bgr=True),
}
"""torchvision's ImageNet models; VGGFace2's as its authors trained them (Cao et al. 2018); BVLC's CaffeNet, whose mean
picture is taken for its mean colour."""


def load_state_dict_file(net: ExpressionNet, path: Path, start: StartName) -> None:
    """Put a file's weights into `net`; its classifier, and what the source has not, stay as they are.

    Args:
        path: `torch.save` of a state dict, alone or under `state_dict`; read without running code.
        start: which input range the source has.
    Raises:
        DataError: no such file, no state dict, or one of another net; the message names weights.
    """
    state = _read(path)
    _adapt_first(net, state, RANGES[start], path)
    _take_over(net, state, str(path))


def load_run_weights(net: ExpressionNet, weights: dict[str, Tensor], source: str) -> None:
    """Put a former run's weights into `net`: all of them, or all but a classifier for other classes.

    Args:
        source: names the run in the error.
    Raises:
        DataError: they are another net's; the message names a weight.
    """
    _take_over(net, dict(weights), source)


def _take_over(net: ExpressionNet, state: dict[str, Tensor], source: str) -> None:
    own = net.state_dict()
    head = f"{net.classifier_name}."
    free = (head, *(f"{part}." for part in net.new_parts))
    kept = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    # A classifier comes over whole or not at all, and so does a part that not every source has.
    for part in free:
        if any(name.startswith(part) and name not in kept for name in own):
            kept = {name: value for name, value in kept.items() if not name.startswith(part)}
    needed = [name for name, _ in net.named_parameters() if name not in kept and not name.startswith(free)]
    if needed:
        name = needed[0]
        came = f"is {tuple(state[name].shape)}" if name in state else "is missing"
        raise DataError(
            f"--start-weights: expected weights of {type(net).__name__}, with {name} {tuple(own[name].shape)}; "
            f"in {source} it {came}"
        )
    net.load_state_dict(own | kept)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"--start-weights: expected a file with a state dict, found none at {path}")
    try:
        state: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise DataError(f"--start-weights: {path} is no file of torch.save with tensors alone: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"--start-weights: expected a state dict in {path}, names to tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _adapt_first(net: ExpressionNet, state: dict[str, Tensor], source: InputRange, path: Path) -> None:
    """Rewrite the first convolution, and the norm or bias behind it, for our input."""
    conv, *behind = net.groups[0]
    first = net.get_submodule(conv)
    assert isinstance(first, nn.Conv2d)
    target, sign = (f"{conv}.bias", 1.0) if first.bias is not None else (f"{behind[0]}.running_mean", -1.0)
    for name, dimensions in ((f"{conv}.weight", 4), (target, 1)):
        if name not in state or state[name].ndim != dimensions:
            raise DataError(f"--start-weights: expected {name} of {dimensions} dimension(s) in {path}")
    if state[f"{conv}.weight"].shape[1] != len(source.mean):
        raise DataError(
            f"--start-weights: expected {conv}.weight for 3 colours, got {state[f'{conv}.weight'].shape[1]}"
        )
    kernel_OIHW = state[f"{conv}.weight"].double()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (source.mean, source.std))
    shift_O = (kernel_OIHW * (HALF_RANGE - mean) / std).sum(dim=(1, 2, 3))
    kernel_OIHW = kernel_OIHW * HALF_RANGE / std
    if source.bgr:
        kernel_OIHW = kernel_OIHW.flip(1)
    if first.in_channels == 1:
        kernel_OIHW = kernel_OIHW.sum(dim=1, keepdim=True)
    state[f"{conv}.weight"] = kernel_OIHW.float()
    state[target] = (state[target].double() + sign * shift_O).float()

"""A number for what S3 leaves to the eye: how much of a face a layer's reconstruction keeps where expressions show.

S3 (Lin et al. 2020) looks at reconstructions and freezes the layers in which "eyes, nose and mouth" can be seen; its
section 5 asks for a quantitative measure. Here: bring all of a layer's maps down (see `deconvnet`), shrink the result
to the crop, and compare it with the crop by SSIM's structure term (Wang et al. 2004, equation 10) in Gaussian windows

    s(p) = cov(x, r) / (sd(x) sd(r) + c),       c = (0.03)^2 / 2 of the range of pixels

averaged over the pixels of eyes and mouth (by landmarks). A reconstruction has no brightness and no contrast of its
own, so SSIM's other two terms say nothing of it, and its scale is brought to the crop's first. The constant stands
below the line alone: where a reconstruction is flat, s is 0 and not 1.

Shapes: N faces, S the crop's side, C channels, L layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ferserve.training.crops import to_input
from ferserve.training.inside.deconvnet import ALL, Selection, layers_of, look
from ferserve.training.inside.regions import Region, region_masks
from ferserve.training.models.net import ExpressionNet

WINDOW_SD_PX: Final = 1.5
WINDOW_REACH_PX: Final = 5
"""Wang et al. 2004, section III.B: 11 x 11."""
FLAT: Final = 0.03**2 / 2
"""Their C3 for pixels of 0 to 1; a reconstruction that varies by less than this share of its values is flat, too."""
EXPRESSIVE: Final = Region.MOUTH_AND_EYES
BATCH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerStructure:
    """One layer, face by face.

    Attributes:
        expressive_N: mean structure over eyes and mouth, -1 to 1: the criterion.
        elsewhere_N: the same over the rest of the crop.
        concentration_N: share of the reconstruction's squares inside eyes and mouth, over their share of the crop: 1 is
            a reconstruction that says as much elsewhere.
    """

    layer: str
    expressive_N: NDArray[np.float64]
    elsewhere_N: NDArray[np.float64]
    concentration_N: NDArray[np.float64]

    @property
    def criterion(self) -> float:
        """Mean over the faces."""
        return float(self.expressive_N.mean())


def shrink(down_NCHW: Tensor, *, side_px: int) -> Tensor:
    """Bring reconstructions to the crop's side without aliasing: the chequers that strides leave average out."""
    return F.interpolate(down_NCHW, size=(side_px, side_px), mode="bilinear", antialias=True)


def structure(x_NSS: Tensor, r_NSS: Tensor) -> Tensor:
    """SSIM's structure term of two pictures at every pixel, -1 to 1, shape (N, S, S).

    Args:
        x_NSS: 0 to 1.
        r_NSS: of any scale, which is brought to that of `x_NSS`.
    """
    x_NSS, r_NSS = x_NSS.double(), r_NSS.double()
    reach_N11 = r_NSS.abs().amax(dim=(1, 2), keepdim=True)
    r_NSS = r_NSS - r_NSS.mean(dim=(1, 2), keepdim=True)
    spread_N11 = r_NSS.std(dim=(1, 2), keepdim=True)
    # What is flat but for rounding stays flat: brought to the crop's scale it would be noise.
    scale_N11 = x_NSS.std(dim=(1, 2), keepdim=True) / spread_N11.clamp(min=1e-300)
    r_NSS = r_NSS * torch.where(spread_N11 > FLAT * reach_N11, scale_N11, torch.zeros_like(scale_N11))
    mean_x, mean_r = _windowed(x_NSS), _windowed(r_NSS)
    covariance = _windowed(x_NSS * r_NSS) - mean_x * mean_r
    variance_x = (_windowed(x_NSS * x_NSS) - mean_x**2).clamp(min=0.0)
    variance_r = (_windowed(r_NSS * r_NSS) - mean_r**2).clamp(min=0.0)
    return covariance / ((variance_x * variance_r).sqrt() + FLAT)


def measure_layers(
    net: ExpressionNet,
    crops_NSSC: NDArray[np.uint8],
    landmarks_N52: NDArray[np.floating],
    *,
    input_size_px: int,
    selection: Selection = ALL,
    on_batch: Callable[[], None] = lambda: None,
) -> list[LayerStructure]:
    """The criterion for every layer of a net, from the input on.

    Args:
        landmarks_N52: pixels of the crops.
        input_size_px: side that the net sees the crops at.
        selection: of activations; S3 looks at all of them, and at the strongest.
        on_batch: called after each `BATCH` faces.
    """
    side_px = crops_NSSC.shape[1]
    masks_NSS = torch.from_numpy(region_masks(landmarks_N52, EXPRESSIVE, size_px=side_px))
    layers = layers_of(net)
    gathered: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for rows in torch.split(torch.arange(len(crops_NSSC)), BATCH):
        crops = torch.from_numpy(crops_NSSC[rows.numpy()])
        x_NSS = crops.float().mean(dim=3) / 255.0
        seen = look(net, to_input(crops, size_px=input_size_px))
        for layer in layers:
            down_NCHW = seen.reconstruct(layer, selection)
            r_NSS = shrink(down_NCHW.sum(dim=1, keepdim=True), side_px=side_px)[:, 0]
            gathered[layer].append(_figures(x_NSS, r_NSS, masks_NSS[rows]))
        on_batch()
    return [_layer(layer, torch.cat(gathered[layer]).numpy()) for layer in layers]


def choose_groups(criterion_L: Sequence[float], count: int) -> tuple[int, ...]:
    """Numbers of the groups with the highest criterion, ascending; the earlier one on a tie.

    Raises:
        ValueError: more groups than there are.
    """
    if not 0 <= count <= len(criterion_L):
        raise ValueError(f"count: expected 0 to {len(criterion_L)} groups, got {count}")
    ranked = sorted(range(len(criterion_L)), key=lambda number: (-criterion_L[number], number))
    return tuple(sorted(ranked[:count]))


def transferable(criterion_L: Sequence[float], *, share: float) -> int:
    """How many groups the criterion alone would freeze: up to the last that keeps a share of the best one's figure.

    None where no layer keeps anything.

    Args:
        share: 0 to 1 of the largest.
    """
    best = max(criterion_L)
    enough = [number for number, value in enumerate(criterion_L, start=1) if best > 0 and value >= share * best]
    return enough[-1] if enough else 0


def _figures(x_NSS: Tensor, r_NSS: Tensor, masks_NSS: Tensor) -> Tensor:
    """Inside, elsewhere and concentration of each face, (N, 3)."""
    s_NSS = structure(x_NSS, r_NSS)
    inside_NSS, outside_NSS = masks_NSS.double(), (~masks_NSS).double()
    squares_NSS = r_NSS.double() ** 2
    share_N = (squares_NSS * inside_NSS).sum(dim=(1, 2)) / squares_NSS.sum(dim=(1, 2)).clamp(min=1e-30)
    columns = [
        (s_NSS * inside_NSS).sum(dim=(1, 2)) / inside_NSS.sum(dim=(1, 2)),
        (s_NSS * outside_NSS).sum(dim=(1, 2)) / outside_NSS.sum(dim=(1, 2)),
        share_N / inside_NSS.mean(dim=(1, 2)),
    ]
    return torch.stack(columns, dim=1)


def _layer(layer: str, figures_N3: NDArray[np.float64]) -> LayerStructure:
    expressive_N, elsewhere_N, concentration_N = figures_N3.T
    return LayerStructure(
        layer=layer, expressive_N=expressive_N, elsewhere_N=elsewhere_N, concentration_N=concentration_N
    )


def _windowed(x_NSS: Tensor) -> Tensor:
    """Gaussian means; beyond the picture its edge pixels go on."""
    reach = torch.arange(-WINDOW_REACH_PX, WINDOW_REACH_PX + 1, dtype=x_NSS.dtype)
    weights = torch.exp(-(reach**2) / (2 * WINDOW_SD_PX**2))
    weights = weights / weights.sum()
    padded = F.pad(x_NSS[:, None], (WINDOW_REACH_PX,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))[:, 0]

"""Small sets made larger, as two of the papers have it: S4's up to 200 views a picture, S1's noise a channel.

Miao et al. 2019 (S4), section 3.1.2: up to 100 random patches of [0.85, 1] of the face's area, each also mirrored. They
sample with TensorFlow's distorted bounding boxes and name no range of aspects: patches are square here.
S1, section 4.1, and S2, section 4, add "random information" to each of the three channels of SFEW's pictures and print
no size: normal noise here, drawn for every channel apart.

Shapes: N crops, S their side, C channels, V views, T the side of a view.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ferserve.training.recipe import check_setting

MIN_AREA: Final = 0.85
MAX_PATCHES: Final = 100
"""Mirrored ones beside them: 200 views a picture."""
NOISE: Final = 0.05
"""Standard deviation in shares of the range of pixels; the papers print none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlargement:
    """How many views a picture gives, and how they differ.

    Attributes:
        patches: random patches a picture; S4: up to 100. 1 with `min_area` 1 is the picture itself.
        min_area: smallest share of the picture's area in a patch.
        mirror: every patch once more, mirrored.
        noise: standard deviation of the noise a channel, 0 to 1 of the range of pixels; 0 adds none.
    """

    patches: int = MAX_PATCHES
    min_area: float = MIN_AREA
    mirror: bool = True
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_setting(1 <= self.patches <= MAX_PATCHES, "patches", f"1 to {MAX_PATCHES}", self.patches)
        check_setting(0 < self.min_area <= 1, "min_area", "more than 0, at most 1", self.min_area)
        check_setting(0 <= self.noise <= 1, "noise", "0 to 1", self.noise)

    @property
    def views(self) -> int:
        """V, views a picture."""
        return self.patches * (2 if self.mirror else 1)


S4_VIEWS: Final = Enlargement()
"""Miao et al. 2019: 200 views a picture."""
S1_VIEWS: Final = Enlargement(patches=1, min_area=1.0, mirror=False, noise=NOISE)
"""S1 and S2: the picture under noise."""


def enlarge(
    crops_NSSC: Tensor, labels_N: Tensor, settings: Enlargement, *, size_px: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw all views of every crop, those of one crop side by side.

    Args:
        crops_NSSC: uint8, shape (N, S, S, C).
        size_px: T, the side of the views.
    Returns:
        Views, uint8, shape (N V, T, T, C), and their labels, shape (N V,).
    """
    repeated = crops_NSSC.repeat_interleave(settings.patches, dim=0).permute(0, 3, 1, 2).to(torch.float32)
    x_NCTT = _patches(repeated, settings.min_area, size_px, generator)
    if settings.mirror:
        x_NCTT = torch.stack([x_NCTT, x_NCTT.flip(-1)], dim=1).flatten(0, 1)
    x_NCTT = add_channel_noise(x_NCTT, settings.noise * 255.0, generator=generator)
    views = x_NCTT.round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return views, labels_N.repeat_interleave(settings.views, dim=0)


def add_channel_noise(x_NCHW: Tensor, deviation: float, *, generator: Generator) -> Tensor:
    """Add normal noise, drawn for every pixel and channel apart, so that grey in three channels becomes coloured.

    Args:
        deviation: in the units of `x_NCHW`; 0 gives it back.
    """
    if deviation == 0.0:
        return x_NCHW
    return x_NCHW + deviation * torch.randn(x_NCHW.shape, generator=generator)


def _patches(x_NCSS: Tensor, min_area: float, size_px: int, generator: Generator) -> Tensor:
    """One square patch of each, anywhere inside, brought to the side T."""
    count, channels = x_NCSS.shape[:2]
    if min_area == 1.0 and x_NCSS.shape[-1] == size_px:
        return x_NCSS
    side_N = (min_area + (1.0 - min_area) * torch.rand(count, generator=generator)).sqrt()
    # Grid coordinates span -1 to 1: a patch of this side may be off the middle by what is left of one half.
    shift_N2 = (2.0 * torch.rand(count, 2, generator=generator) - 1.0) * (1.0 - side_N)[:, None]
    zero_N = torch.zeros(count)
    rows = torch.stack([side_N, zero_N, shift_N2[:, 0], zero_N, side_N, shift_N2[:, 1]], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), [count, channels, size_px, size_px], align_corners=False)
    return F.grid_sample(x_NCSS, grid, mode="bilinear", padding_mode="border", align_corners=False)

"""Random views of crops: one affine sampling a batch, so that enlarging costs nothing more than looking.

Everything random is drawn on the CPU and pixels are moved where the crops are: a seed gives the same views on a GPU.

Shapes: N crops, S their side, C channels, T the net's input side.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ferserve.training.recipe import Augmentation

PIXEL_RANGE: Final = 2.0
"""Of [-1, 1]."""


def augment(crops_NSSC: Tensor, settings: Augmentation, *, size_px: int, generator: Generator) -> Tensor:
    """Draw one view of each crop.

    Args:
        crops_NSSC: uint8, shape (N, S, S, C), on any device.
        size_px: T, the side of the result.
        generator: of the CPU.
    Returns:
        float32 in about [-1, 1], shape (N, C, T, T).
    """
    count = len(crops_NSSC)
    x_NCSS = crops_NSSC.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
    theta_N23 = _affine(count, settings, generator).to(crops_NSSC.device)
    grid = F.affine_grid(theta_N23, [count, x_NCSS.shape[1], size_px, size_px], align_corners=False)
    x_NCTT = F.grid_sample(x_NCSS, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    x_NCTT = _relight(x_NCTT, settings, generator)
    if settings.noise > 0:
        noise = torch.randn(x_NCTT.shape, generator=generator) * (PIXEL_RANGE * settings.noise)
        x_NCTT = (x_NCTT + noise.to(x_NCTT.device)).clamp(-1.0, 1.0)
    return _erase(x_NCTT, settings, generator)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _affine(count: int, settings: Augmentation, generator: Generator) -> Tensor:
    """Sampling transforms in grid coordinates, shape (N, 2, 3): rotation, scale, shift, mirror."""
    angle = _uniform(count, -1.0, 1.0, generator) * math.radians(settings.max_rotation_deg)
    area = _uniform(count, settings.min_area, settings.max_zoom_out**2, generator)
    scale = area.sqrt()
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5 * settings.flip, -1.0, 1.0)
    # Grid coordinates span 2, so a share of the side is twice as much here.
    shift_N2 = _uniform(2 * count, -2.0, 2.0, generator).view(count, 2) * settings.max_shift
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([mirror * cos, -sin, shift_N2[:, 0], mirror * sin, cos, shift_N2[:, 1]], dim=1)
    return rows.view(count, 2, 3)


def _relight(x_NCTT: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    count = len(x_NCTT)
    gain = 1.0 + _uniform(count, -1.0, 1.0, generator) * settings.contrast
    offset = _uniform(count, -1.0, 1.0, generator) * settings.brightness
    gain_2N = torch.stack([gain, offset]).to(x_NCTT.device)
    mean = x_NCTT.mean(dim=(1, 2, 3), keepdim=True)
    lit = (x_NCTT - mean) * gain_2N[0].view(-1, 1, 1, 1) + mean + gain_2N[1].view(-1, 1, 1, 1)
    return lit.clamp(-1.0, 1.0)


def _erase(x_NCTT: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    """Blank one rectangle of some crops with mid-grey."""
    count, _, height, width = x_NCTT.shape
    area = _uniform(count, 0.02, max(0.02, settings.erase_max_area), generator)
    aspect = _uniform(count, -0.7, 0.7, generator).exp()
    half_h, half_w = (area * aspect).sqrt() / 2, (area / aspect).sqrt() / 2
    center_y = torch.rand(count, generator=generator)
    center_x = torch.rand(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < settings.erase_probability
    y_NT = (torch.linspace(0, 1, height)[None] - center_y[:, None]).abs() <= half_h[:, None]
    x_NT = (torch.linspace(0, 1, width)[None] - center_x[:, None]).abs() <= half_w[:, None]
    y_NT, x_NT = (y_NT & chosen[:, None]).to(x_NCTT.device), x_NT.to(x_NCTT.device)
    return x_NCTT.masked_fill((y_NT[:, :, None] & x_NT[:, None, :])[:, None], 0.0)

"""Mixup (Zhang et al. 2018, with alpha 1): a view becomes a blend of two, and so does what is to be said of it.

Shapes: N faces.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixing:
    """Who is blended with whom.

    Attributes:
        partner_N: row of the other face.
        share_N: of the face itself, 0 to 1; 1 leaves it alone.
    """

    partner_N: Tensor
    share_N: Tensor

    @classmethod
    def draw(cls, count: int, *, probability: float, generator: Generator, device: torch.device) -> Self:
        """A partner for each face, and for `probability` of them a share between 0 and 1, all equally likely.

        Args:
            generator: of the CPU, so that a seed means the same on every device.
        """
        partner_N = torch.randperm(count, generator=generator)
        mixed_N = torch.rand(count, generator=generator) < probability
        share_N = torch.where(mixed_N, torch.rand(count, generator=generator), torch.ones(count))
        return cls(partner_N=partner_N.to(device), share_N=share_N.to(device))

    def blend(self, values_NX: Tensor) -> Tensor:
        """Share * own + (1 - share) * partner's, along the first dimension."""
        share = self.share_N.view(-1, *[1] * (values_NX.ndim - 1))
        return torch.lerp(values_NX[self.partner_N], values_NX, share)

    def both(self, mask_N: Tensor) -> Tensor:
        """Where a mask holds for everything that a blend is made of."""
        return mask_N & (mask_N[self.partner_N] | (self.share_N == 1.0))

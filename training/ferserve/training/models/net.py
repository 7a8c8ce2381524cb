"""What every architecture of the package is to the rest of it: faces in, logits and features out.

Shapes: N faces, C channels, H and W pixels, D features, K classes.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ExpressionNet(nn.Module, ABC):
    """A net whose parts are known by name, so that recipes can freeze, start and head them alike.

    Attributes:
        num_features: D, of what the classifier and any other head read.
        groups: names of the submodules that a transfer freezes, each group a stretch of the net, from the input on.
        classifier_name: of the submodule that the number of classes shows in; start weights leave it out.
        fixed_size: whether weights depend on the input's side.
        new_parts: names of the submodules that start weights of the plain architecture do not have.
    """

    num_features: int
    groups: tuple[tuple[str, ...], ...]
    classifier_name: str = "classifier"
    fixed_size: bool = False
    new_parts: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [-1, 1] to logits (N, K) and features (N, D)."""

    def fold_norms(self) -> None:
        """Move every batch norm into its convolution, where a net has any; it then cannot train on."""

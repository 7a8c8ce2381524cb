"""What a fit minimises: one soft cross-entropy, and beside it the voters' own head and the centre loss.

Shapes: N faces, C channels, H and W pixels, D features, K = 7 classes.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.data.errors import DataError
from ferserve.training.losses.center import CenterLoss
from ferserve.training.losses.hinge import attribute_hinge
from ferserve.training.losses.soft import UNLABELLED, blend_targets, soft_cross_entropy
from ferserve.training.losses.softmax_mse import cross_entropy_and_mse, softmax_mse
from ferserve.training.mixing import Mixing
from ferserve.training.recipe import Objective
from ferserve.training.teachers import Teacher, ensemble_scores

VOTE_HEAD_DROPOUT: Final = 0.5
"""As the classifier's own (Miao et al. 2019)."""


class FitLoss(nn.Module):
    """The objective of a recipe, with whatever it has to learn or remember itself.

    FER-2013's labels and FERPlus's voters disagree about every third face. Blended into one target they teach a
    labelling that is neither's; a head of its own lets the features learn from the voters while the classifier
    learns FER-2013's labels alone.

    Args:
        num_features, num_classes: D and K.
        teachers: as many as the objective wants: at least one if `teacher_weight` is above 0, else none.
    """

    def __init__(
        self,
        settings: Objective,
        teachers: Sequence[Teacher] = (),
        *,
        num_features: int,
        num_classes: int = NUM_EXPRESSIONS,
    ) -> None:
        super().__init__()
        if bool(teachers) != (settings.teacher_weight > 0):
            raise DataError(
                f"teacher_weight is {settings.teacher_weight:g}: expected {'a' if settings.teacher_weight else 'no'} "
                f"--teacher, got {len(teachers)}"
            )
        self.settings = settings
        self.center = CenterLoss(num_classes=num_classes, num_features=num_features, rate=settings.center_rate)
        self.vote_head = (
            nn.Sequential(nn.Dropout(VOTE_HEAD_DROPOUT), nn.Linear(num_features, num_classes))
            if settings.vote_head_weight > 0
            else None
        )
        # A tuple, so that teachers are no part of what is trained and kept.
        self._teachers = tuple(teachers)

    def targets(
        self,
        x_NCHW: Tensor,
        label_N: Tensor,
        votes_NK: Tensor,
        *,
        taught_NK: Tensor | None = None,
        mixing: Mixing | None = None,
    ) -> Tensor:
        """What the classifier is to say: labels, votes and teachers in their shares; (N, K), rows sum to 1.

        Args:
            label_N: `UNLABELLED` where the teachers alone say it.
            taught_NK: what the teachers said already, of each face by itself; None asks them about the views.
        """
        settings = self.settings
        target_NK, known_N = self._labelled(label_N, votes_NK, settings.vote_weight, mixing)
        if not self._teachers:
            return target_NK
        if taught_NK is None:
            taught_NK = ensemble_scores(self._teachers, x_NCHW)
        elif mixing is not None:
            taught_NK = mixing.blend(taught_NK)
        return torch.where(known_N[:, None], torch.lerp(target_NK, taught_NK, settings.teacher_weight), taught_NK)

    def _labelled(
        self, label_N: Tensor, votes_NK: Tensor, vote_weight: float, mixing: Mixing | None
    ) -> tuple[Tensor, Tensor]:
        """Targets by label and votes, (N, K), and where there are any, (N,)."""
        known_N = label_N != UNLABELLED
        target_NK = blend_targets(label_N, votes_NK, vote_weight=vote_weight, smoothing=self.settings.smoothing)
        return (target_NK, known_N) if mixing is None else (mixing.blend(target_NK), mixing.both(known_N))

    def forward(
        self,
        x_NCHW: Tensor,
        logits_NK: Tensor,
        feat_ND: Tensor,
        label_N: Tensor,
        votes_NK: Tensor,
        *,
        taught_NK: Tensor | None = None,
        mixing: Mixing | None = None,
    ) -> Tensor:
        """Loss of one batch, a scalar; moves the centres.

        Args:
            x_NCHW: the views that the net saw; teachers see the same.
            label_N, taught_NK: see `targets`.
            votes_NK: see `blend_targets`.
            mixing: how the views were blended, if they were.
        """
        settings = self.settings
        loss = self._main(logits_NK, self.targets(x_NCHW, label_N, votes_NK, taught_NK=taught_NK, mixing=mixing))
        if self.vote_head is not None:
            voted_NK, known_N = self._labelled(label_N, votes_NK, 1.0, mixing)
            # A target of zeros asks for nothing.
            voted_NK = voted_NK * known_N[:, None]
            loss = loss + settings.vote_head_weight * soft_cross_entropy(self.vote_head(feat_ND), voted_NK)
        if settings.center_weight > 0:
            feat_ND = feat_ND.float()
            loss = loss + settings.center_weight * self.center(feat_ND, label_N)
            self.center.update(feat_ND, label_N)
        return loss

    def _main(self, logits_NK: Tensor, target_NK: Tensor) -> Tensor:
        if self.settings.form == "softmax_mse":
            return softmax_mse(logits_NK, target_NK)
        if self.settings.form == "cross_entropy_mse":
            return cross_entropy_and_mse(logits_NK, target_NK, weight=self.settings.mse_weight)
        return soft_cross_entropy(logits_NK, target_NK)


class AttributeLoss(nn.Module):
    """The objective of a run that learns attributes (S3): hinge loss, nothing beside it."""

    def forward(
        self,
        _x_NCHW: Tensor,
        logits_NAK: Tensor,
        _feat_ND: Tensor,
        label_NA: Tensor,
        _votes_NA: Tensor,
        *,
        taught_NK: Tensor | None = None,
        mixing: Mixing | None = None,
    ) -> Tensor:
        """Loss of one batch, a scalar."""
        assert taught_NK is None
        assert mixing is None
        return attribute_hinge(logits_NAK, label_NA)

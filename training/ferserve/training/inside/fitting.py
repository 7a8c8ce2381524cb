"""A MobileNet fitted to a small set with some of its groups frozen, quickly.

Every fit starts from the same classifier, a linear probe of the start's features (Kumar et al. 2022: a random one would
first undo what transfers). Leading frozen groups are computed once a fit.

Shapes: N faces, C channels, H and W pixels, c, h and w those behind the leading frozen groups, D features, K classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferserve.training.freezing import train_mode
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.probe import fit_probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """How every net is fitted; fixed beforehand, the same for all.

    Attributes:
        rate: peak of SGD with momentum, a cosine to zero; below the 0.045 of S4, which starts from a random classifier.
        input_size_px: side that crops are brought to; S4's refined stage has 48.
    """

    epochs: int = 6
    batch_size: int = 32
    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 4e-5
    input_size_px: int = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way of freezing: a name, and numbers of the frozen groups from the input on."""

    name: str
    frozen: tuple[int, ...]

    @property
    def leading(self) -> int:
        """How many groups from the input on are frozen without a gap."""
        return next((place for place, number in enumerate(self.frozen) if place != number), len(self.frozen))


@torch.no_grad()
def start_classifier(net: MobileNetV1, x_NCHW: Tensor, labels_N: Tensor) -> None:
    """Make a net's classifier the linear probe of its features on some faces; see `probe.fit_probe`."""
    feat_ND = torch.cat([net.features(part) for part in torch.split(x_NCHW, 64)]).numpy()
    probe = fit_probe(feat_ND, labels_N.numpy(), net.classifier.out_features)
    weights_DK = probe.weights_DK / probe.scale_D[:, None]
    net.classifier.weight.copy_(torch.from_numpy(weights_DK.T))
    net.classifier.bias.copy_(torch.from_numpy(probe.bias_K - probe.mean_D @ weights_DK))


def fit_frozen(
    start: MobileNetV1,
    plan: Plan,
    x_NCHW: Tensor,
    labels_N: Tensor,
    fit: Tensor,
    fitting: Fitting,
    generator: torch.Generator,
) -> tuple[nn.Module, Tensor]:
    """Fit what a plan leaves free, the classifier among it.

    Args:
        start: stays as it is.
        fit: rows to fit on.
    Returns:
        The net above the leading frozen groups in eval mode, to logits, and what it takes: all faces and all mirrored
        ones behind the frozen groups, (2, N, c, h, w).
    """
    net = copy.deepcopy(start).eval()
    groups = [net.stem, *net.blocks]
    with torch.no_grad():
        mirrored = torch.stack([x_NCHW, x_NCHW.flip(-1)])
        into = torch.stack([_through(groups[: plan.leading], view) for view in mirrored])
    above = nn.Sequential(*groups[plan.leading :], _Pool(), net.dropout, net.classifier)
    for number in plan.frozen:
        groups[number].requires_grad_(requires_grad=False)
    optimiser = torch.optim.SGD(
        [parameter for parameter in above.parameters() if parameter.requires_grad],
        lr=fitting.rate, momentum=fitting.momentum, weight_decay=fitting.weight_decay, nesterov=True,
    )  # fmt: skip
    size = min(fitting.batch_size, len(fit))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, fitting.epochs * (len(fit) // size))
    train_mode(above)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))  # dropout's
        for _ in range(fitting.epochs):
            for rows in _batches(fit, size, generator):
                side = torch.randint(2, (len(rows),), generator=generator)
                loss = F.cross_entropy(above(into[side, rows]), labels_N[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    return above.eval(), into


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled, the incomplete one left out: batch norm wants them of one size."""
    order = rows[torch.randperm(len(rows), generator=generator)]
    return [batch for batch in torch.split(order, size) if len(batch) == size]


def _through(parts: Sequence[nn.Module], x_NCHW: Tensor) -> Tensor:
    for part in parts:
        x_NCHW = part(x_NCHW)
    return x_NCHW


class _Pool(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.mean(dim=(2, 3))

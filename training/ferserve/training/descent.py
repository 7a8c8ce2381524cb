"""One step of gradient descent as every run takes it: the rate of its schedule, a clipped gradient, the average."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn, optim

from ferserve.faces.errors import FerserveError
from ferserve.training.average import WeightAverage
from ferserve.training.recipe import Optimisation


class DivergedError(FerserveError):
    """The loss is no longer a number."""


def check_finite(loss: float, *, step: int, checkpoint: Path) -> None:
    """Stop a run that has diverged.

    Raises:
        DivergedError: the loss is not finite; names the checkpoint that stands.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"loss is {loss} at step {step}; the last checkpoint is {checkpoint}, a smaller rate or clip_norm may help"
        )


def parameter_groups(parameters: Iterable[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer, frozen ones left out: norms and biases are not decayed, they have no scale to lose."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(parameters: Iterable[nn.Parameter], settings: Optimisation) -> optim.Optimizer:
    """The optimizer that the settings name."""
    groups = parameter_groups(parameters, weight_decay=settings.weight_decay)
    if settings.method == "adam":
        return optim.Adam(groups, lr=settings.rate, betas=(settings.momentum, 0.999))
    nesterov = settings.nesterov and settings.momentum > 0
    return optim.SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=nesterov)


def rate_at(step: int, *, steps_per_epoch: int, epochs: int, settings: Optimisation, stalls: int = 0) -> float:
    """Learning rate of a step: linear up to the peak, then as the schedule has it.

    Args:
        step: counted from 0 over the whole run of `epochs`.
        stalls: how often a plateau has lowered the rate so far.
    """
    warmup_steps = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return settings.rate * (step + 1) / warmup_steps
    schedule = settings.schedule
    if schedule.kind == "cosine":
        share = (step - warmup_steps) / max(1, epochs * steps_per_epoch - warmup_steps)
        return settings.rate * 0.5 * (1.0 + math.cos(math.pi * share))
    if schedule.kind == "stairs":
        stalls = math.floor((step - warmup_steps) / (schedule.every_epochs * steps_per_epoch))
    elif schedule.kind == "constant":
        stalls = 0
    return settings.rate * float(schedule.factor**stalls)


def descend(
    loss: Tensor,
    net: nn.Module,
    optimizer: optim.Optimizer,
    average: WeightAverage,
    *,
    step: int,
    steps_per_epoch: int,
    epochs: int,
    settings: Optimisation,
    stalls: int = 0,
) -> None:
    """Take one step.

    Args:
        net: whose gradient is clipped, and which `average` follows.
        step: counted from 0 over the whole run.
        epochs: of the whole run.
        stalls: see `rate_at`.
    """
    rate = rate_at(step, steps_per_epoch=steps_per_epoch, epochs=epochs, settings=settings, stalls=stalls)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
    if settings.clip_norm > 0:
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
    optimizer.step()
    average.update(net)

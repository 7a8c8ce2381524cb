"""One step of gradient descent as every run takes it: the rate of its schedule, a clipped gradient, the average."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn, optim

from ferserve.training.average import WeightAverage
from ferserve.training.recipe import Optimisation


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


def check_finite(loss: float, *, step: int, checkpoint: Path) -> None:
    """Stop a run that has diverged.

    Raises:
        DivergedError: the loss is not finite; names the checkpoint that stands.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"loss is {loss} at step {step}; the last checkpoint is {checkpoint}")


def parameter_groups(parameters: Iterable[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: norms and biases are not decayed, they have no scale to lose."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def rate_at(step: int, *, total_steps: int, warmup_steps: int, settings: Optimisation) -> float:
    """Learning rate of a step: linear up to the peak, then half a cosine down to zero."""
    if step < warmup_steps:
        return settings.rate * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return settings.rate * 0.5 * (1.0 + math.cos(math.pi * share))


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
) -> None:
    """Take one step.

    Args:
        net: whose gradient is clipped, and which `average` follows.
        step: counted from 0 over the whole run.
        epochs: of the whole run.
    """
    rate = rate_at(
        step,
        total_steps=epochs * steps_per_epoch,
        warmup_steps=round(settings.warmup_epochs * steps_per_epoch),
        settings=settings,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
    nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
    optimizer.step()
    average.update(net)

"""An exponential moving average of a net's weights, batch-norm statistics included: what is evaluated and kept."""

import copy
from typing import Any

import torch
from torch import nn

RAMP = 10
"""The decay of step t is at most (1 + t) / (RAMP + t), so that the start weights are soon forgotten."""


class WeightAverage:
    """Follows a net at a decay that ramps up to `decay`.

    Attributes:
        net: a copy with the averaged weights, in eval mode.
    """

    def __init__(self, net: nn.Module, *, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take one step towards `net`."""
        decay = min(self.decay, (1 + self.steps) / (RAMP + self.steps))
        self.steps += 1
        source, averages, targets = net.state_dict(), [], []
        for name, averaged in self.net.state_dict().items():
            if averaged.is_floating_point():
                averages.append(averaged)
                targets.append(source[name])
            else:
                averaged.copy_(source[name])
        # One call for all: on a GPU a launch a tensor would take longer than the step itself.
        torch._foreach_lerp_(averages, targets, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the step count."""
        return {"net": self.net.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved average."""
        self.net.load_state_dict(state["net"])
        self.steps = state["steps"]

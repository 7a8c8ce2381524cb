"""Which parts of a net a recipe trains: the others keep their weights, and their norms their statistics."""

from torch import nn

from ferserve.training.data.errors import DataError
from ferserve.training.models.net import ExpressionNet
from ferserve.training.recipe import Recipe


def freeze(net: ExpressionNet, recipe: Recipe) -> None:
    """Take the frozen parts out of training.

    Raises:
        DataError: the recipe freezes more groups than there are, or names a part that the net has not.
    """
    if recipe.frozen_groups > len(net.groups):
        raise DataError(
            f"frozen_groups: expected 0 to {len(net.groups)} of {recipe.architecture}, got {recipe.frozen_groups}"
        )
    names = dict(net.named_modules())
    unknown = [name for name in recipe.trained if name not in names]
    if unknown:
        raise DataError(f"trained: expected names of parts of {recipe.architecture}, got {', '.join(unknown)}")
    if recipe.trained:
        net.requires_grad_(requires_grad=False)
        for name in recipe.trained:
            names[name].requires_grad_(requires_grad=True)
    for group in net.groups[: recipe.frozen_groups]:
        for name in group:
            names[name].requires_grad_(requires_grad=False)


def train_mode(net: nn.Module) -> None:
    """`net.train()`, but frozen parts with statistics of their own stay in eval mode."""
    net.train()
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()

"""Recipes: functions that return a full, frozen `Recipe`, by the name that `ferserve train` takes."""

from collections.abc import Callable
from functools import partial
from typing import Final

from ferserve.training.recipe import Recipe
from ferserve.training.recipes.alexnet import (
    alexnet,
    alexnet_attributes,
    alexnet_ck,
    alexnet_ck48,
    alexnet_ck48_four_layers,
    alexnet_ck_four_layers,
    alexnet_faces,
)
from ferserve.training.recipes.mobilenet import (
    mobilenet,
    mobilenet_48,
    mobilenet_96,
    mobilenet_128,
    mobilenet_base,
    mobilenet_ferplus,
    mobilenet_few,
    mobilenet_refined,
    mobilenet_refined_96,
    mobilenet_refined_96_softmax,
    mobilenet_refined_softmax,
    mobilenet_teacher,
)
from ferserve.training.recipes.net_b import (
    dal_net,
    dal_net_144,
    dal_net_plain,
    dal_net_plain_stage1,
    dal_net_stage1,
    dal_net_stage1_144,
    frozen_sweep,
    net_b,
    net_b_144,
    net_b_dal,
    net_b_dal_144,
    net_b_dal_ce_mse,
    net_b_dal_mse,
    net_b_dal_mse_144,
    net_b_dal_mse_sfew,
    net_b_faces,
    net_b_faces_144,
)
from ferserve.training.recipes.transfer_resnet import (
    transfer_resnet50,
    transfer_resnet50_imagenet,
    transfer_resnet50_vggface2,
    transfer_resnet152,
    transfer_resnet152_imagenet,
    transfer_resnet152_vggface2,
)


def _same(recipe: Recipe) -> Recipe:
    return recipe


RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    make().name: make
    for make in (
        mobilenet_base, mobilenet_96, mobilenet_128, mobilenet_teacher, mobilenet, mobilenet_ferplus,
        mobilenet_few, mobilenet_48, mobilenet_refined,
        mobilenet_refined_softmax, mobilenet_refined_96, mobilenet_refined_96_softmax,
        net_b_faces, net_b, net_b_dal, net_b_dal_mse, net_b_dal_ce_mse,
        dal_net_stage1, dal_net, dal_net_plain_stage1, dal_net_plain,
        net_b_faces_144, net_b_144, net_b_dal_144, net_b_dal_mse_144, net_b_dal_mse_sfew,
        dal_net_stage1_144, dal_net_144,
        alexnet_faces, alexnet, alexnet_ck48, alexnet_ck48_four_layers,
        alexnet_attributes, alexnet_ck, alexnet_ck_four_layers,
        transfer_resnet50, transfer_resnet152, transfer_resnet50_imagenet, transfer_resnet50_vggface2,
        transfer_resnet152_imagenet, transfer_resnet152_vggface2,
    )
} | {recipe.name: partial(_same, recipe) for recipe in frozen_sweep()}  # fmt: skip

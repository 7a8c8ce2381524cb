"""Fine-tune a net's last layer on features that are computed once: a run for machines that cannot afford more.

Everything before the classifier is frozen, so each face (and its mirror image) goes through the net once, however many
epochs follow. What comes out is a run like any other: `load_best`, calibration and `ferserve archive` take it.

Shapes: N faces, D features, K classes.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ferserve.training.checkpoint import save_checkpoint, write_text
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.descent import make_optimizer, rate_at
from ferserve.training.engine import HISTORY_FILE, EpochRow, Progress
from ferserve.training.examples import Examples
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.registry import make_net
from ferserve.training.recipe import Recipe
from ferserve.training.starting import load_start

DROPOUT: Final = 0.5
"""On the features, as every net of the package has it before its classifier."""
_BATCH: Final = 128


def fit_last_layer(
    recipe: Recipe,
    *,
    fit: Examples,
    validation: Examples,
    folder: Path,
    start_weights: Path,
    on_epoch: Callable[[EpochRow], None] = lambda _row: None,
) -> None:
    """Train the classifier alone and leave `recipe.json`, `history.jsonl` and `best.pt` in `folder`.

    Args:
        recipe: `trained` names the classifier; of the augmentation only the mirror image is used.
        start_weights: see `starting.load_start`.
    Raises:
        DataError: the net's classifier is no single linear layer on its features, or the start weights do not fit.
        StorageError: the folder cannot be written to.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    net = make_net(recipe, num_classes=fit.num_classes)
    load_start(net, recipe, start_weights, crops=fit.crops, generator=generator)
    layer = _classifier(net)
    net.eval().requires_grad_(requires_grad=False)
    layer.requires_grad_(requires_grad=True)
    size_px = recipe.final_size_px
    views_VND = torch.stack([_features(net, crops, size_px) for crops in (fit.crops, fit.crops.flip(2))])
    held_ND = _features(net, validation.crops, size_px)
    optimizer, progress, rows = make_optimizer(layer.parameters(), recipe.optimisation), Progress(), []
    best = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for _ in range(recipe.epochs):
        begun = perf_counter()
        loss = _epoch(layer, optimizer, recipe, views_VND, fit.labels, progress, generator)
        logits_NK = layer(held_ND).detach()
        accuracy = float((logits_NK.argmax(dim=1) == validation.labels).double().mean())
        progress.epoch += 1
        if accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = accuracy, progress.epoch
            best = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        rows.append(
            EpochRow(
                epoch=progress.epoch,
                input_size_px=size_px,
                rate=optimizer.param_groups[0]["lr"],
                loss=loss,
                accuracy=accuracy,
                validation_loss=float(F.cross_entropy(logits_NK, validation.labels)),
                seconds=perf_counter() - begun,
            )
        )
        on_epoch(rows[-1])
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.json", recipe.to_json() + "\n")
    write_text(folder / HISTORY_FILE, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    state = {"recipe_sha256": recipe.sha256, "num_classes": fit.num_classes, "net": best, **asdict(progress)}
    save_checkpoint(folder / "best.pt", state)


def _classifier(net: ExpressionNet) -> nn.Linear:
    layer = net.get_submodule(net.classifier_name)
    if not isinstance(layer, nn.Linear) or layer.in_features != net.num_features:
        raise DataError(
            f"{type(net).__name__}: expected a classifier of one linear layer on {net.num_features} features"
        )
    return layer


@torch.no_grad()
def _features(net: ExpressionNet, crops_NSSC: Tensor, size_px: int) -> Tensor:
    return torch.cat([net(to_input(crops, size_px=size_px))[1] for crops in torch.split(crops_NSSC, _BATCH)])


def _epoch(
    layer: nn.Linear,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    views_VND: Tensor,
    labels_N: Tensor,
    progress: Progress,
    generator: torch.Generator,
) -> float:
    """One pass over the faces, each one way round; the mean loss."""
    count = len(labels_N)
    steps = count // recipe.batch_size
    order_N = torch.randperm(count, generator=generator)
    total = 0.0
    for step in range(steps):
        rows = order_N[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        way = torch.randint(0, len(views_VND), (len(rows),), generator=generator)
        feat_ND = F.dropout(views_VND[way, rows], DROPOUT, training=True)
        loss = F.cross_entropy(layer(feat_ND), labels_N[rows], label_smoothing=recipe.objective.smoothing)
        done = progress.epoch * steps + step
        for group in optimizer.param_groups:
            group["lr"] = rate_at(
                done, steps_per_epoch=steps, epochs=recipe.epochs, settings=recipe.optimisation, stalls=0
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
        optimizer.step()
        total += loss.item()
    return total / max(1, steps)

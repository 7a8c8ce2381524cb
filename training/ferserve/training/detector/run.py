"""The detector's training loop: batches in, an averaged net out, everything needed to go on after a kill kept."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferserve.training.average import WeightAverage
from ferserve.training.checkpoint import load_checkpoint, save_checkpoint
from ferserve.training.data.errors import DataError
from ferserve.training.descent import check_finite, descend, parameter_groups
from ferserve.training.detector.batches import Batch, BatchSource, ahead
from ferserve.training.detector.recipe import RECIPE_FILE, DetectorRecipe
from ferserve.training.losses.detection import DetectionLosses, detection_losses
from ferserve.training.models.detector import YuNet, with_one_score

CHECKPOINT_FILE = "last.pt"
HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How the averaged net does on the selection photos.

    Attributes:
        recall: share of the teacher's faces found, 0 to 1.
        unmatched_per_photo: detections that are none of the teacher's faces.
        landmark_error: mean distance as a share of the eye distance.
    """

    recall: float
    unmatched_per_photo: float
    landmark_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEpoch:
    """What one epoch did; a line of `history.jsonl`. The losses are means over the epoch, unweighted but for `loss`."""

    epoch: int
    rate: float
    loss: float
    score_loss: float
    box_loss: float
    landmark_loss: float
    check: Check
    seconds: float


class DetectorRun:
    """One run in one folder, which holds `recipe.json`, `history.jsonl` and `last.pt`.

    The schedule ends at zero and weights are averaged, so the last epoch's average, brought back towards the start as
    far as the recipe says, is the result: nothing is selected.

    Args:
        source: the batches.
        start: gives a fresh net its start weights, in place; None leaves random ones. A run that goes on has its own.
        check: measures `result`, in eval mode, after every epoch.
        device: where the net is; the batches are made on the CPU.
        workers: threads that make batches.
    Raises:
        DataError: the folder holds another recipe's run.
    """

    def __init__(
        self,
        recipe: DetectorRecipe,
        source: BatchSource,
        *,
        start: Callable[[YuNet], None] | None = None,
        check: Callable[[nn.Module], Check],
        folder: Path,
        device: str = "cpu",
        workers: int = 1,
    ) -> None:
        self.recipe, self.source, self.check, self.folder = recipe, source, check, folder
        self.device, self.workers = torch.device(device), workers
        torch.manual_seed(recipe.seed)
        self.last = folder / CHECKPOINT_FILE
        net = YuNet().to(self.device)
        if start is not None and not self.last.is_file():
            start(net)
        self.started_from = None if start is None else _copied(net)
        # Torch's stubs know no memory_format here.
        self.net: YuNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.net, decay=recipe.optimisation.ema_decay)
        self.optimizer = self._optimizer()
        self.epoch = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.last.is_file():
            self._resume()
        else:
            (folder / RECIPE_FILE).write_text(recipe.to_json() + "\n")

    def _optimizer(self) -> torch.optim.AdamW:
        settings = self.recipe.optimisation
        return torch.optim.AdamW(
            parameter_groups(self.net.parameters(), weight_decay=settings.weight_decay),
            lr=settings.rate,
            betas=(settings.momentum, 0.999),
        )

    def result(self) -> YuNet:
        """The net as it would be exported now, in eval mode."""
        net = YuNet().to(self.device).eval()
        average = self.average.net.state_dict()
        net.load_state_dict(_brought_back(average, self.started_from, share=self.recipe.start_share))
        return net

    def epochs(self, on_step: Callable[[int, float], None] = lambda _step, _loss: None) -> Iterator[DetectorEpoch]:
        """Run what is left of the recipe, one row an epoch.

        Args:
            on_step: told the steps done of the whole run and the running mean loss of the epoch.
        Raises:
            DivergedError: the loss is not finite; the last checkpoint stands.
        """
        first = self.epoch * self.recipe.steps_per_epoch
        batches = ahead(self.source.batch, range(first, self.recipe.total_steps), workers=self.workers)
        while self.epoch < self.recipe.epochs:
            started = time.perf_counter()
            losses = self._fit_epoch(batches, on_step)
            yield self._finish_epoch(losses, started)

    def _fit_epoch(self, batches: Iterator[Batch], on_step: Callable[[int, float], None]) -> list[float]:
        """Mean of the whole loss and of its three parts."""
        self.net.train()
        sums = [0.0] * 4
        for index in range(self.recipe.steps_per_epoch):
            step = self.epoch * self.recipe.steps_per_epoch + index
            losses = self._step(next(batches), step)
            parts = (losses.total, losses.score, losses.box, losses.landmarks)
            sums = [total + part.item() for total, part in zip(sums, parts, strict=True)]
            on_step(step + 1, sums[0] / (index + 1))
        return [total / self.recipe.steps_per_epoch for total in sums]

    def _step(self, batch: Batch, step: int) -> DetectionLosses:
        x_NCHW = batch.pictures.to(self.device).float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            maps_NAM = torch.cat(self.net(x_NCHW), dim=1)
        targets_NAK, grid_A3 = batch.targets.to(self.device), batch.grid.to(self.device)
        losses = detection_losses(with_one_score(maps_NAM), targets_NAK, grid_A3, self.recipe.objective)
        check_finite(losses.total.item(), step=step, checkpoint=self.last)
        descend(
            losses.total,
            self.net,
            self.optimizer,
            self.average,
            step=step,
            steps_per_epoch=self.recipe.steps_per_epoch,
            epochs=self.recipe.epochs,
            settings=self.recipe.optimisation,
        )
        return losses

    def _finish_epoch(self, losses: list[float], started: float) -> DetectorEpoch:
        self.epoch += 1
        row = DetectorEpoch(
            epoch=self.epoch,
            rate=self.optimizer.param_groups[0]["lr"],
            loss=losses[0],
            score_loss=losses[1],
            box_loss=losses[2],
            landmark_loss=losses[3],
            check=self.check(self.result()),
            seconds=time.perf_counter() - started,
        )
        state: dict[str, Any] = {
            "recipe_sha256": self.recipe.sha256,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "started_from": self.started_from,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
        }
        save_checkpoint(self.last, state)
        with (self.folder / HISTORY_FILE).open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        return row

    def _resume(self) -> None:
        state = load_checkpoint(self.last, recipe_sha256=self.recipe.sha256)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.started_from = state["started_from"]
        self.epoch = state["epoch"]


def load_net(folder: Path) -> tuple[YuNet, DetectorRecipe, int]:
    """The result of a run as it stands, in eval mode, its recipe, and the epochs done.

    Raises:
        DataError: the folder holds no run with a finished epoch.
    """
    recipe = DetectorRecipe.read(folder)
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no trained weights yet: expected {CHECKPOINT_FILE}")
    state = load_checkpoint(path, recipe_sha256=recipe.sha256)
    net = YuNet()
    net.load_state_dict(_brought_back(state["average"]["net"], state["started_from"], share=recipe.start_share))
    return net.eval(), recipe, int(state["epoch"])


def _copied(net: YuNet) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _brought_back(weights: dict[str, Tensor], start: dict[str, Tensor] | None, *, share: float) -> dict[str, Tensor]:
    """Weights so far on their way back to those that they started from."""
    if start is None:
        return weights
    return {name: value.lerp(start[name].to(value.device), share) for name, value in weights.items()}

"""The training loop, spelled out: fit on one split, select on another, keep everything needed to go on after a kill."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferserve.training.augment import augment
from ferserve.training.average import WeightAverage
from ferserve.training.checkpoint import load_checkpoint, save_checkpoint
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.data.splits import TrainingSplit
from ferserve.training.descent import check_finite, descend, parameter_groups
from ferserve.training.evaluate import predict_logits
from ferserve.training.finish import load_best
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.objective import FitLoss
from ferserve.training.pretrained import load_faceres, refit_batch_norm
from ferserve.training.recipe import Recipe
from ferserve.training.teachers import Teacher

REFIT_FACES = 2048
"""Faces that batch norm's statistics are taken from before training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """What one epoch did; a line of `history.jsonl`.

    Attributes:
        epoch: counted from 1.
        loss: mean over the epoch of the whole objective.
        accuracy: of the averaged weights on the validation split, 0 to 1.
        validation_loss: plain cross-entropy of the same.
    """

    epoch: int
    input_size_px: int
    rate: float
    loss: float
    accuracy: float
    validation_loss: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands; all of it is in the checkpoint."""

    epoch: int = 0
    best_accuracy: float = 0.0
    best_epoch: int = 0


class Run:
    """One training run in one folder.

    The folder holds `recipe.json`, `history.jsonl`, `last.pt` (to resume from) and `best.pt` (the averaged weights of
    the epoch with the best validation accuracy).

    Args:
        fit_crops, validation_crops: uint8, shape (N, S, S, C), of the split's faces in their order.
        start_weights: what a recipe that starts from face weights or from a run reads; not needed to resume.
        teachers: see `FitLoss`.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: TrainingSplit,
        *,
        fit_crops: Tensor,
        validation_crops: Tensor,
        folder: Path,
        start_weights: Path | None,
        teachers: Sequence[Teacher] = (),
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.fit_crops, self.validation_crops = fit_crops, validation_crops
        self.fit_labels = torch.from_numpy(split.fit.labels)
        self.fit_votes = torch.from_numpy(split.fit.votes)
        self.validation_labels = torch.from_numpy(split.validation.labels)
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        net = MobileNetV1(in_channels=recipe.preprocess.channels)
        # Torch's stubs know no memory_format here.
        self.net: MobileNetV1 = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = FitLoss(recipe.objective, teachers)
        self.progress = Progress()
        self.last = folder / "last.pt"
        folder.mkdir(parents=True, exist_ok=True)
        resuming = self.last.is_file()
        if not resuming:
            self._start(start_weights)
        self.average = WeightAverage(self.net, decay=recipe.optimisation.ema_decay)
        self.optimizer = self._optimizer()
        if resuming:
            self._resume()

    def _start(self, start_weights: Path | None) -> None:
        if self.recipe.start != "random" and start_weights is None:
            source = "face weights" if self.recipe.start == "faceres" else "another run"
            raise DataError(f"recipe {self.recipe.name} starts from {source}: expected --start-weights, got none")
        if self.recipe.start == "faceres" and start_weights is not None:
            self._start_from_faceres(start_weights)
        elif self.recipe.start == "run" and start_weights is not None:
            former = Recipe.read(start_weights / "recipe.json")
            self.recipe.check_same_split(former, str(start_weights))
            self.net.load_state_dict(load_best(start_weights, former)[0].state_dict())
        (self.folder / "recipe.json").write_text(self.recipe.to_json() + "\n")

    def _start_from_faceres(self, model_json: Path) -> None:
        load_faceres(self.net, model_json)
        rows = torch.randperm(len(self.fit_crops), generator=self.generator)[:REFIT_FACES]
        size_px = self.recipe.input_size_px(0)
        refit_batch_norm(self.net, (to_input(self.fit_crops[part], size_px=size_px) for part in torch.split(rows, 256)))

    def _optimizer(self) -> torch.optim.SGD:
        settings = self.recipe.optimisation
        parameters = [*self.net.parameters(), *self.loss.parameters()]
        return torch.optim.SGD(
            parameter_groups(parameters, weight_decay=settings.weight_decay),
            lr=settings.rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: a last batch of one face would break batch norm."""
        return len(self.fit_crops) // self.recipe.batch_size

    def epochs(self, on_step: Callable[[int, float], None] = lambda _step, _loss: None) -> Iterator[EpochRow]:
        """Run what is left of the recipe, one row an epoch, until it ends or patience does.

        Args:
            on_step: told the step within the epoch and the running mean loss.
        Raises:
            DivergedError: the loss is not finite; the last checkpoint stands.
        """
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.epoch - self.progress.best_epoch >= self.recipe.patience_epochs:
                return
            started = time.perf_counter()
            loss = self._fit_epoch(on_step)
            yield self._finish_epoch(loss, started)

    def _fit_epoch(self, on_step: Callable[[int, float], None]) -> float:
        self.net.train()
        self.loss.train()
        order = torch.randperm(len(self.fit_crops), generator=self.generator)
        total = 0.0
        for step in range(self.steps_per_epoch):
            rows = order[step * self.recipe.batch_size : (step + 1) * self.recipe.batch_size]
            total += self._step(rows, self.progress.epoch * self.steps_per_epoch + step)
            on_step(step, total / (step + 1))
        return total / max(1, self.steps_per_epoch)

    def _step(self, rows: Tensor, step: int) -> float:
        recipe = self.recipe
        size_px = recipe.input_size_px(self.progress.epoch)
        x_NCHW = augment(self.fit_crops[rows], recipe.augmentation, size_px=size_px, generator=self.generator)
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits_NK, feat_ND = self.net(x_NCHW)
            loss: Tensor = self.loss(x_NCHW, logits_NK, feat_ND, self.fit_labels[rows], self.fit_votes[rows])
        value = loss.item()
        check_finite(value, step=step, checkpoint=self.last)
        descend(
            loss,
            self.net,
            self.optimizer,
            self.average,
            step=step,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.recipe.epochs,
            settings=self.recipe.optimisation,
        )
        return value

    def _finish_epoch(self, loss: float, started: float) -> EpochRow:
        size_px = self.recipe.input_size_px(self.progress.epoch)
        logits_NK = torch.from_numpy(predict_logits(self.average.net, self.validation_crops, size_px=size_px))
        accuracy = float((logits_NK.argmax(dim=1) == self.validation_labels).double().mean())
        validation_loss = float(nn.functional.cross_entropy(logits_NK, self.validation_labels))
        self.progress.epoch += 1
        if accuracy > self.progress.best_accuracy:
            self.progress.best_accuracy, self.progress.best_epoch = accuracy, self.progress.epoch
            save_checkpoint(
                self.folder / "best.pt",
                {"recipe_sha256": self.recipe.sha256, "net": self.average.net.state_dict(), **asdict(self.progress)},
            )
        row = EpochRow(
            epoch=self.progress.epoch,
            input_size_px=size_px,
            rate=self.optimizer.param_groups[0]["lr"],
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            seconds=time.perf_counter() - started,
        )
        self._checkpoint()
        with (self.folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        return row

    def _checkpoint(self) -> None:
        state: dict[str, Any] = {
            "recipe_sha256": self.recipe.sha256,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "global_rng": torch.get_rng_state(),
            "progress": asdict(self.progress),
        }
        save_checkpoint(self.last, state)

    def _resume(self) -> None:
        state = load_checkpoint(self.last, recipe_sha256=self.recipe.sha256)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global_rng"])
        self.progress = Progress(**state["progress"])

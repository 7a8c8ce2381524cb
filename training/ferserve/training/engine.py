"""The training loop, spelled out: fit on one split, select on another, keep everything needed to go on after a kill."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ferserve.faces.errors import FerserveError
from ferserve.training.augment import augment
from ferserve.training.average import WeightAverage
from ferserve.training.checkpoint import load_checkpoint, save_checkpoint, write_text
from ferserve.training.descent import check_finite, descend, make_optimizer
from ferserve.training.evaluate import predict_logits
from ferserve.training.examples import Examples
from ferserve.training.freezing import freeze, train_mode
from ferserve.training.losses.hinge import attribute_hinge
from ferserve.training.mixing import Mixing
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.registry import make_net
from ferserve.training.objective import AttributeLoss, FitLoss
from ferserve.training.recipe import Recipe
from ferserve.training.starting import load_start
from ferserve.training.teachers import Teacher, crop_scores

CHECKPOINT_EVERY_S: Final = 300.0
"""A killed run has lost no more than this; one that is asked to stop has lost nothing."""
HISTORY_FILE: Final = "history.jsonl"


class StoppedError(FerserveError):
    """A run was asked to stop and has left everything in its checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """What one epoch did; a line of `history.jsonl`.

    Attributes:
        epoch: counted from 1.
        loss: mean over the epoch of the whole objective.
        accuracy: of the averaged weights on the validation split, 0 to 1; of attributes the mean over them.
        validation_loss: plain cross-entropy of the same, of attributes the hinge loss.
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
    """Where a run stands; all of it is in the checkpoint.

    Attributes:
        epoch: how many are done.
        stalls: how often a plateau has lowered the rate.
        waited: epochs since the best one, or since the rate was last lowered.
        step, loss_sum, seconds: of the epoch that is not done yet.
    """

    epoch: int = 0
    best_accuracy: float = 0.0
    best_epoch: int = 0
    stalls: int = 0
    waited: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


class Run:
    """One training run in one folder.

    The folder holds `recipe.json`, `history.jsonl`, `last.pt` (to resume from) and `best.pt` (the averaged weights of
    the epoch with the best validation accuracy).

    Args:
        fit, validation: what gradients come from, and what the best epoch is chosen by.
        start_weights: what a recipe that does not start from random weights reads; not needed to resume.
        teachers: see `FitLoss`.
        device: where the net and the crops are.
        clock: seconds from any start.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        fit: Examples,
        validation: Examples,
        folder: Path,
        start_weights: Path | None,
        teachers: Sequence[Teacher] = (),
        device: str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, torch.device(device)
        self.fit, self.validation = fit.to(self.device), validation
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        # Torch's stubs know no memory_format here.
        net = make_net(recipe, num_classes=fit.num_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net: ExpressionNet = net
        self.loss = self._loss(teachers).to(self.device)
        self.progress = Progress()
        self.history: list[EpochRow] = []
        self.order_N: Tensor | None = None
        self.clock, self._stop = clock, False
        self.last = folder / "last.pt"
        folder.mkdir(parents=True, exist_ok=True)
        resuming = self.last.is_file()
        if not resuming:
            load_start(self.net, recipe, start_weights, crops=fit.crops, generator=self.generator)
            write_text(folder / "recipe.json", recipe.to_json() + "\n")
        freeze(self.net, recipe)
        self.net.to(self.device)
        self.taught_NK = self._taught(teachers)
        self.average = WeightAverage(self.net, decay=recipe.optimisation.ema_decay)
        self.optimizer = self._optimizer()
        if resuming:
            self._resume()

    def ask_to_stop(self) -> None:
        """End the run after the step that it is at; from a signal's handler, say."""
        self._stop = True

    def _loss(self, teachers: Sequence[Teacher]) -> FitLoss | AttributeLoss:
        if self.recipe.task == "attributes":
            return AttributeLoss()
        sizes = {"num_features": self.net.num_features, "num_classes": self.fit.num_classes}
        return FitLoss(self.recipe.objective, teachers, **sizes)

    def _taught(self, teachers: Sequence[Teacher]) -> Tensor | None:
        """What the teachers say of whole crops, where they are asked once; kept for the run that goes on."""
        if not teachers or self.recipe.objective.teacher_sees != "crops":
            return None
        path, hashes = self.folder / "taught.pt", [teacher.recipe_sha256 for teacher in teachers]
        faces = hashlib.sha256(self.fit.crops.cpu().numpy().tobytes()).hexdigest()
        if path.is_file():
            state = load_checkpoint(path, recipe_sha256=self.recipe.sha256)
            if state["teachers"] == hashes and state.get("faces") == faces:
                kept: Tensor = state["scores"].to(self.device)
                return kept
        scores_NK = crop_scores(teachers, self.fit.crops)
        asked = {"teachers": hashes, "faces": faces, "scores": scores_NK}
        save_checkpoint(path, {"recipe_sha256": self.recipe.sha256} | asked)
        return scores_NK

    def _optimizer(self) -> torch.optim.Optimizer:
        return make_optimizer([*self.net.parameters(), *self.loss.parameters()], self.recipe.optimisation)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: a last batch of one face would break batch norm."""
        return self.recipe.views * len(self.fit) // self.recipe.batch_size

    def epochs(self, on_step: Callable[[int, float], None] = lambda _step, _loss: None) -> Iterator[EpochRow]:
        """Run what is left of the recipe, one row an epoch, until it ends or patience does.

        Args:
            on_step: told the step within the epoch and the running mean loss.
        Raises:
            DivergedError: the loss is not finite; the last checkpoint stands.
            StoppedError: `ask_to_stop` was called; the checkpoint has everything up to here.
            StorageError: the folder cannot be written to; the last checkpoint stands.
        """
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.epoch - self.progress.best_epoch >= self.recipe.patience_epochs:
                return
            self._fit_epoch(on_step)
            yield self._finish_epoch()

    def _fit_epoch(self, on_step: Callable[[int, float], None]) -> None:
        """Take what is left of an epoch's steps."""
        train_mode(self.net)
        self.loss.train()
        progress, batch = self.progress, self.recipe.batch_size
        if self.order_N is None:
            self.order_N = self._order()
        begun, saved = self.clock() - progress.seconds, self.clock()
        while progress.step < self.steps_per_epoch:
            rows = self.order_N[progress.step * batch : (progress.step + 1) * batch]
            progress.loss_sum += self._step(rows, progress.epoch * self.steps_per_epoch + progress.step)
            progress.step += 1
            progress.seconds = self.clock() - begun
            on_step(progress.step - 1, progress.loss_sum / progress.step)
            if self._stop or self.clock() - saved >= CHECKPOINT_EVERY_S:
                self._checkpoint()
                saved = self.clock()
            if self._stop:
                raise StoppedError(
                    f"stopped after step {progress.step} of {self.steps_per_epoch} in epoch {progress.epoch + 1}; "
                    f"{self.last} has it all, the same command goes on from there"
                )

    def _step(self, rows: Tensor, step: int) -> float:
        recipe = self.recipe
        size_px = recipe.input_size_px(self.progress.epoch)
        rows = rows.to(self.device)
        x_NCHW = augment(self.fit.crops[rows], recipe.augmentation, size_px=size_px, generator=self.generator)
        mixing = self._mixing(len(rows))
        x_NCHW = x_NCHW if mixing is None else mixing.blend(x_NCHW)
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        label_N, votes_NK = self.fit.labels[rows], self.fit.votes[rows]
        taught_NK = None if self.taught_NK is None else self.taught_NK[rows]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits_NK, feat_ND = self.net(x_NCHW)
            loss: Tensor = self.loss(x_NCHW, logits_NK, feat_ND, label_N, votes_NK, taught_NK=taught_NK, mixing=mixing)
        value = loss.item()
        check_finite(value, step=step, checkpoint=self.last)
        descend(
            loss,
            self.net,
            self.optimizer,
            self.average,
            step=step,
            steps_per_epoch=self.steps_per_epoch,
            epochs=recipe.epochs,
            settings=recipe.optimisation,
            stalls=self.progress.stalls,
        )
        return value

    def _mixing(self, count: int) -> Mixing | None:
        probability = self.recipe.augmentation.mixup
        if probability == 0.0:
            return None
        return Mixing.draw(count, probability=probability, generator=self.generator, device=self.device)

    def _order(self) -> Tensor:
        """Rows of an epoch: all faces in one order, then in another, `views` times."""
        orders = [torch.randperm(len(self.fit), generator=self.generator) for _ in range(self.recipe.views)]
        return torch.cat(orders)

    def _finish_epoch(self) -> EpochRow:
        started = self.clock()
        loss, fitting_s = self.progress.loss_sum / max(1, self.steps_per_epoch), self.progress.seconds
        size_px = self.recipe.input_size_px(self.progress.epoch)
        accuracy, validation_loss = self._validate(size_px)
        self.progress.epoch += 1
        self.progress.step, self.progress.loss_sum, self.progress.seconds, self.order_N = 0, 0.0, 0.0, None
        if self._note(accuracy):
            save_checkpoint(
                self.folder / "best.pt",
                {
                    "recipe_sha256": self.recipe.sha256,
                    "num_classes": self.fit.num_classes,
                    "net": self.average.net.state_dict(),
                    **asdict(self.progress),
                },
            )
        row = EpochRow(
            epoch=self.progress.epoch,
            input_size_px=size_px,
            rate=self.optimizer.param_groups[0]["lr"],
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            seconds=fitting_s + self.clock() - started,
        )
        self.history.append(row)
        self._checkpoint()
        self._write_history()
        return row

    def _write_history(self) -> None:
        write_text(self.folder / HISTORY_FILE, "".join(json.dumps(asdict(row)) + "\n" for row in self.history))

    def _validate(self, size_px: int) -> tuple[float, float]:
        """Accuracy and loss of the averaged net."""
        labels = self.validation.asked(self.recipe)
        logits = torch.from_numpy(predict_logits(self.average.net, self.validation.crops, size_px=size_px))
        accuracy = float((logits.argmax(dim=-1) == labels).double().mean())
        if self.recipe.task == "attributes":
            return accuracy, float(attribute_hinge(logits, labels))
        return accuracy, float(nn.functional.cross_entropy(logits, labels))

    def _note(self, accuracy: float) -> bool:
        """Take down an epoch's accuracy; whether it is the best so far."""
        progress, schedule = self.progress, self.recipe.optimisation.schedule
        better = accuracy > progress.best_accuracy
        if better:
            progress.best_accuracy, progress.best_epoch, progress.waited = accuracy, progress.epoch, 0
        else:
            progress.waited += 1
        if schedule.kind == "plateau" and progress.waited >= schedule.every_epochs:
            progress.stalls, progress.waited = progress.stalls + 1, 0
        return better

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
            "history": [asdict(row) for row in self.history],
            "order": self.order_N,
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(self.last, state)

    def _resume(self) -> None:
        state = load_checkpoint(self.last, recipe_sha256=self.recipe.sha256)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global_rng"])
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.progress, self.order_N = Progress(**state["progress"]), state.get("order")
        # A checkpoint of version 0.1 has no rows; the file, which may lack the last one, does.
        rows = state.get("history")
        self.history = read_history(self.folder) if rows is None else [EpochRow(**row) for row in rows]
        self._write_history()


def read_history(folder: Path) -> list[EpochRow]:
    """The rows of a run's `history.jsonl`; empty before its first epoch ended."""
    path = folder / HISTORY_FILE
    if not path.is_file():
        return []
    return [EpochRow(**json.loads(line)) for line in path.read_text().splitlines()]

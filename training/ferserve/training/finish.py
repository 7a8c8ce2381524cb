"""What follows the last epoch: the best weights, their scaling and threshold, all chosen on validation."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.calibrate import Scaling, fit_scaling, identity_scaling, uncertainty_threshold
from ferserve.training.checkpoint import load_checkpoint
from ferserve.training.data.errors import DataError
from ferserve.training.evaluate import Interval, Report, make_report, predict_logits, wilson
from ferserve.training.examples import Examples
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.registry import make_net
from ferserve.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A run's `calibration.json`.

    Attributes:
        before, after: the validation split as the net scores it and as it is scaled.
        dropped: rows of Training that the run never saw, by reason.
        data_sha256: of the faces that gradients came from.
    """

    epoch: int
    scaling: Scaling
    uncertain_below: float
    before: Report
    after: Report
    dropped: dict[str, int]
    data_sha256: str

    def write(self, folder: Path) -> None:
        """Write `calibration.json` into a run's folder."""
        (folder / "calibration.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it back.

        Raises:
            DataError: the run is not finished.
        """
        path = folder / "calibration.json"
        if not path.is_file():
            raise DataError(
                f"{folder} holds no finished run: expected {path.name}; `ferserve train` goes on from there"
            )
        return TypeAdapter(cls).validate_json(path.read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a run left that becomes no archive, since it learnt something else than our seven expressions.

    Attributes:
        accuracy: on the validation split; of attributes over all of them.
        classes: how many classes or attributes there were.
        dropped, data_sha256: as of `Calibration`.
    """

    epoch: int
    accuracy: Interval
    classes: int
    faces: int
    dropped: dict[str, int]
    data_sha256: str


def finish_pretraining(
    folder: Path, recipe: Recipe, validation: Examples, *, dropped: dict[str, int], data_sha256: str
) -> Learnt:
    """Measure the best weights on the validation split."""
    net, epoch = load_best(folder, recipe)
    logits = predict_logits(net, validation.crops, size_px=recipe.final_size_px)
    right = logits.argmax(axis=-1) == validation.labels.numpy()
    return Learnt(
        epoch=epoch,
        accuracy=wilson(int(right.sum()), right.size),
        classes=validation.num_classes,
        faces=len(validation),
        dropped=dropped,
        data_sha256=data_sha256,
    )


def load_best(folder: Path, recipe: Recipe) -> tuple[ExpressionNet, int]:
    """The net with the averaged weights of the best epoch, in eval mode, and that epoch (from 1)."""
    path = folder / "best.pt"
    if not path.is_file():
        raise DataError(f"{folder} holds no trained weights yet: expected {path.name}")
    state = load_checkpoint(path, recipe_sha256=recipe.sha256)
    # Runs of version 0.1 did not write the number: they all had the seven.
    net = make_net(recipe, num_classes=state.get("num_classes", NUM_EXPRESSIONS))
    net.load_state_dict(state["net"])
    return net.eval(), int(state["best_epoch"])


def calibrate_run(
    folder: Path, recipe: Recipe, validation: Examples, *, dropped: dict[str, int], data_sha256: str
) -> Calibration:
    """Fit scaling and threshold on the validation split and write them down."""
    net, epoch = load_best(folder, recipe)
    calibration = calibrate(net, recipe, validation, epoch=epoch, dropped=dropped, data_sha256=data_sha256)
    calibration.write(folder)
    return calibration


def recalibrate(net: ExpressionNet, recipe: Recipe, validation: Examples, former: Calibration) -> Calibration:
    """Scaling and threshold of a net that is no longer quite the run's; what its run was made from stays."""
    return calibrate(
        net, recipe, validation, epoch=former.epoch, dropped=former.dropped, data_sha256=former.data_sha256
    )


def calibrate(
    net: ExpressionNet, recipe: Recipe, validation: Examples, *, epoch: int, dropped: dict[str, int], data_sha256: str
) -> Calibration:
    """Fit scaling and threshold of a net on the validation split.

    Args:
        epoch, dropped, data_sha256: of its run.
    """
    logits_NK = predict_logits(net, validation.crops, size_px=recipe.final_size_px)
    labels_N = validation.asked(recipe).numpy()
    scaling = fit_scaling(logits_NK, labels_N)
    scores_NK = scaling.scores(logits_NK)
    threshold = uncertainty_threshold(scores_NK, labels_N)
    return Calibration(
        epoch=epoch,
        scaling=scaling,
        uncertain_below=threshold,
        before=make_report(identity_scaling(logits_NK.shape[1]).scores(logits_NK), labels_N),
        after=make_report(scores_NK, labels_N, uncertain_below=threshold),
        dropped=dropped,
        data_sha256=data_sha256,
    )

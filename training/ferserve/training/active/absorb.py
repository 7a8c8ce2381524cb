"""A round's last step: fine-tune on the new labels and on earlier ones that the model gets wrong (S2, Algorithm 1).

    H = earlier labelled faces whose label differs from what M_{T-1} says,    Z = this round's,
    M_T = fine-tune M_{T-1} on H and Z.

S2 prints neither rate nor epochs: ours are in the recipe that the run leaves. Early stopping, temperature and threshold
come from FER-2013's validation split, as for every run; PublicTest is met by `ferserve archive` alone.

Shapes: N faces.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ferserve.faces.labels import LABELS, NUM_EXPRESSIONS
from ferserve.training.active.agreement import measure_agreement
from ferserve.training.active.files import read_json, write_json
from ferserve.training.active.labels import NONE_OF_THESE, Journal, consensus
from ferserve.training.active.pool import Pool
from ferserve.training.active.rounds import ABSORB, Round, selected_before
from ferserve.training.data.errors import DataError
from ferserve.training.data.sources import read_source
from ferserve.training.engine import EpochRow, Run, read_history
from ferserve.training.evaluate import wilson
from ferserve.training.examples import Examples
from ferserve.training.finish import Calibration, calibrate_run
from ferserve.training.held_out import cut_splits
from ferserve.training.last_layer import fit_last_layer
from ferserve.training.machine import this_machine
from ferserve.training.models.registry import make_net
from ferserve.training.origin import WEB, Origin
from ferserve.training.recipe import Phase, Recipe, Schedule, check_setting
from ferserve.training.results import TrainingResult, write_result
from ferserve.training.scorers import Scorer
from ferserve.training.starting import former_recipe

FIT_FILE: Final = "fit.json"
MIN_FACES: Final = 2
"""Batch norm has no statistics of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbSettings:
    """How a round is learnt.

    Attributes:
        epochs: over the new and the misclassified faces.
        rate: of SGD, falling to zero by a cosine.
        frozen_groups: so many of the net's groups, from the input on, stay as they are; cheaper, and safer with few
            faces.
        last_layer: train the classifier alone, on features that are computed once; the cheapest.
        seed: of order and views.
    """

    epochs: int = 6
    rate: float = 0.002
    frozen_groups: int = 0
    last_layer: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        check_setting(self.epochs > 0, "epochs", "more than 0", self.epochs)
        check_setting(self.rate > 0, "rate", "more than 0", self.rate)
        check_setting(self.frozen_groups >= 0, "frozen_groups", "0 or more", self.frozen_groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a round is fine-tuned on.

    Attributes:
        new, wrong: faces of Z and H with the label that most people gave them.
        dropped: labelled faces that teach nothing, by reason.
        unlabelled: faces of the round that nobody labelled.
    """

    new: dict[str, str]
    wrong: dict[str, str]
    dropped: dict[str, int]
    unlabelled: int


def make_lesson(pool: Pool, this_round: Round, scorer: Scorer) -> Lesson:
    """Gather Z, and H by what the round's model says of earlier faces.

    Raises:
        DataError: the labels are malformed, or too few faces of this round have one.
    """
    answers = Journal(pool.folder, is_face=pool.__contains__).answers()
    faces = this_round.selected()
    new, dropped = _agreed({face: answers[face] for face in faces if face in answers})
    if len(new) < MIN_FACES:
        raise DataError(
            f"{pool.folder}: expected at least {MIN_FACES} faces of round {this_round.number} with a label of the "
            f"seven, got {len(new)} of {len(faces)}; `ferserve active label {pool.folder}` goes on"
        )
    before = selected_before(pool.folder, this_round.number)
    known, _ = _agreed({face: given for face, given in answers.items() if face in before})
    earlier = sorted(known)
    said = scorer.score(pool.crops_of(earlier)).argmax(axis=1) if earlier else np.zeros(0, np.int64)
    wrong = {face: known[face] for face, top in zip(earlier, said, strict=True) if LABELS[int(top)] != known[face]}
    return Lesson(new=new, wrong=wrong, dropped=dropped, unlabelled=sum(face not in answers for face in faces))


def _agreed(answers: dict[str, dict[str, str]]) -> tuple[dict[str, str], dict[str, int]]:
    agreed: dict[str, str] = {}
    dropped = {"none_of_these": 0, "tie": 0}
    for face, given in answers.items():
        answer = consensus(given.values())
        if answer is None:
            dropped["tie"] += 1
        elif answer == NONE_OF_THESE:
            dropped["none_of_these"] += 1
        else:
            agreed[face] = answer
    return agreed, dropped


def lesson_recipe(former: Recipe, settings: AbsorbSettings, *, name: str, faces: int) -> Recipe:
    """The former model's recipe, for fine-tuning on a few labels alone: nobody's votes, no teacher, no blends."""
    return replace(
        former,
        name=name,
        seed=settings.seed,
        start="run",
        phases=(Phase(epochs=settings.epochs, input_size_px=former.final_size_px),),
        batch_size=min(former.batch_size, faces),
        optimisation=replace(
            former.optimisation, rate=settings.rate, warmup_epochs=0.0, ema_decay=0.9, schedule=Schedule()
        ),
        objective=replace(
            former.objective, vote_weight=0.0, vote_head_weight=0.0, teacher_weight=0.0, center_weight=0.0
        ),
        patience_epochs=settings.epochs,
        precision="fp32",
        frozen_groups=settings.frozen_groups,
        trained=(make_net(former).classifier_name,) if settings.last_layer else (),
        augmentation=replace(former.augmentation, mixup=0.0),
        views=1,
        fit_faces=0,
        unlabelled=(),
    )


def absorb(
    pool: Pool,
    this_round: Round,
    scorer: Scorer,
    data: str,
    settings: AbsorbSettings,
    *,
    name: str | None = None,
    on_run: Callable[[Run], None] = lambda _run: None,
    on_epoch: Callable[[EpochRow], None] = lambda _row: None,
) -> dict[str, Any]:
    """Fine-tune the round's model, or go on with that, and end the round; what `absorb.json` says.

    Args:
        scorer: the model that ranked.
        data: `fer2013=DIR`, for the validation split.
        name: of the archive to be; the former's with the round's number unless told otherwise.
        on_run: given the run before its first step, to be asked to stop.
    Raises:
        DataError: no labels, another model than the one that ranked, or data without Training rows.
        StoppedError: asked to stop; the same call goes on.
    """
    if this_round.rank().get("model_sha256") != scorer.sha256:
        raise DataError(f"{this_round.rank_file}: expected the model that ranked this round, got {scorer.name}")
    lesson = _read_lesson(pool, this_round, scorer)
    former = former_recipe(Path(scorer.name))
    base = former.name.partition("-active-")[0]
    fit = _examples(pool, lesson)
    recipe = lesson_recipe(former, settings, name=name or f"{base}-active-{this_round.number}", faces=len(fit))
    set_name, splits = read_source(data)
    if "train" not in splits:
        raise DataError(f"{set_name}: expected Training rows to select on, found splits {', '.join(splits)}")
    validation = Examples.of_faces(cut_splits(splits, recipe).validation, recipe.preprocess)
    weights = Path(scorer.name)
    if settings.last_layer:
        fit_last_layer(
            recipe, fit=fit, validation=validation, folder=this_round.run, start_weights=weights, on_epoch=on_epoch
        )
    else:
        run = Run(recipe, fit=fit, validation=validation, folder=this_round.run, start_weights=weights)
        on_run(run)
        for row in run.epochs():
            on_epoch(row)
    Origin.of(recipe, data=WEB, start_weights=weights, teachers=()).write(this_round.run)
    digest = hashlib.sha256(fit.crops.numpy().tobytes() + fit.labels.numpy().tobytes()).hexdigest()
    calibration = calibrate_run(this_round.run, recipe, validation, dropped=lesson.dropped, data_sha256=digest)
    _write_result(recipe, calibration, this_round.run)
    return _end(pool, this_round, scorer, lesson, calibration, validation)


def _read_lesson(pool: Pool, this_round: Round, scorer: Scorer) -> Lesson:
    """The lesson as it was when the run began: labels that come later do not change what it goes on with."""
    path = this_round.folder / FIT_FILE
    if not path.is_file():
        write_json(path, asdict(make_lesson(pool, this_round, scorer)))
    return Lesson(**read_json(path, made_by=f"{ABSORB} {pool.folder}"))


def _examples(pool: Pool, lesson: Lesson) -> Examples:
    taught = lesson.wrong | lesson.new
    labels: NDArray[np.int64] = np.asarray([LABELS.index(label) for label in taught.values()], np.int64)
    return Examples(
        crops=torch.from_numpy(pool.crops_of(list(taught))),
        labels=torch.from_numpy(labels),
        votes=torch.zeros(len(labels), NUM_EXPRESSIONS),
    )


def _write_result(recipe: Recipe, calibration: Calibration, folder: Path) -> None:
    result = TrainingResult(
        recipe=recipe,
        recipe_sha256=recipe.sha256,
        teachers=(),
        history=tuple(read_history(folder)),
        calibration=calibration,
        machine=this_machine(),
    )
    write_result(folder / "result.json", result)


def _end(
    pool: Pool, this_round: Round, scorer: Scorer, lesson: Lesson, calibration: Calibration, validation: Examples
) -> dict[str, Any]:
    answers = Journal(pool.folder, is_face=pool.__contains__).answers()
    own = {face: answers[face] for face in this_round.selected() if face in answers}
    labels_N = validation.labels.numpy()
    right = int((scorer.score(validation.crops.numpy()).argmax(axis=1) == labels_N).sum())
    found = {
        "model": str(this_round.run),
        "new": len(lesson.new),
        "wrong_earlier": len(lesson.wrong),
        "dropped": lesson.dropped,
        "unlabelled": lesson.unlabelled,
        "labels": {label: sum(value == label for value in lesson.new.values()) for label in LABELS},
        "labellers": len({labeller for given in own.values() for labeller in given}),
        "agreement": asdict(measure_agreement(own)),
        "validation_faces": len(labels_N),
        "validation_before": asdict(wilson(right, len(labels_N))),
        "validation_after": asdict(calibration.after.accuracy),
        "epoch": calibration.epoch,
    }
    write_json(this_round.absorb_file, found)
    return found

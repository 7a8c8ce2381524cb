"""Does freezing by the criterion beat freezing by number? Fine-tuning on a small set, people apart, frozen either way.

From one start, on the same folds, with the same draws and the same few epochs, a MobileNet is fitted with

    number k        its first k groups frozen, whatever they are (S2 takes 3 of its net, S3 the first 2)
    criterion       the first groups frozen up to the last that keeps a share of the best criterion
    criterion, K    the K groups with the highest criterion frozen, wherever they are
    least, K        the K with the lowest, as a check that the criterion says anything

How each is fitted is in `fitting`. Nothing that is fitted is kept.

Shapes: N faces, C channels, H and W pixels, T seeds, P plans.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferserve.faces.index import open_archive
from ferserve.training.crops import to_input
from ferserve.training.cross import FaceFinder
from ferserve.training.data.catalog import Source
from ferserve.training.data.ck_frames import Configuration, configure
from ferserve.training.data.errors import DataError
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.data.folds import cut_folds
from ferserve.training.data.sets import CLASSES, Pictures
from ferserve.training.evaluate import Interval
from ferserve.training.inside.criterion import choose_groups
from ferserve.training.inside.fitting import Fitting, Plan, fit_frozen, start_classifier
from ferserve.training.inside.layers import CriterionResult
from ferserve.training.intervals import difference_over_people, over_people
from ferserve.training.machine import Machine, this_machine
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.pretrained import refit_batch_norm
from ferserve.training.starting import load_folded


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """What a plan came to.

    Attributes:
        accuracy: mean over the seeds, with an interval that resamples people.
        less_than_criterion: this accuracy less the criterion's on the same faces, people resampled; None of itself.
        less_than_number: the same against as many leading groups; None of those themselves, or where none were fitted.
        by_seed: accuracy of each.
    """

    name: str
    frozen: tuple[str, ...]
    accuracy: Interval
    less_than_criterion: Interval | None
    less_than_number: Interval | None
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezingResult:
    """What `ferserve inside transfer` finds."""

    kind: Literal["freezing"] = "freezing"
    archive: str
    archive_sha256: str
    data: str
    configuration: str | None
    data_sha256: str
    classes: tuple[str, ...]
    faces: int
    people_count: int
    protocol: Literal["subjects"] = "subjects"
    folds: int
    seeds: tuple[int, ...]
    fitting: Fitting
    criterion: CriterionResult
    rows: tuple[PlanRow, ...]
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


BY_CRITERION: Final = "criterion"


def make_plans(criterion: Sequence[float], *, chosen: int, numbers: Sequence[int], sets_of: int) -> list[Plan]:
    """The criterion's own choice first, then the others; numbers that are its choice anyway are left out.

    Args:
        criterion: of the groups, from the input on.
        chosen: how many leading groups the criterion freezes.
        sets_of: K of the highest and the lowest; 0 leaves them out.
    """
    plans = [Plan(name=BY_CRITERION, frozen=tuple(range(chosen)))]
    plans += [Plan(name=f"number {number}", frozen=tuple(range(number))) for number in numbers if number != chosen]
    if sets_of:
        highest = choose_groups(criterion, sets_of)
        lowest = tuple(sorted(set(range(len(criterion))) - set(choose_groups(criterion, len(criterion) - sets_of))))
        plans += [
            Plan(name=f"criterion, {sets_of}", frozen=highest),
            Plan(name=f"least, {sets_of}", frozen=lowest),
        ]
    return plans


def read_people(source: Source, configuration: Configuration | None) -> Pictures:
    """A set that `compare_freezing` can take; cheap, so that a wrong one is told before anything is measured.

    Raises:
        DataError: it is not in its layout, holds no expressions, or does not tell people apart.
    """
    about = source.data_set.description
    if about.kind != "expression":
        raise DataError(f"{source.title}: expected a set of expressions, this one is of {about.kind}")
    whole = source.read()
    pictures = whole if configuration is None else configure(whole, configuration)
    if pictures.subjects is None:
        raise DataError(f"{source.title}: expected a set that tells people apart, this one does not")
    return pictures


def compare_freezing(
    name_or_path: str,
    source: Source,
    criterion: CriterionResult,
    *,
    configuration: Configuration | None,
    finder: FaceFinder,
    numbers: Sequence[int],
    sets_of: int,
    folds: int,
    seeds: Sequence[int],
    fitting: Fitting,
    on_start: Callable[[str, int], Callable[[], None]] = lambda _name, _total: lambda: None,
) -> FreezingResult:
    """Fit every plan on every fold and seed.

    Args:
        criterion: of this archive's groups, on this set.
        numbers: k of the plans by number, 0 to the number of groups.
    Raises:
        ArchiveError, DataError: no such archive, or none of a MobileNet; see `load_folded`.
        DataError: see `read_people`; or the numbers are out of range.
    """
    archive, pictures = open_archive(name_or_path), read_people(source, configuration)
    subjects = pictures.subjects
    assert subjects is not None
    values = [row.criterion.value for row in criterion.layers]
    if wrong := [number for number in (*numbers, sets_of) if not 0 <= number <= len(values)]:
        raise DataError(f"expected 0 to {len(values)} frozen groups, got {wrong[0]}")
    plans = make_plans(values, chosen=criterion.transferable, numbers=numbers, sets_of=sets_of)
    used = np.unique(pictures.labels)
    net = MobileNetV1(in_channels=archive.manifest.preprocess.channels, num_classes=len(used))
    load_folded(net, archive)
    cutter = None if source.data_set.description.cropped else finder.detector
    crops, _ = crop_pictures(pictures, archive.manifest.preprocess, cutter)
    x_NCHW = to_input(torch.from_numpy(crops), size_px=fitting.input_size_px)
    labels_N = torch.from_numpy(np.searchsorted(used, pictures.labels))
    tick = on_start("fitting", len(plans) * folds * len(seeds))
    by_seed = [_right(net, plans, x_NCHW, labels_N, pictures, folds, seed, fitting, tick) for seed in seeds]
    return FreezingResult(
        archive=archive.manifest.name,
        archive_sha256=archive.sha256,
        data=source.title,
        configuration=None if configuration is None else configuration.name,
        data_sha256=criterion.data_sha256,
        classes=tuple(CLASSES[number] for number in used),
        faces=len(pictures),
        people_count=len(set(subjects)),
        folds=folds,
        seeds=tuple(seeds),
        fitting=fitting,
        criterion=criterion,
        rows=_rows(plans, np.stack(by_seed), subjects, [row.layer for row in criterion.layers]),
        machine=this_machine(),
    )


def _rows(
    plans: Sequence[Plan], right_TPN: NDArray[np.bool_], subjects: Sequence[str], layers: Sequence[str]
) -> tuple[PlanRow, ...]:
    """T seeds, P plans: a face counts by how many of the seeds had it right."""
    share_PN = right_TPN.mean(axis=0)
    leading = {plan.leading: place for place, plan in enumerate(plans) if plan.leading == len(plan.frozen)}

    def less(place: int, than: int | None) -> Interval | None:
        if than is None or than == place:
            return None
        return difference_over_people(share_PN[place], share_PN[than], subjects)

    return tuple(
        PlanRow(
            name=plan.name,
            frozen=tuple(layers[number] for number in plan.frozen),
            accuracy=over_people(share_PN[place], subjects),
            less_than_criterion=less(place, 0),
            less_than_number=less(place, leading.get(len(plan.frozen))),
            by_seed=tuple(float(value) for value in right_TPN[:, place].mean(axis=1)),
        )
        for place, plan in enumerate(plans)
    )


def _right(  # noqa: PLR0917 -- one seed's worth of what `compare_freezing` was given
    net: MobileNetV1,
    plans: Sequence[Plan],
    x_NCHW: Tensor,
    labels_N: Tensor,
    pictures: Pictures,
    folds: int,
    seed: int,
    fitting: Fitting,
    tick: Callable[[], None],
) -> NDArray[np.bool_]:
    """Which faces each plan's net names rightly in the fold that it was not fitted on, (plans, N)."""
    fold_N = torch.from_numpy(cut_folds(pictures, "subjects", seed=seed, groups=folds))
    right_PN = np.zeros((len(plans), len(labels_N)), np.bool_)
    for fold in range(folds):
        fit, test = torch.nonzero(fold_N != fold)[:, 0], torch.nonzero(fold_N == fold)[:, 0]
        start = copy.deepcopy(net)
        refit_batch_norm(start, torch.split(x_NCHW[fit], 64))
        start_classifier(start, x_NCHW[fit], labels_N[fit])
        for place, plan in enumerate(plans):
            generator = torch.Generator().manual_seed(1000 * seed + fold)  # the same order for every plan
            fitted, into_NCHW = fit_frozen(start, plan, x_NCHW, labels_N, fit, fitting, generator)
            with torch.no_grad():
                named_N = fitted(into_NCHW[0, test]).argmax(dim=1)
            right_PN[place, test.numpy()] = (named_N == labels_N[test]).numpy()
            tick()
    return right_PN

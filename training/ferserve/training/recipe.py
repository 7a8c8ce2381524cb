"""What a run is made of: one frozen `Recipe`, complete, with no hidden default outside it.

Each group of settings is validated where it is made, naming the field and the value.
"""

import hashlib
import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.data.errors import DataError


def check_setting(condition: bool, name: str, expected: str, value: object) -> None:  # noqa: FBT001 -- reads as a sentence
    """Raise ValueError that names the setting, what was expected and what came, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


ArchitectureName = Literal[
    "mobilenet_v1",
    "net_b",
    "net_b_dal",
    "net_b_dal_wide",
    "net_b_dal_maps",
    "net_b_normed",
    "net_b_dal_normed",
    "caffenet",
    "caffenet_four_layers",
    "caffenet_attributes",
    "caffenet_small",
    "caffenet_small_four_layers",
    "transfer_resnet50",
    "transfer_resnet152",
]
"""See `models.registry`."""
StartName = Literal["faceres", "run", "random", "imagenet", "vggface2", "caffenet"]
"""Where weights come from: see `start_weights`."""
TaskName = Literal["expressions", "identities", "attributes"]
"""What a run learns. Only runs of expressions become archives; others are there to start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of epochs at one input size.

    Attributes:
        epochs: how many.
        input_size_px: crops are enlarged to this side before the stem.
    """

    epochs: int
    input_size_px: int

    def __post_init__(self) -> None:
        check_setting(self.epochs > 0, "epochs", "more than 0", self.epochs)
        check_setting(32 <= self.input_size_px <= 512, "input_size_px", "32 to 512", self.input_size_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the learning rate goes on after the warm-up.

    Attributes:
        kind: `cosine` to zero; `constant`; `stairs`: times `factor` after every `every_epochs`; `plateau`: times
            `factor` after `every_epochs` whole epochs without a better validation accuracy.
        factor: more than 0, at most 1.
        every_epochs: may be a fraction for `stairs`.
    """

    kind: Literal["cosine", "constant", "stairs", "plateau"] = "cosine"
    factor: float = 1.0
    every_epochs: float = 1.0

    def __post_init__(self) -> None:
        check_setting(0 < self.factor <= 1, "factor", "more than 0, at most 1", self.factor)
        check_setting(self.every_epochs > 0, "every_epochs", "more than 0", self.every_epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """SGD with momentum or Adam, a linear warm-up and a schedule.

    Attributes:
        rate: peak learning rate.
        momentum: of SGD, Nesterov's unless `nesterov` is off; Adam's first beta.
        warmup_epochs: epochs from 0 to the peak, may be a fraction.
        clip_norm: largest norm of the whole gradient; 0 leaves it as it is.
        ema_decay: of the exponential moving average of weights that is evaluated and kept; ramps up over the start.
    """

    rate: float
    momentum: float
    weight_decay: float
    warmup_epochs: float
    clip_norm: float
    ema_decay: float
    method: Literal["sgd", "adam"] = "sgd"
    nesterov: bool = True
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        check_setting(self.rate > 0, "rate", "more than 0", self.rate)
        check_setting(0 <= self.momentum < 1, "momentum", "0 to 1", self.momentum)
        check_setting(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        check_setting(self.warmup_epochs >= 0, "warmup_epochs", "0 or more", self.warmup_epochs)
        check_setting(self.clip_norm >= 0, "clip_norm", "0 or more", self.clip_norm)
        check_setting(0 <= self.ema_decay < 1, "ema_decay", "0 to 1", self.ema_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Soft cross-entropy, and what may stand beside it.

    Attributes:
        vote_weight: share of FERPlus's votes in a target, 0 (FER-2013's label alone) to 1.
        vote_head_weight: weight of a second head that learns the votes alone and is dropped with the last epoch; 0
            leaves it out.
        teacher_weight: share of the teachers' scores in a target, 0 to 1; what is left is the blend above.
        smoothing: label smoothing, 0 to 1.
        center_weight: lambda of the centre loss (Miao et al. 2019: 0.001).
        center_rate: alpha, the centres' own rate (Miao et al. 2019: 0.001).
        form: `cross_entropy`; `softmax_mse`, whose gradient is the same (S1, S2); or `cross_entropy_mse`, that plus
            `mse_weight` times the squared error of the expected class number (see `losses.softmax_mse`).
        teacher_sees: the `views` that the net sees, a pass of the teacher each step, or once the whole `crops` as they
            stand, both ways round: cheaper where a teacher costs as much as its pupil.
    """

    vote_weight: float
    vote_head_weight: float
    teacher_weight: float
    smoothing: float
    center_weight: float
    center_rate: float
    teacher_sees: Literal["views", "crops"] = "views"
    form: Literal["cross_entropy", "softmax_mse", "cross_entropy_mse"] = "cross_entropy"
    mse_weight: float = 0.0

    def __post_init__(self) -> None:
        check_setting(self.mse_weight >= 0, "mse_weight", "0 or more", self.mse_weight)
        for name in ("vote_weight", "teacher_weight", "smoothing", "center_rate"):
            check_setting(0 <= getattr(self, name) <= 1, name, "0 to 1", getattr(self, name))
        for name in ("vote_head_weight", "center_weight"):
            check_setting(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))

    @property
    def uses_votes(self) -> bool:
        """Whether FERPlus's votes enter at all."""
        return self.vote_weight > 0 or self.vote_head_weight > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random views of a training crop; every draw is uniform and symmetrical.

    Attributes:
        min_area: smallest share of the crop's area that is kept (Miao et al. 2019: 0.85); 1 keeps all.
        max_zoom_out: largest factor by which the crop's side may be seen smaller, edges mirrored; 1 never.
        max_rotation_deg: degrees either way.
        max_shift: share of the side either way.
        flip: mirror every second crop.
        contrast, brightness: largest relative change of each.
        erase_probability, erase_max_area: how often a rectangle is blanked, and its largest share of the crop.
        noise: standard deviation of normal noise, drawn for every pixel and channel, in shares of the range of pixels.
        mixup: how often a view is blended with another's, and their targets with it; see `mixing`.
    """

    min_area: float
    max_zoom_out: float
    max_rotation_deg: float
    max_shift: float
    flip: bool
    contrast: float
    brightness: float
    erase_probability: float
    erase_max_area: float
    noise: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        check_setting(0 < self.min_area <= 1, "min_area", "more than 0, at most 1", self.min_area)
        check_setting(1 <= self.max_zoom_out <= 2, "max_zoom_out", "1 to 2", self.max_zoom_out)
        check_setting(0 <= self.max_rotation_deg <= 90, "max_rotation_deg", "0 to 90", self.max_rotation_deg)
        for name in ("max_shift", "contrast", "brightness", "erase_probability", "erase_max_area", "noise", "mixup"):
            check_setting(0 <= getattr(self, name) <= 1, name, "0 to 1", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedSettings:
    """Settings that a run is reproduced from, and by whose hash its files are known.

    A field with a default came after the first runs: it is part of the text only where it differs from that, so that
    the hashes of former runs and archives stand (docs/adr/0030).
    """

    def to_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def to_json(self) -> str:
        """All settings, keys sorted."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @property
    def sha256(self) -> str:
        """Hash of all settings, 64 hex digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        }
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(HashedSettings):
    """One training run, reproducible from this and the data.

    Attributes:
        name: what the archive will be called.
        seed: of the order, the augmentation and the dropout.
        start: where the weights come from: `faceres` (see `pretrained`), `run` (another run's best epoch), `random`, or
            a state dict in torchvision's layout (see `start_weights`).
        phases: run one after the other under one schedule.
        patience_epochs: stop after this many epochs without a better validation accuracy.
        validation_share: cut from Training, never from a test split.
        split_seed: of that cut, apart from `seed`: runs that start from or learn from each other must share it.
        precision: `bf16` runs the forward pass under autocast; weights stay float32.
        frozen_groups: so many of the architecture's groups, from the input on, keep their weights and statistics.
        trained: names of the submodules that alone are trained; empty trains all that `frozen_groups` leaves.
        views: times that an epoch sees each face, every time another view; for sets too small to fill an epoch.
        fit_faces: so many of the faces to fit on, drawn by `split_seed`; 0 takes all.
        unlabelled: data sets whose faces are seen too, of whose labels nothing is: the teachers alone say what they
            show.
    """

    name: str
    version: str
    architecture: ArchitectureName
    paper: str
    seed: int
    start: StartName
    preprocess: PreprocessSpec
    phases: tuple[Phase, ...]
    batch_size: int
    optimisation: Optimisation
    objective: Objective
    augmentation: Augmentation
    patience_epochs: int
    validation_share: float
    split_seed: int
    precision: Literal["fp32", "bf16"]
    frozen_groups: int = 0
    trained: tuple[str, ...] = ()
    task: TaskName = "expressions"
    views: int = 1
    fit_faces: int = 0
    unlabelled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_setting(bool(self.phases), "phases", "at least one", self.phases)
        check_setting(self.batch_size > 1, "batch_size", "2 or more", self.batch_size)
        check_setting(self.patience_epochs > 0, "patience_epochs", "more than 0", self.patience_epochs)
        check_setting(0 < self.validation_share < 0.5, "validation_share", "0 to 0.5", self.validation_share)
        check_setting(self.frozen_groups >= 0, "frozen_groups", "0 or more", self.frozen_groups)
        check_setting(self.views > 0, "views", "1 or more", self.views)
        check_setting(self.fit_faces >= 0, "fit_faces", "0 or more", self.fit_faces)
        taught = self.objective.teacher_weight > 0
        blends = self.augmentation.mixup if self.task == "attributes" else 0.0
        check_setting(not blends, "mixup", "0 where attributes are learnt", blends)
        check_setting(taught or not self.unlabelled, "unlabelled", "none without a teacher", self.unlabelled)
        # A centre needs the one class that a face is of.
        blurred = bool(self.unlabelled) or self.augmentation.mixup > 0
        center_weight = self.objective.center_weight
        check_setting(
            not (blurred and center_weight), "center_weight", "0 beside mixup and unlabelled faces", center_weight
        )

    def check_same_split(self, other: "Recipe", where: str) -> None:
        """Hold that neither recipe fits on the faces that the other is selected by.

        Args:
            where: names the other in the message.
        Raises:
            DataError: they cut Training differently.
        """
        mine, others = ((recipe.split_seed, recipe.validation_share) for recipe in (self, other))
        if mine != others:
            raise DataError(
                f"expected a run with split_seed {mine[0]} and validation_share {mine[1]:g}, got {others[0]} and "
                f"{others[1]:g} in {where}: it has seen faces that this one is selected by"
            )

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def input_size_px(self, epoch: int) -> int:
        """Input size of an epoch, counted from 0."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase.input_size_px
            epoch -= phase.epochs
        raise IndexError(f"epoch is past the recipe's {self.epochs}")

    @property
    def final_size_px(self) -> int:
        """Input size of the last phase: what the archive's graph enlarges crops to."""
        return self.phases[-1].input_size_px

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: no such file, or it is no recipe; the message names the field.
        """
        if not path.is_file():
            raise DataError(f"expected a run's recipe at {path}, found none")
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{path} is no recipe: {error}") from error

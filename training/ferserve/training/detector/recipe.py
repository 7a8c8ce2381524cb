"""What a detector's run is made of: one frozen `DetectorRecipe`, complete, with no hidden default outside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import TypeAdapter, ValidationError

from ferserve.faces.detectors.decoding import PAD_TO_PX
from ferserve.training.data.errors import DataError
from ferserve.training.recipe import HashedSettings, Optimisation, check_setting

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A batch of square training pictures.

    Attributes:
        size_px: side of each picture, a multiple of the coarsest stride.
        pictures: how many.
    """

    size_px: int
    pictures: int

    def __post_init__(self) -> None:
        whole = self.size_px > 0 and self.size_px % PAD_TO_PX == 0
        check_setting(whole, "size_px", f"a positive multiple of {PAD_TO_PX}", self.size_px)
        check_setting(self.pictures > 0, "pictures", "more than 0", self.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    """What training pictures are like; shares are probabilities, sizes are of the longer side of a face's box.

    Attributes:
        photo_share: a view of a photo; half of these get faces pasted beside the photo's own.
        empty_share: a background without a face; what is left of 1 are composed scenes.
        min_face_px, max_face_share: the smallest pasted face, and the largest as a share of the picture's side.
        min_exact_px: smaller faces are ignored: only what the teacher sees in the picture counts there.
        max_faces: of a composed scene.
        max_rotation_deg: of a pasted face, either way; photos turn half as far.
        turned_share: how many pasted faces are turned evenly up to that; the others are nearly upright.
        exact_photos: whether a photo's own faces are exact too; if not, what the teacher sees in the view is all that
            is learnt of them.
        damage_share: how often each kind of damage (blur, low light, noise, JPEG, grey, colour) is done.
        occlusion_share: how often a pasted face gets something before it.
        faces_per_source: crops taken of each data set at most.
    """

    photo_share: float
    empty_share: float
    min_face_px: float
    max_face_share: float
    min_exact_px: float
    max_faces: int
    max_rotation_deg: float
    turned_share: float
    exact_photos: bool
    damage_share: float
    occlusion_share: float
    faces_per_source: int

    def __post_init__(self) -> None:
        for name in ("photo_share", "empty_share", "turned_share", "damage_share", "occlusion_share"):
            check_setting(0 <= getattr(self, name) <= 1, name, "0 to 1", getattr(self, name))
        both = self.photo_share + self.empty_share
        check_setting(both <= 1, "photo_share + empty_share", "at most 1", both)
        check_setting(self.min_face_px >= 4, "min_face_px", "4 or more", self.min_face_px)
        check_setting(self.min_exact_px >= self.min_face_px, "min_exact_px", "min_face_px or more", self.min_exact_px)
        check_setting(0 < self.max_face_share <= 1, "max_face_share", "more than 0, at most 1", self.max_face_share)
        check_setting(self.max_faces > 0, "max_faces", "more than 0", self.max_faces)
        check_setting(0 <= self.max_rotation_deg <= 180, "max_rotation_deg", "0 to 180", self.max_rotation_deg)
        check_setting(self.faces_per_source > 0, "faces_per_source", "more than 0", self.faces_per_source)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionObjective:
    """Targets and weights of the losses (see `losses.detection`).

    Attributes:
        focal_gamma: beta of the quality focal loss.
        order_weight: of the plain distance between scores of cells that have a face. The focal loss forgives small
            ones, and so lets another of a face's cells win, whose landmarks are other ones.
        box_weight, landmark_weight: beside the score's loss at 1.
        min_target: cells whose target score is lower teach no box and no landmarks.
        missed_below: an exact face is the teacher's miss if no cell of that score has its box.
        exact_score: target of the cells that a missed face gets.
        raised_score: an exact face that the teacher sees less surely has the targets of all its cells raised in
            proportion until the best has this; 0 raises none.
    """

    focal_gamma: float
    order_weight: float
    box_weight: float
    landmark_weight: float
    min_target: float
    missed_below: float
    exact_score: float
    raised_score: float

    def __post_init__(self) -> None:
        check_setting(0 <= self.raised_score <= 1, "raised_score", "0 to 1", self.raised_score)
        for name in ("focal_gamma", "order_weight", "box_weight", "landmark_weight"):
            check_setting(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("min_target", "missed_below", "exact_score"):
            check_setting(0 < getattr(self, name) <= 1, name, "more than 0, at most 1", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorRecipe(HashedSettings):
    """One run of the detector, reproducible from this, the data and the teacher.

    Attributes:
        name: what the detector will be called.
        seed: of every picture; the start weights are the teacher's.
        views: taken in turn, one a step.
        aside_photos: never used before the final evaluation; `selection_photos` choose the threshold.
        optimisation: `momentum` is AdamW's first beta.
        start_share: how far the averaged weights go back to the ones they started from, 0 to 1, in the net that is
            checked and exported (Wortsman et al. 2022, Robust fine-tuning of zero-shot models); a random start is
            nothing to go back to.
        precision: `bf16` runs the forward pass under autocast; weights stay float32.
    """

    name: str
    version: str
    architecture: Literal["yunet"]
    seed: int
    views: tuple[View, ...]
    steps_per_epoch: int
    epochs: int
    aside_photos: int
    selection_photos: int
    optimisation: Optimisation
    start_share: float
    objective: DetectionObjective
    scenes: SceneSettings
    precision: Literal["fp32", "bf16"]

    def __post_init__(self) -> None:
        check_setting(bool(self.views), "views", "at least one", self.views)
        check_setting(0 <= self.start_share <= 1, "start_share", "0 to 1", self.start_share)
        for name in ("steps_per_epoch", "epochs", "aside_photos", "selection_photos"):
            check_setting(getattr(self, name) > 0, name, "more than 0", getattr(self, name))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def view(self, step: int) -> View:
        """The batch of a step, counted from 0 over the whole run."""
        return self.views[step % len(self.views)]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the recipe of a run's folder.

        Raises:
            DataError: it holds none, or not this kind.
        """
        path = folder / RECIPE_FILE
        if not path.is_file():
            raise DataError(f"expected the folder of a detector's run, found no {RECIPE_FILE} in {folder}")
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{path}: expected a detector's recipe: {error}") from error


def ferdet() -> DetectorRecipe:
    """The detector that ships, from the teacher's weights: minutes on a GPU beside 16 cores, hours on two."""
    return DetectorRecipe(
        name="ferdet",
        version="1.1.0",
        architecture="yunet",
        seed=1,
        # About the same number of pixels each: large pictures teach large faces, small ones are many.
        views=(
            View(size_px=320, pictures=32),
            View(size_px=448, pictures=16),
            View(size_px=320, pictures=32),
            View(size_px=640, pictures=8),
        ),
        steps_per_epoch=200,
        epochs=23,
        aside_photos=60,
        selection_photos=40,
        optimisation=Optimisation(
            rate=4e-4, momentum=0.9, weight_decay=1e-4, warmup_epochs=0.5, clip_norm=10.0, ema_decay=0.999
        ),
        start_share=0.2,
        objective=DetectionObjective(
            focal_gamma=1.5,
            order_weight=6.0,
            box_weight=2.0,
            landmark_weight=40.0,
            min_target=0.1,
            missed_below=0.5,
            exact_score=0.9,
            raised_score=0.85,
        ),
        scenes=SceneSettings(
            photo_share=0.5,
            empty_share=0.05,
            min_face_px=10.0,
            max_face_share=0.8,
            min_exact_px=14.0,
            max_faces=30,
            max_rotation_deg=45.0,
            turned_share=0.5,
            exact_photos=False,
            damage_share=0.15,
            occlusion_share=0.15,
            faces_per_source=2400,
        ),
        precision="fp32",
    )

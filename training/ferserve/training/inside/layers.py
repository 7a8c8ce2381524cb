"""The criterion of a net's layers on a set of faces: what `ferserve inside criterion` finds.

Shapes: N faces, L layers.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.training.cross import FaceFinder
from ferserve.training.data.catalog import Source
from ferserve.training.data.ck_frames import Configuration, configure
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.data.sets import Pictures
from ferserve.training.evaluate import Z_95, Interval
from ferserve.training.inside.criterion import BATCH, LayerStructure, measure_layers, transferable
from ferserve.training.inside.deconvnet import Selection
from ferserve.training.inside.landmarks import find_landmarks
from ferserve.training.inside.nets import OpenedNet
from ferserve.training.machine import Machine, this_machine

SHARE: Final = 0.5
"""Of the best layer's criterion that a layer must keep to transfer. Chosen before any freezing was measured."""
FACES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer; means over the faces with 95 % intervals (normal), see `criterion.LayerStructure`."""

    layer: str
    criterion: Interval
    elsewhere: Interval
    concentration: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionResult:
    """A net's layers on one set.

    Attributes:
        selection: of activations that were brought down.
        share: of the best layer's figure that transfers.
        transferable: so many groups from the input on would be frozen by it.
        landmarks_found: faces in which the detector found them.
    """

    kind: Literal["layer-criterion"] = "layer-criterion"
    net: str
    net_sha256: str | None
    recipe_sha256: str
    architecture: str
    input_size_px: int
    data: str
    configuration: str | None
    data_sha256: str
    faces: int
    seed: int
    landmarks_found: int
    selection: str
    share: float
    transferable: int
    layers: tuple[LayerRow, ...]
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def draw_faces(pictures: Pictures, count: int, *, seed: int) -> Pictures:
    """So many pictures at random, or all of them."""
    return pictures.take(np.sort(np.random.default_rng(seed).permutation(len(pictures))[:count]))


def measure_criterion(
    opened: OpenedNet,
    source: Source,
    *,
    configuration: Configuration | None,
    finder: FaceFinder,
    selection: Selection,
    faces: int = FACES,
    seed: int = 1,
    share: float = SHARE,
    input_size_px: int | None = None,
    on_start: Callable[[str, int], Callable[[], None]] = lambda _name, _total: lambda: None,
) -> CriterionResult:
    """Measure every layer of a net on some faces of a set; labels play no part.

    Args:
        faces: how many are drawn, by `seed`.
        input_size_px: side that the net sees; None takes its recipe's.
        on_start: told of a name and how many steps there are; gives what to call after each of them.
    Raises:
        DataError: the set is not in its layout, or the configuration is not for it.
    """
    whole = source.read()
    kept = draw_faces(whole if configuration is None else configure(whole, configuration), faces, seed=seed)
    size_px = opened.recipe.final_size_px if input_size_px is None else input_size_px
    cutter = None if source.data_set.description.cropped else finder.detector
    crops, _ = crop_pictures(kept, opened.recipe.preprocess, cutter)
    landmarks, found = find_landmarks(crops, finder.detector)
    tick = on_start(f"layers of {opened.name}", -(-len(kept) // BATCH))
    layers = measure_layers(
        opened.net, crops, landmarks, input_size_px=size_px, selection=selection, on_batch=tick
    )  # fmt: skip
    return CriterionResult(
        net=opened.name,
        net_sha256=opened.sha256,
        recipe_sha256=opened.recipe.sha256,
        architecture=opened.recipe.architecture,
        input_size_px=size_px,
        data=source.title,
        configuration=None if configuration is None else configuration.name,
        data_sha256=whole.sha256(),
        faces=len(kept),
        seed=seed,
        landmarks_found=int(found.sum()),
        selection=str(selection),
        share=share,
        transferable=transferable([layer.criterion for layer in layers], share=share),
        layers=tuple(_row(layer) for layer in layers),
        machine=this_machine(),
    )


def _row(layer: LayerStructure) -> LayerRow:
    return LayerRow(
        layer=layer.layer,
        criterion=_mean(layer.expressive_N),
        elsewhere=_mean(layer.elsewhere_N),
        concentration=_mean(layer.concentration_N),
    )


def _mean(values_N: NDArray[np.float64]) -> Interval:
    mean = float(values_N.mean())
    half = Z_95 * float(values_N.std(ddof=1)) / len(values_N) ** 0.5 if len(values_N) > 1 else 0.0
    return Interval(value=mean, low=mean - half, high=mean + half)

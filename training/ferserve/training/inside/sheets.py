"""Contact sheets: a face, and beside it what layers say of it, as PNG.

Shapes: H and W pixels of a tile, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ferserve.training.data.errors import DataError
from ferserve.training.inside.criterion import shrink
from ferserve.training.inside.deconvnet import ALL, Seen, Selection

mpl.use("agg")
from matplotlib.figure import Figure

_DPI: Final = 100
_TILE_INCHES: Final = 1.35
CLIP: Final = 99.5
"""Percentile of the absolute values that is drawn white or black: one bright pixel would leave the rest grey."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tile:
    """One picture of a sheet: grey (H, W) or RGB (H, W, 3), 0 to 1, and what stands above it."""

    title: str
    picture: NDArray[np.float32]


def contrast(down_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """A reconstruction as a picture: zero mid-grey, the strongest values white and black; (H, W) or (H, W, 3)."""
    reach = float(np.percentile(np.abs(down_CHW), CLIP)) or float(np.abs(down_CHW).max()) or 1.0
    picture: NDArray[np.float32] = np.clip(0.5 + 0.5 * down_CHW / reach, 0.0, 1.0).astype(np.float32)
    return picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)


def strongest_maps(maps_Mhw: Tensor, count: int) -> list[int]:
    """Numbers of the maps with the largest single activations, the strongest first."""
    peaks_M = maps_Mhw.flatten(1).amax(dim=1)
    return [int(number) for number in peaks_M.topk(min(count, len(peaks_M))).indices]


def layer_rows(
    x_1CHW: Tensor,
    seen: Seen,
    layers: Sequence[str],
    *,
    tops: Sequence[int],
    maps: Sequence[int] | None,
    strongest: int,
    side_px: int | None = None,
) -> list[list[Tile]]:
    """A row of tiles for each layer: the face, all maps, the top activations of every map, then single maps.

    Args:
        x_1CHW: what `seen` was shown, one face.
        tops: for each number n the top n of every map, and of each single one.
        maps: single maps; None takes the `strongest`.
        side_px: shrink what comes down to this side, as the criterion does: the chequers that a convolution's stride
            leaves average out. None draws every pixel.
    Raises:
        DataError: no such layer, or no such map of it.
    """
    face = contrast(x_1CHW[0].numpy())
    rows = []
    for layer in layers:
        if layer not in seen.maps:
            raise DataError(f"layer: expected one of {', '.join(seen.maps)}, got {layer!r}")
        singles = strongest_maps(seen.maps[layer][0], strongest) if maps is None else maps
        chosen = [ALL, *(Selection(top=top) for top in tops)]
        for number in singles:
            chosen += [Selection(map=number)] + [Selection(map=number, top=top) for top in tops if maps is not None]
        shape = "x".join(map(str, seen.maps[layer].shape[1:]))
        tiles = [Tile(title=f"{layer}\n{shape}", picture=face)]
        tiles += [
            Tile(title=str(selection), picture=contrast(_shrunk(seen.reconstruct(layer, selection), side_px)))
            for selection in chosen
        ]
        rows.append(tiles)
    return rows


def _shrunk(down_1CHW: Tensor, side_px: int | None) -> NDArray[np.float32]:
    if side_px is not None:
        down_1CHW = shrink(down_1CHW, side_px=side_px)
    return np.asarray(down_1CHW[0].numpy(), np.float32)


def write_sheet(rows: Sequence[Sequence[Tile]], path: Path, *, title: str) -> None:
    """Draw tiles in rows of one length, as PNG or by the path's suffix."""
    columns = len(rows[0])
    size = (_TILE_INCHES * columns, (_TILE_INCHES + 0.3) * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, tile in zip(
        figure.subplots(len(rows), columns, squeeze=False).flat, [tile for row in rows for tile in row], strict=True
    ):
        axes.imshow(tile.picture, cmap="grey", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(tile.title, fontsize=6, pad=2)
        axes.axis("off")
    figure.savefig(path, dpi=_DPI)

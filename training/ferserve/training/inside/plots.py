"""Plots of what was measured inside a net, as PNG; see `visualize`."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import LABELS
from ferserve.faces.occlusion import OcclusionMap
from ferserve.faces.types import Crop
from ferserve.training.inside.regions import TABLE_6

if TYPE_CHECKING:
    from ferserve.training.inside.occlusion import OcclusionResult
    from ferserve.training.inside.transfer import FreezingResult

mpl.use("agg")
from matplotlib.figure import Figure

_DPI = 120


def plot_regions(found: "OcclusionResult", path: Path) -> None:
    """Accuracy by what is covered, S3's beside every set's, with 95 % intervals."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(TABLE_6))
    width = 0.8 / (1 + len(found.sets))
    axes.bar(places, list(TABLE_6.values()), width, color="lightgrey", label="S3 (Lin et al. 2020), 200 frames of CK+")
    for number, each in enumerate(found.sets, start=1):
        shares = [row.people or row.accuracy for row in each.rows]
        values = np.asarray([100 * share.value for share in shares])
        reach = np.abs(np.asarray([[100 * share.low, 100 * share.high] for share in shares]).T - values)
        label = f"{each.archive} on {each.data}, {each.faces:,} faces, {len(each.classes)} classes"
        axes.bar(places + number * width, values, width, yerr=reach, capsize=2, label=label)
    names = [region.value.replace(" of the", "\nof the").replace(" and ", "\nand ") for region in TABLE_6]
    axes.set_xticks(places + width * len(found.sets) / 2, names, fontsize=8)
    axes.set(ylabel="accuracy, %", ylim=(0, 100), title=f"What is left with a part of the face covered ({found.fill})")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=_DPI)


def plot_map(crop: Crop, scores: NDArray[np.float32], losses: OcclusionMap, path: Path) -> None:
    """A face, and over it what its top score loses where it is covered; red where the part speaks for the expression.

    Args:
        crop: uint8, shape (S, S, C).
        scores: shape (7,).
        losses: of `occlusion_map`, shape (G, G).
    """
    top = int(np.argmax(scores))
    extent = (0, crop.shape[1], crop.shape[0], 0)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(crop.squeeze(), cmap="grey", vmin=0, vmax=255, extent=extent)
        axes.axis("off")
    left.set_title(f"{LABELS[top]} {scores[top]:.2f}", fontsize=9)
    reach = max(float(np.abs(losses).max()), 0.01)
    drawn = right.imshow(
        losses, cmap="coolwarm", vmin=-reach, vmax=reach, alpha=0.6, extent=extent, interpolation="bilinear"
    )
    right.set_title("what the score loses with the place covered", fontsize=9)
    figure.colorbar(drawn, ax=right, shrink=0.85)
    figure.savefig(path, dpi=_DPI)


def plot_freezing(found: "FreezingResult", path: Path) -> None:
    """The criterion by layer, and accuracy by what was frozen, with 95 % intervals."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = found.criterion.layers
    values = np.asarray([row.criterion.value for row in layers])
    left.bar([row.layer for row in layers], values, color="tab:blue")
    left.axhline(found.criterion.share * float(values.max()), linestyle="--", color="grey", linewidth=0.8)
    left.tick_params(axis="x", rotation=90, labelsize=8)
    left.set(ylabel="structure kept over eyes and mouth")
    for place, row in enumerate(found.rows):
        reach = [[100 * (row.accuracy.value - row.accuracy.low)], [100 * (row.accuracy.high - row.accuracy.value)]]
        right.errorbar([place], [100 * row.accuracy.value], yerr=reach, fmt="o", capsize=3, color="tab:blue")
    names = [f"{row.name}\n({len(row.frozen)} frozen)" for row in found.rows]
    right.set_xticks(range(len(names)), names, rotation=45, fontsize=8)
    right.set(ylabel=f"accuracy on {found.data}, people apart, %")
    figure.savefig(path, dpi=_DPI)

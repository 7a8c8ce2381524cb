"""Pictures of a run: learning curves, confusion matrix, reliability. Drawn without a display, written as PNG."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import LABELS

if TYPE_CHECKING:
    from ferserve.training.engine import EpochRow
    from ferserve.training.evaluate import Report
    from ferserve.training.tradeoff import Tradeoff

mpl.use("agg")
from matplotlib.figure import Figure

_DPI = 120


def plot_curves(rows: Sequence["EpochRow"], path: Path) -> None:
    """Loss and validation accuracy by epoch; a dashed line where the input size changes."""
    epochs = [row.epoch for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row.loss for row in rows], label="training objective")
    left.plot(epochs, [row.validation_loss for row in rows], label="validation cross-entropy")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(epochs, [100 * row.accuracy for row in rows], color="tab:green")
    right.set(xlabel="epoch", ylabel="validation accuracy, %")
    for former, row in pairwise(rows):
        if former.input_size_px != row.input_size_px:
            for axes in (left, right):
                axes.axvline(row.epoch - 0.5, linestyle="--", color="grey", linewidth=0.8)
            right.annotate(f"{row.input_size_px} px", (row.epoch, 100 * row.accuracy), fontsize=8)
    figure.savefig(path, dpi=_DPI)


def plot_confusion(report: "Report", path: Path, *, title: str, names: Sequence[str] = LABELS) -> None:
    """Row-normalised confusion matrix with percentages; classes that are neither labelled nor predicted are left out.

    Args:
        names: of the report's classes.
    """
    counts = np.asarray(report.confusion, float)
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, names = counts[np.ix_(used, used)], [names[int(number)] for number in used]
    shares = counts / np.maximum(1.0, counts.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="labelled", title=title)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column, row, f"{100 * share:.1f}", ha="center", va="center", color="white" if share > 0.5 else "black"
        )
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=_DPI)


def plot_reliability(
    scores_NK: NDArray[np.floating], labels_N: NDArray[np.int64], path: Path, *, bins: int = 15
) -> None:
    """Accuracy against confidence of the top label in equal-width bins, and how many faces fall into each."""
    top_N = scores_NK.max(axis=1)
    right_N = scores_NK.argmax(axis=1) == labels_N
    bins_N = np.minimum((top_N * bins).astype(int), bins - 1)
    used = np.unique(bins_N)
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], linestyle="--", color="grey", linewidth=0.8)
    accuracy = [right_N[bins_N == b].mean() for b in used]
    axes.bar((used + 0.5) / bins, accuracy, width=0.9 / bins, color="tab:blue", alpha=0.8)
    axes.plot([top_N[bins_N == b].mean() for b in used], accuracy, "o", color="black", markersize=3)
    axes.set(xlabel="top score", ylabel="share of faces that are right", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(path, dpi=_DPI)


def plot_tradeoff(found: "Tradeoff", path: Path, *, batch: int = 8) -> None:
    """Accuracy with its 95 % interval against milliseconds of one core a face."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for row in found.candidates:
        accuracy, time_ms = row.report.accuracy, row.ms_per_face(batch)
        reach = [[100 * (accuracy.value - accuracy.low)], [100 * (accuracy.high - accuracy.value)]]
        axes.errorbar([time_ms], [100 * accuracy.value], yerr=reach, fmt="o", capsize=3)
        label = f" {row.archive}\n {row.input_size_px} px, {row.precision}"
        axes.annotate(label, (time_ms, 100 * accuracy.value), fontsize=8, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel=f"ms of one core a face, batches of {batch}", ylabel=f"accuracy on {found.split}, %")
    # Names stand right of their points.
    axes.set_xlim(0, 1.3 * max(row.ms_per_face(batch) for row in found.candidates))
    figure.savefig(path, dpi=_DPI)

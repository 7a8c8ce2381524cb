"""The experiment as a picture."""

from pathlib import Path

import matplotlib as mpl

from ferserve.training.active.experiment import ExperimentResult
from ferserve.training.intervals import OverSeeds

mpl.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = {"random": "tab:grey", "entropy": "tab:orange", "active": "tab:blue"}
_DPI = 120


def plot_experiment(result: ExperimentResult, path: Path) -> None:
    """Accuracy by web labels, with 95 % intervals over seeds: all on the left, what each gains over random right."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for summary in result.strategies:
        labels = [point.labels for point in summary.points]
        colour = _COLOURS[summary.strategy]
        name, accuracy = summary.strategy, [point.accuracy for point in summary.points]
        left.plot(labels, [100 * over.mean for over in accuracy], label=name, color=colour, marker="o", ms=3)
        _band(left, labels, accuracy, colour)
        gains = [point.gain for point in summary.points if point.gain is not None]
        if gains:
            right.plot(labels[1:], [100 * over.mean for over in gains], label=name, color=colour, marker="o", ms=3)
            _band(right, labels[1:], gains, colour)
    left.axhline(100 * result.all_web, color="black", linestyle=":", linewidth=0.8, label="every web label")
    right.axhline(0, color="tab:grey", linewidth=0.8)
    left.set(xlabel="labels of web faces", ylabel="FER-2013 PublicTest, %", title=f"{result.features} features")
    right.set(xlabel="labels of web faces", ylabel="points over random", title="pairs of one seed")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=_DPI)


def _band(axes: Axes, labels: list[int], over: list[OverSeeds], colour: str) -> None:
    low, high = [100 * one.low for one in over], [100 * one.high for one in over]
    axes.fill_between(labels, low, high, color=colour, alpha=0.15)

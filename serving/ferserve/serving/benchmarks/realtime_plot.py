"""Draws the real-time table beside the paper's formula. Needs matplotlib, which serving itself does not."""

from pathlib import Path
from typing import Final

from ferserve.serving.benchmarks.realtime import RealtimeReport, paper_ms
from ferserve.serving.errors import ConfigError

_DPI: Final = 120
_STAGES: Final = (("detect", "#1c5d99"), ("preprocess", "#e08a00"), ("classify", "#3c8d5a"))


def plot_realtime(report: RealtimeReport, path: Path) -> None:
    """Write a PNG: stages stacked for each number of faces, and the paper's line above them.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `training` brings it
    except ImportError as error:
        raise ConfigError(f"--plot: expected matplotlib: pip install 'ferserve[training]' ({error})") from error
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(report.frames))
    bottom = [0.0] * len(report.frames)
    for stage, colour in _STAGES:
        heights = [getattr(frame, stage).median_ms for frame in report.frames]
        axes.bar(places, heights, bottom=bottom, width=0.6, color=colour, label=f"here: {stage}")
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.plot(places, [paper_ms(frame.faces) for frame in report.frames], "o--", color="#666", label="paper's formula")
    for place, frame in zip(places, report.frames, strict=True):
        axes.annotate(f"{frame.total.median_ms:.1f}", (place, bottom[place]), ha="center", va="bottom", fontsize=9)
    axes.axhline(1000 / 30, color="#bbb", linewidth=0.8, linestyle=":")
    axes.annotate("30 frames/s", (places[-1] + 0.32, 1000 / 30), fontsize=8, color="#666", ha="right", va="bottom")
    axes.set_xticks(list(places), [str(frame.faces) for frame in report.frames])
    axes.set(
        xlabel="faces in a frame of 640 x 480",
        ylabel="milliseconds a frame",
        title=f"{report.model} {report.precision}, {report.detector}, one thread",
    )
    axes.legend()
    figure.savefig(path, dpi=_DPI)

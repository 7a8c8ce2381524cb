"""The card of an archive: what it is, what it was made from, what was measured, what was not. Markdown, generated."""

from collections.abc import Sequence

from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import DataSource
from ferserve.training.finish import Calibration
from ferserve.training.int8 import Int8Graph, LeftOut
from ferserve.training.measure import Measurement
from ferserve.training.recipe import Recipe

_NOT_MEASURED = """\
- Demographic groups: FER-2013 carries no such labels, so differences by age, gender or skin colour were not measured.
- Video, profile faces beyond about 45 degrees, and faces under 24 px.
- Whether an expression tells what a person feels. It does not: the scores describe apparent expression only.
"""


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _input_line(recipe: Recipe) -> str:
    spec = recipe.preprocess
    return (
        f"Takes uint8 crops of {spec.size_px} px with {spec.channels} channel(s), enlarges them to "
        f"{recipe.final_size_px} px inside, and gives seven calibrated scores: {', '.join(LABELS)}."
    )


def _calibration_line(calibration: Calibration) -> str:
    scaling, before, after = calibration.scaling, calibration.before, calibration.after
    bias = ", ".join(f"{label} {value:+.2f}" for label, value in zip(LABELS, scaling.bias, strict=True))
    return (
        f"Temperature {scaling.temperature:.4f} and one bias a class ({bias}; Alexandari et al. 2020), fitted on "
        f"{after.faces} faces cut from Training that no gradient saw. There accuracy went from "
        f"{_percent(before.accuracy.value)} to {_percent(after.accuracy.value)}, the expected calibration error from "
        f"{_percent(before.ece)} to {_percent(after.ece)} and the Brier score from {before.brier:.4f} to "
        f"{after.brier:.4f}. A face is `uncertain` below a top score of {calibration.uncertain_below:.3f}."
    )


def _provenance_line(recipe: Recipe, calibration: Calibration) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in calibration.dropped.items())
    return (
        f"Left out of Training: {left_out}. Recipe {recipe.sha256}, epoch {calibration.epoch} of {recipe.epochs}, seed "
        f"{recipe.seed}. Clearance for commercial use of the data and the start weights is the user's own."
    )


def _int8_line(int8: Int8Graph) -> str:
    kept = int8.chosen.fidelity
    return (
        f"int8 ({int8.chosen.settings.text}) was set up on {kept.faces} faces cut from Training that no gradient saw: "
        f"there {100 * kept.paired.difference.value:+.2f} points to fp32, and on {_percent(kept.agreement.value)} the "
        "same top class. It runs on CPUs with VNNI; without, its sums overflow and fp32 runs. All other figures of "
        "this card are fp32's."
    )


def precision_lines(int8: Int8Graph | LeftOut, measured: Measurement) -> list[str]:
    """What int8 keeps of float32 on the test split, or why it is not there."""
    if isinstance(int8, LeftOut):
        return [f"This archive runs in fp32 alone. int8 is left out: {int8.reason}."]
    fp32, public = measured.report, int8.public
    difference = public.paired.difference
    low, high = 100 * difference.low, 100 * difference.high
    return [
        "| whole PublicTest | fp32 | int8 |",
        "|---|---|---|",
        f"| accuracy | {_percent(fp32.accuracy.value)} | {_percent(public.accuracy.value)} |",
        f"| points to fp32 | | {100 * difference.value:+.2f} ({low:+.2f} to {high:+.2f}) |",
        f"| same top class as fp32 | | {_percent(public.agreement.value)} |",
        f"| expected calibration error | {_percent(fp32.ece)} | {_percent(public.ece)} |",
        "",
        _int8_line(int8),
    ]


def _figure_lines(measured: Measurement) -> list[str]:
    """The tables of accuracy and of recall by class."""
    report, clean = measured.report, measured.without_duplicates
    rows = [report] if clean is None else [report, clean]
    accuracy = " | ".join(
        f"{_percent(r.accuracy.value)} ({_percent(r.accuracy.low)} to {_percent(r.accuracy.high)})" for r in rows
    )
    return [
        "| | whole PublicTest | without pictures that stand in Training too |",
        "|---|---|---|",
        f"| faces | {' | '.join(str(r.faces) for r in rows)} |",
        f"| accuracy | {accuracy} |",
        f"| macro F1 | {' | '.join(f'{r.macro_f1:.4f}' for r in rows)} |",
        f"| expected calibration error | {' | '.join(_percent(r.ece) for r in rows)} |",
        f"| Brier score | {' | '.join(f'{r.brier:.4f}' for r in rows)} |",
        f"| faces not called uncertain | {' | '.join(_percent(r.certain_share) for r in rows)} |",
        f"| accuracy of those | {' | '.join(_percent(r.certain_accuracy) for r in rows)} |",
        "",
        "| class | recall on PublicTest |",
        "|---|---|",
        *(
            f"| {label} | {_percent(interval.value)} ({_percent(interval.low)} to {_percent(interval.high)}) |"
            for label, interval in report.per_class.items()
        ),
    ]


def render_card(
    recipe: Recipe,
    calibration: Calibration,
    measured: Measurement,
    int8: Int8Graph | LeftOut,
    data: Sequence[DataSource],
) -> str:
    """Write the card from the figures themselves."""
    lines = [
        f"# {recipe.name} {recipe.version}",
        "",
        f"{recipe.architecture}, after {recipe.paper}.",
        _input_line(recipe),
        "",
        "## Figures",
        "",
        "FER-2013 PublicTest, scored once by this archive's ONNX graph, one view a face; 95 % Wilson intervals.",
        "",
        *_figure_lines(measured),
        "",
        "## Precisions",
        "",
        *precision_lines(int8, measured),
        "",
        "## Calibration",
        "",
        _calibration_line(calibration),
        "",
        "## Made from",
        "",
        "| source | role | terms |",
        "|---|---|---|",
        *(f"| {source.name} | {source.role} | {source.terms} |" for source in data),
        "",
        _provenance_line(recipe, calibration),
        "",
        "## Not measured",
        "",
        _NOT_MEASURED,
    ]
    return "\n".join(lines)

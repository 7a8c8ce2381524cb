"""What a graph loses and gains in half precision and in int8: on real weights, face by face against float32.

int8 is set up on the validation split alone: `CANDIDATES` are measured there, the cheapest that keeps within the rule
is taken, and only that one meets another split.

Shapes: N faces, S the crop's side, C channels.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.cpu import Cpu, read_cpu
from ferserve.faces.index import open_archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.fidelity import Fidelity, compare
from ferserve.training.held_out import Faces, SplitName, crop_faces, read_held_out, recipe_of
from ferserve.training.int8 import Candidate, calibration_crops, choose, graph_session, try_int8
from ferserve.training.quantize import CalibrationName, Int8Settings, to_half, to_int8
from ferserve.training.recipe import Recipe
from ferserve.training.throughput import ROUNDS, Speed, measure_speeds

_TRIED: Final[tuple[tuple[CalibrationName, tuple[int, ...]], ...]] = (
    ("minmax", (0, 1, 2, 3)),
    ("percentile", (0, 2)),
    ("entropy", (0, 2)),
)
CANDIDATES: Final = tuple(
    Int8Settings(method=method, float_convs=float_convs, reduce_range=reduce_range)
    for reduce_range in (False, True)
    for method, counts in _TRIED
    for float_convs in counts
)
"""All that the search tries; the first depthwise convolution is the layer that suffers most."""
SAME_SPEED: Final = 0.95
"""Two variants whose speeds are in this ratio or closer count as equally fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One precision of the graph.

    Attributes:
        settings: None for all but int8.
        needs_vnni: on x86 without it the sums of 8-bit weights overflow and the figures do not hold, unless the session
            is told to take care (`session.x64quantprecision`), which costs speed.
        size_bytes, deflated_bytes: of the ONNX file, and as an archive stores it.
        speeds: one for each batch size and clock.
        objections: see `Fidelity.objections`.
    """

    name: str
    settings: Int8Settings | None
    needs_vnni: bool
    size_bytes: int
    deflated_bytes: int
    fidelity: Fidelity
    speeds: tuple[Speed, ...]
    objections: tuple[str, ...]


def recommend(variants: Sequence[Variant]) -> Variant:
    """The variant to ship: of those without objections the fastest, of equally fast ones the one that agrees most."""
    fit = [(_core_ratio(variant), variant) for variant in variants if not variant.objections]
    fastest = max(ratio for ratio, _ in fit)
    pool = [variant for ratio, variant in fit if ratio >= SAME_SPEED * fastest]
    return max(pool, key=lambda variant: variant.fidelity.agreement.value)


def _core_ratio(variant: Variant) -> float:
    """Median speed against float32 at the largest batch."""
    return max((speed.batch, speed.ratio.median) for speed in variant.speeds if speed.clock == "core")[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionReport:
    """What `ferserve precision` finds.

    Attributes:
        search: every candidate on the validation split, in the order measured.
        recommended: see `recommend`.
    """

    archive: str
    archive_sha256: str
    split: SplitName
    cpu: Cpu
    onnxruntime: str
    calibration_faces: int
    variants: tuple[Variant, ...]
    search: tuple[Candidate, ...]
    recommended: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def measure_precision(
    name_or_path: str,
    data: str,
    *,
    split: SplitName,
    recipes: Sequence[Path] = (),
    out: Path | None = None,
    rounds: int = ROUNDS,
    candidates: Sequence[Int8Settings] = CANDIDATES,
    say: Callable[[str], None] = lambda _: None,
) -> PrecisionReport:
    """Search int8's settings on validation, then measure all precisions on a split, on one thread.

    Args:
        data: `NAME=DIR` with Training rows, and PublicTest rows for that split.
        recipes: see `recipe_of`.
        out: folder for the graphs that were measured, `fp32.onnx` and so on.
        say: told of every candidate as it is measured.
    Raises:
        ArchiveError: no such archive, or an altered one.
        DataError: the data set or the recipe does not fit.
    """
    archive = open_archive(name_or_path)
    fit, validation, measured = _read_faces(data, split, recipe_of(archive, recipes), archive.manifest.preprocess)
    graph = archive.onnx()
    search = search_int8(graph, fit, validation, candidates, say)
    graphs: dict[str, tuple[Int8Settings | None, bytes]] = {"fp32": (None, graph), "fp16": (None, to_half(graph))}
    for name, reduced in (("int8", False), ("int8-reduced", True)):
        options = [candidate for candidate in search if candidate.settings.reduce_range == reduced]
        if options:
            chosen = choose(options).settings
            graphs[name] = chosen, to_int8(graph, fit, chosen)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, (_, file) in graphs.items():
            (out / f"{name}.onnx").write_bytes(file)
    variants = measure_variants(graphs, measured, rounds=rounds)
    return PrecisionReport(
        archive=archive.manifest.name,
        archive_sha256=archive.sha256,
        split=split,
        cpu=read_cpu(),
        onnxruntime=ort.__version__,
        calibration_faces=len(fit),
        variants=variants,
        search=search,
        recommended=recommend(variants).name,
    )


def search_int8(
    graph: bytes,
    calibration: NDArray[np.uint8],
    validation: Faces,
    candidates: Sequence[Int8Settings],
    say: Callable[[str], None],
) -> tuple[Candidate, ...]:
    """Measure every setting on the validation split."""
    found: list[Candidate] = []
    for candidate, _ in try_int8(graph, calibration, validation, candidates):
        found.append(candidate)
        fidelity = candidate.fidelity
        say(
            f"{candidate.settings.text}: agreement {100 * fidelity.agreement.value:.2f} %, "
            f"accuracy {100 * fidelity.paired.difference.value:+.2f} points"
        )
    return tuple(found)


def measure_variants(
    graphs: Mapping[str, tuple[Int8Settings | None, bytes]], faces: Faces, *, rounds: int
) -> tuple[Variant, ...]:
    """Fidelity, size and speed of each graph against the first."""
    sessions = {name: graph_session(graph, faces) for name, (_, graph) in graphs.items()}
    scores = {name: session.score(faces.crops) for name, session in sessions.items()}
    float_scores = next(iter(scores.values()))
    speeds = measure_speeds({name: session.score for name, session in sessions.items()}, faces.crops, rounds=rounds)
    variants: list[Variant] = []
    for name, (settings, graph) in graphs.items():
        fidelity = compare(float_scores, scores[name], faces.labels)
        variants.append(
            Variant(
                name=name,
                settings=settings,
                needs_vnni=settings is not None and not settings.reduce_range,
                size_bytes=len(graph),
                deflated_bytes=len(zlib.compress(graph, 9)),
                fidelity=fidelity,
                speeds=speeds[name],
                objections=fidelity.objections,
            )
        )
    return tuple(variants)


def _read_faces(
    data: str, split: SplitName, recipe: Recipe, spec: PreprocessSpec
) -> tuple[NDArray[np.uint8], Faces, Faces]:
    """Calibration crops from what gradients came from, the validation split, and the split to measure on."""
    fit, validation, measured = read_held_out(data, split, recipe)
    return calibration_crops(fit, spec), crop_faces(validation, spec), crop_faces(measured, spec)

"""From a finished run to an archive: export, prove that both graphs agree, add int8, measure, write the card."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ferserve.faces.archive import CARD, HANDLER, INT8, ONNX, PROGRAM, Archive, handler_source, write_archive
from ferserve.faces.cpu import Cpu, read_cpu
from ferserve.faces.errors import FerserveError
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest, DataSource
from ferserve.faces.session import ScoringSession
from ferserve.training.card import render_card
from ferserve.training.compact import WholeWeights, round_to_bits, store_whole
from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import FaceSet
from ferserve.training.data.sources import read_source
from ferserve.training.examples import Examples
from ferserve.training.export import ScoringGraph, export_onnx, export_program, round_weights
from ferserve.training.finish import Calibration, load_best, recalibrate
from ferserve.training.held_out import crop_faces, cut_splits
from ferserve.training.int8 import Int8Graph, LeftOut, calibration_crops, make_int8
from ferserve.training.measure import Measurement, measure
from ferserve.training.models.net import ExpressionNet
from ferserve.training.origin import WEB, Origin, source_of
from ferserve.training.recipe import Recipe
from ferserve.training.visualize import plot_confusion, plot_reliability

PARITY = 1e-3
"""Largest difference of a score between eager torch, the exported program and ONNX Runtime."""
PARITY_FACES = 1000


class DisagreementError(FerserveError):
    """The two graphs of an archive do not give the same scores."""


def pack_run(
    folder: Path, data: str, *, out: Path, threads: int, cpu: Cpu | None = None, weight_bits: int | None = None
) -> Archive:
    """Write a finished run as one archive, with `confusion.png` and `reliability.png` beside its checkpoints.

    Nothing is chosen by the test split, which is only measured on. int8 goes in where it keeps within the rule.

    Args:
        data: `NAME=DIR` with Training and PublicTest rows.
        cpu: what int8 is measured by; this machine's unless told otherwise.
        weight_bits: for a net too large to ship else: weights of so many bits, and the one ONNX graph alone, without
            int8 and without the program that TorchServe loads. None keeps what half precision holds.
    Raises:
        DataError: the run is not finished, or the data has not both splits.
        DisagreementError: eager, program and ONNX differ by more than `PARITY`.
    """
    recipe, run_calibration = Recipe.read(folder / "recipe.json"), Calibration.read(folder)
    name, splits = read_source(data)
    if not {"train", "public"} <= set(splits):
        raise DataError(f"{name}: expected Training and PublicTest rows, found splits {', '.join(splits)}")
    net, whole, calibration = _rounded(folder, recipe, run_calibration, splits, weight_bits=weight_bits)
    spec = recipe.preprocess
    shape = (spec.size_px, spec.size_px, spec.channels)
    graph = ScoringGraph(net, size_px=recipe.final_size_px, scaling=calibration.scaling).eval()
    onnx, program = export_onnx(graph, crop_shape=shape), export_program(graph, crop_shape=shape)
    if whole is not None:
        onnx = store_whole(onnx, whole)
    session = ScoringSession(onnx, crop_shape=shape, threads=threads)
    public = splits["public"]
    check_parity(graph, program, session, make_crops(public.take(np.arange(min(PARITY_FACES, len(public)))), spec))
    measured = measure(session, public, spec=spec, uncertain_below=calibration.uncertain_below, train=splits["train"])
    plot_confusion(measured.report, folder / "confusion.png", title=f"{recipe.name} on PublicTest")
    plot_reliability(measured.scores, measured.labels, folder / "reliability.png")
    int8: Int8Graph | LeftOut
    if weight_bits is None:
        int8 = _int8(onnx, splits, recipe, measured, cpu=cpu or read_cpu(), threads=threads)
    else:
        int8 = LeftOut(reason=_bits_line(weight_bits, run_calibration, calibration))
    manifest = _manifest(
        recipe, calibration, measured, int8, _sources(recipe, calibration, public, Origin.read(folder))
    )
    card = render_card(recipe, calibration, measured, int8, manifest.data)
    members = {ONNX: onnx, CARD: card.encode()}
    if weight_bits is None:
        members |= {PROGRAM: program, HANDLER: handler_source()}
    return write_archive(out, manifest, members | ({INT8: int8.graph} if isinstance(int8, Int8Graph) else {}))


def check_parity(graph: ScoringGraph, program: bytes, session: ScoringSession, crops: NDArray[np.uint8]) -> None:
    """Compare the three forms of one model on real crops (N, S, S, C).

    Raises:
        DisagreementError: a score differs by more than `PARITY`, or a top class at all.
    """
    with torch.no_grad():
        eager = graph(torch.from_numpy(crops)).numpy()
        exported = torch.export.load(io.BytesIO(program)).module()(torch.from_numpy(crops)).numpy()
    for name, scores in (("torch.export", exported), ("ONNX Runtime", session.score(crops))):
        worst = float(np.abs(scores - eager).max())
        moved = int((scores.argmax(axis=1) != eager.argmax(axis=1)).sum())
        if worst > PARITY or moved:
            raise DisagreementError(
                f"{name} differs from eager by up to {worst:.2e} (expected {PARITY:.0e}), {moved} top classes moved"
            )


def _int8(
    onnx: bytes, splits: Mapping[str, FaceSet], recipe: Recipe, measured: Measurement, *, cpu: Cpu, threads: int
) -> Int8Graph | LeftOut:
    cut, spec = cut_splits(splits, recipe), recipe.preprocess
    return make_int8(
        onnx,
        calibration_crops(cut.fit, spec),
        crop_faces(cut.validation, spec),
        crop_faces(splits["public"], spec),
        public_scores_NK=measured.scores,
        cpu=cpu,
        threads=threads,
    )


def _rounded(
    folder: Path,
    recipe: Recipe,
    calibration: Calibration,
    splits: Mapping[str, FaceSet],
    *,
    weight_bits: int | None,
) -> tuple[ExpressionNet, Mapping[str, WholeWeights] | None, Calibration]:
    """The best net as it ships, its weights as whole numbers if they are of few bits, and its calibration."""
    net, _ = load_best(folder, recipe)
    net.fold_norms()
    if weight_bits is None:
        round_weights(net)
        return net, None, calibration
    whole = round_to_bits(net, bits=weight_bits)
    # A net of few bits is surer or less sure than the run's own.
    validation = Examples.of_faces(cut_splits(splits, recipe).validation, recipe.preprocess)
    return net, whole, recalibrate(net, recipe, validation, calibration)


def _bits_line(bits: int, run: Calibration, rounded: Calibration) -> str:
    """What rounding to a few bits cost, on the faces that no gradient saw."""
    before, after = (100 * each.after.accuracy.value for each in (run, rounded))
    return (
        f"weights of {bits} bits keep the archive small, at {after:.2f} % on {rounded.after.faces} validation faces "
        f"where the run's own had {before:.2f} %; there is no `.pt2` either, so TorchServe cannot load it"
    )


def _manifest(
    recipe: Recipe,
    calibration: Calibration,
    measured: Measurement,
    int8: Int8Graph | LeftOut,
    data: tuple[DataSource, ...],
) -> ArchiveManifest:
    return ArchiveManifest(
        format=FORMAT,
        name=recipe.name,
        version=recipe.version,
        architecture=recipe.architecture,
        paper=recipe.paper,
        labels=LABELS,
        preprocess=recipe.preprocess,
        preprocess_sha256=recipe.preprocess.sha256,
        temperature=calibration.scaling.temperature,
        class_bias=calibration.scaling.bias,
        uncertain_below=calibration.uncertain_below,
        recipe_sha256=recipe.sha256,
        data=data,
        figures=_figures(measured, calibration, int8),
    )


def _figures(measured: Measurement, calibration: Calibration, int8: Int8Graph | LeftOut) -> dict[str, float]:
    report, clean = measured.report, measured.without_duplicates
    figures = {
        "fer2013_public_accuracy": report.accuracy.value,
        "fer2013_public_accuracy_low": report.accuracy.low,
        "fer2013_public_accuracy_high": report.accuracy.high,
        "fer2013_public_ece": report.ece,
        "fer2013_public_brier": report.brier,
        "validation_accuracy": calibration.after.accuracy.value,
    }
    # What a gateway holds its own faces against, to see whether they have become others.
    shares = np.bincount(measured.scores.argmax(axis=1), minlength=len(LABELS)) / len(measured.scores)
    figures |= {f"reference_share_{label}": float(share) for label, share in zip(LABELS, shares, strict=True)}
    if clean is not None:
        figures["fer2013_public_accuracy_without_duplicates"] = clean.accuracy.value
    if isinstance(int8, Int8Graph):
        figures["int8_public_accuracy"] = int8.public.accuracy.value
        figures["int8_public_agreement"] = int8.public.agreement.value
        figures["int8_public_ece"] = int8.public.ece
    return {name: round(value, 6) for name, value in figures.items()}


def _sources(recipe: Recipe, calibration: Calibration, public: FaceSet, origin: Origin) -> tuple[DataSource, ...]:
    training = DataSource(
        name="FER-2013 Training (Goodfellow et al. 2013)",
        role="labels and pictures of the fit; temperature and threshold on a part that no gradient saw",
        sha256=calibration.data_sha256,
        terms="research use",
    )
    public_test = replace(training, name="FER-2013 PublicTest", role="figures only", sha256=data_sha256(public))
    sources = [training, public_test]
    if origin.data == WEB:
        role = "labels and pictures of the last fit"
        fitted = replace(source_of(WEB), role=role, sha256=calibration.data_sha256)
        chosen = replace(training, name="FER-2013 Training, a part", role="temperature and threshold", sha256="")
        sources = [fitted, chosen, public_test]
    if recipe.objective.uses_votes:
        role = "votes, in the targets or for a head of their own"
        sources.append(DataSource(name="FERPlus (Barsoum et al. 2016)", role=role, sha256="", terms="MIT"))
    sources += [source_of(key) for key in origin.start]
    for key, sha256 in origin.unlabelled.items():
        sources.append(
            replace(source_of(key), role="faces without their labels, scored by the teachers", sha256=sha256)
        )
    for sha256 in origin.teachers:
        name = f"teacher, the run of recipe {sha256[:12]}"
        terms = "as of what stands behind the teachers"
        sources.append(DataSource(name=name, role="scores in the targets", sha256="", terms=terms))
    named = {origin.data, *origin.start, *origin.unlabelled}
    sources += [replace(source_of(key), role="behind the teachers") for key in origin.taught_from if key not in named]
    return tuple(sources)

"""What the handlers leave of the bare model's speed, and how long they take for a photo of many faces.

They are called as TorchServe calls them; TorchServe itself, its JVM and its sockets, is not in it. Subjects take turns,
so that whatever else the machine does meets them all.
"""

import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ferserve.faces.archive import MAX_BATCH_FACES, Archive
from ferserve.faces.arrays import pack_array, unpack_array
from ferserve.faces.detectors import DEFAULT_DETECTOR
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.session import ScoringSession
from ferserve.faces.wire import CROPS, UNNAMED, read_reply
from ferserve.handlers.answering import Answerer
from ferserve.handlers.graphs import record, stream_of, without_tf32
from ferserve.handlers.scorer import PrecisionWish, Scorer
from ferserve.handlers.service import load_answerer, load_scorer, read_manifest

ROUNDS: Final = 10
MOST_CPU_FACES: Final = 64
"""Of a CPU's batches; it gains nothing from more."""
TURN_S: Final = 0.03
"""A subject's turn at one batch size; at least one batch."""
PHOTOS: Final = 60
WARM_UP_PHOTOS: Final = 5
RESAMPLES: Final = 1000
STAGES: Final = ("decode", "detect", "preprocess", "infer")
MODEL, GRAPH, HOST, HANDLER = "model", "graph", "host", "handler"
"""The module called on crops that lie on the device; the same recorded as a CUDA graph; the module on crops from the
host's memory, scores back; a request's bytes to a reply's bytes."""
BARE: Final = (MODEL, GRAPH)

Batch = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with the 95 % interval that drawing its rounds anew gives."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The batch size at which a subject is fastest, and how fast."""

    subject: str
    batch_faces: int
    faces_per_s: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The handler's scores against the archive's ONNX graph in fp32 on the CPU."""

    faces: int
    max_difference: float
    same_top: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoTimes:
    """Of one photo again and again, a request each, in milliseconds.

    Attributes:
        stages_ms: medians; `other` is reading the request and writing the reply.
    """

    width_px: int
    height_px: int
    faces: int
    photos: int
    p50_ms: Interval
    p95_ms: float
    stages_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured.

    Attributes:
        faces_per_s: by batch size and subject.
        kept: the handler's faces a second at its best batch, over the bare model's at its own.
    """

    archive: str
    archive_sha256: str
    device: str
    torch: str
    precision: str
    load_s: float
    faces_per_s: Mapping[int, Mapping[str, Interval]]
    bare: Best
    handler: Best
    kept: Interval
    agreement: Agreement
    photo: PhotoTimes | None


def measure(
    archive: Archive,
    *,
    device: str,
    precision: PrecisionWish = "auto",
    crops: NDArray[np.uint8] | None = None,
    photo: bytes | None = None,
    detector: str = DEFAULT_DETECTOR,
    rounds: int = ROUNDS,
) -> Report:
    """Measure one archive's handlers.

    Args:
        device: such as `cpu` or `cuda:0`.
        crops: to be scored, uint8 (N, S, S, C), N >= 1; noise by default.
        photo: encoded, for the handler of photos.
    Raises:
        ArchiveError: it does not run there.
        InvalidRequestError: crops of another shape, or the photo cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive.path) as file:
            file.extractall(folder)
        scorer = load_scorer(Path(folder), read_manifest(Path(folder)), device=device, precision=precision)
        began_s = time.perf_counter()
        answerer = load_answerer(Path(folder), device=device, precision=precision, detector=detector)
        load_s = time.perf_counter() - began_s
    crops = _checked(crops, scorer.crop_shape)
    on_gpu = torch.device(device).type == "cuda"
    sizes = [2**power for power in range(11) if 2**power <= (MAX_BATCH_FACES if on_gpu else MOST_CPU_FACES)]
    with without_tf32():
        subjects = {size: _subjects(scorer, answerer, _cycled(crops, size)) for size in sizes}
        seen = _rounds(subjects, rounds)
        bare = _best(seen, BARE)
        own = _best(seen, (HANDLER,))
        # Once more for the two alone: the best of many is a little lucky.
        pair = {0: {MODEL: subjects[bare[1]][bare[0]], HANDLER: subjects[own[1]][HANDLER]}}
        rates = _rounds(pair, 2 * rounds)[0]
    bare_per_s, own_per_s = (rates[name] * size for name, size in ((MODEL, bare[1]), (HANDLER, own[1])))
    return Report(
        archive=f"{archive.manifest.name} {archive.manifest.version}",
        archive_sha256=archive.sha256,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        torch=torch.__version__,
        precision=scorer.precision,
        load_s=load_s,
        faces_per_s={
            size: {name: interval(rate * size) for name, rate in by_name.items()} for size, by_name in seen.items()
        },
        bare=Best(subject=bare[0], batch_faces=bare[1], faces_per_s=interval(bare_per_s)),
        handler=Best(subject=HANDLER, batch_faces=own[1], faces_per_s=interval(own_per_s)),
        kept=interval(own_per_s / bare_per_s),
        agreement=_agreement(archive, answerer, crops),
        photo=None if photo is None else _photo_times(answerer, photo),
    )


def interval(values: NDArray[np.float64]) -> Interval:
    """The mean of some rounds."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


def _subjects(scorer: Scorer, answerer: Answerer, crops: NDArray[np.uint8]) -> dict[str, Batch]:
    """One batch of these crops each."""
    here = torch.from_numpy(crops)
    there = here.to(scorer.device)
    request = {CROPS: pack_array(crops)}
    subjects: dict[str, Batch] = {MODEL: lambda: scorer.forward(there)}
    if there.is_cuda:
        graph, _ = record(scorer.forward, there, stream=stream_of(there.device))
        subjects[GRAPH] = graph.replay
    subjects[HOST] = lambda: scorer.forward(here.to(scorer.device)).cpu()
    subjects[HANDLER] = lambda: answerer.replies([request])
    return subjects


def _rounds(subjects: Mapping[int, Mapping[str, Batch]], rounds: int) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Batches a second of each in each round."""
    for by_name in subjects.values():
        for batch in by_name.values():
            _batches_per_s(batch, 0.0)
    seen: dict[int, dict[str, list[float]]] = {key: {name: [] for name in each} for key, each in subjects.items()}
    for turn in range(rounds):
        for key, by_name in subjects.items():
            names = list(by_name)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seen[key][name].append(_batches_per_s(by_name[name], TURN_S))
    return {key: {name: np.array(rates) for name, rates in each.items()} for key, each in seen.items()}


def _batches_per_s(batch: Batch, turn_s: float) -> float:
    """What is only begun when the call returns is waited for once, at the end of the turn."""
    _wait()
    began_s = time.perf_counter()
    batch()
    _wait()
    count = max(round(turn_s / (time.perf_counter() - began_s)), 1)
    began_s = time.perf_counter()
    for _ in range(count):
        batch()
    _wait()
    return count / (time.perf_counter() - began_s)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _best(seen: Mapping[int, Mapping[str, NDArray[np.float64]]], names: Sequence[str]) -> tuple[str, int]:
    """Subject and batch size with the most faces a second."""
    rates = {
        (name, size): float(rate.mean()) * size
        for size, by_name in seen.items()
        for name, rate in by_name.items()
        if name in names
    }
    return max(rates, key=lambda key: rates[key])


def _agreement(archive: Archive, answerer: Answerer, crops: NDArray[np.uint8]) -> Agreement:
    threads = len(os.sched_getaffinity(0))
    expected = ScoringSession.from_archive(archive, precision="fp32", threads=threads).score(crops)
    got = np.concatenate(
        [
            unpack_array(answerer.replies([{CROPS: pack_array(crops[start:end])}])[0].body, dtype=np.float32)
            for start, end in pairwise([*range(0, len(crops), MAX_BATCH_FACES), len(crops)])
        ]
    )
    return Agreement(
        faces=len(crops),
        max_difference=float(np.abs(got - expected).max()),
        same_top=float((got.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )


def _photo_times(answerer: Answerer, photo: bytes) -> PhotoTimes:
    request = {UNNAMED[0]: photo}
    replies: list[dict[str, Any]] = []
    taken_ms: list[float] = []
    for _ in range(WARM_UP_PHOTOS + PHOTOS):
        began_s = time.perf_counter()
        (reply,) = answerer.replies([request])
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        replies.append(read_reply(reply.body))
    replies, taken = replies[WARM_UP_PHOTOS:], np.array(taken_ms[WARM_UP_PHOTOS:])
    stages_ms = {stage: np.array([reply["timings_ms"][stage] for reply in replies]) for stage in STAGES}
    stages_ms["other"] = taken - sum(stages_ms.values())
    drawn = np.median(np.random.default_rng(0).choice(taken, (RESAMPLES, len(taken))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return PhotoTimes(
        width_px=replies[0]["width_px"],
        height_px=replies[0]["height_px"],
        faces=len(replies[0]["faces"]),
        photos=len(taken),
        p50_ms=Interval(value=float(np.median(taken)), low=float(low), high=float(high)),
        p95_ms=float(np.quantile(taken, 0.95)),
        stages_ms={stage: float(np.median(spent)) for stage, spent in stages_ms.items()},
    )


def _checked(crops: NDArray[np.uint8] | None, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    if crops is None:
        return np.random.default_rng(0).integers(0, 256, (MAX_BATCH_FACES, *shape), dtype=np.uint8)
    if crops.dtype != np.uint8 or crops.shape[1:] != shape or not len(crops):
        raise InvalidRequestError(
            f"crops: expected uint8 of shape (N, {', '.join(map(str, shape))}), got {crops.dtype} of {crops.shape}"
        )
    return crops


def _cycled(crops: NDArray[np.uint8], faces: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(crops[np.arange(faces) % len(crops)])

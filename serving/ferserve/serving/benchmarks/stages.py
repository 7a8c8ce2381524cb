"""How fast this machine is, stage by stage and for a whole picture; `ferserve bench` prints what this measures."""

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnxruntime
import simplejpeg

from ferserve.faces.cpu import read_cpu
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector, load_detector
from ferserve.faces.precision import Precision
from ferserve.faces.preprocess import PreprocessSpec, face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Box, Detection, Image
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.bulk.local import bulk_engine
from ferserve.serving.cores import available_cores
from ferserve.serving.engine import ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions, RequestContext

WARM_UPS: Final = 3
BATCHES: Final = (1, 8)
SYNTHETIC_SIZE_PX: Final = (640, 480)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One stage, timed several times.

    Attributes:
        median_ms, low_ms, high_ms: median, first and third quartile of one run.
        faces: faces that one run scored; 0 for stages that score none.
    """

    stage: str
    repeats: int
    median_ms: float
    low_ms: float
    high_ms: float
    faces: int = 0

    @property
    def per_s(self) -> float:
        """Faces a second where faces were scored, otherwise runs a second."""
        return (self.faces or 1) * 1000 / self.median_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All stages, and what they were measured on.

    Attributes:
        faces_found: in the picture, by the detector.
        precision: what the archive's graph was run in.
    """

    machine: dict[str, str | int | float]
    picture: str
    faces_found: int
    model: str
    precision: Precision
    detector: str
    stages: tuple[Measured, ...]


def synthetic_picture() -> bytes:
    """A JPEG of 640 x 480 pixels of smooth noise, always the same. A face that is found in it is none."""
    width_px, height_px = SYNTHETIC_SIZE_PX
    coarse = np.random.default_rng(0).integers(0, 256, (height_px // 16, width_px // 16, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, SYNTHETIC_SIZE_PX, interpolation=cv2.INTER_CUBIC)
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
    return encoded


def measure(models: ModelsConfig, picture: Path | None, *, repeats: int) -> Report:
    """Measure every stage, then the whole path of one picture at a time; all with one thread.

    Args:
        models: the first archive is measured.
        picture: a file; None takes `synthetic_picture`.
        repeats: timed runs a stage, after `WARM_UPS` untimed ones.
    Raises:
        ArchiveError: the archive cannot be used, or not in the precision asked for.
        RequestError: the file is no picture that can be read.
    """
    machine = describe_machine()
    data = synthetic_picture() if picture is None else picture.read_bytes()
    archive, detector = open_archives(models)[0], load_detector(models.detector)
    session = ScoringSession.from_archive(archive, precision=models.precision)
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        stages = _stages(data, session, archive.manifest.preprocess, detector, repeats)
        whole, faces = asyncio.run(_whole_path(models, data, repeats))
    finally:
        cv2.setNumThreads(threads_before)
    return Report(
        machine=machine,
        picture="640 x 480 pixels of noise" if picture is None else picture.name,
        faces_found=faces,
        model=f"{archive.manifest.name} {archive.manifest.version}",
        precision=session.precision,
        detector=detector.name,
        stages=(*stages, whole),
    )


def describe_machine() -> dict[str, str | int | float]:
    """What the figures depend on."""
    return {
        "cpu": read_cpu().name,
        "cores": available_cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
    }


def _stages(
    data: bytes, session: ScoringSession, spec: PreprocessSpec, detector: Detector, repeats: int
) -> list[Measured]:
    limits = DecodeLimits()
    image = decode(data, limits).pixels
    detection = _any_detection(image, detector)
    crop = face_crop(image, detection, spec)
    batches = [(size, np.stack([crop] * size)) for size in BATCHES]
    return [
        _timed("decode", lambda: decode(data, limits), repeats),
        _timed("detect", lambda: detector.detect(image), repeats),
        _timed("preprocess one face", lambda: face_crop(image, detection, spec), repeats),
        *(
            _timed(f"infer, batch {size}", lambda crops=crops: session.score(crops), repeats, faces=size)  # type: ignore[misc]
            for size, crops in batches
        ),
    ]


def _any_detection(image: Image, detector: Detector) -> Detection:
    """The surest face, or the picture's middle: cutting and scoring cost the same whatever is in it."""
    found = detector.detect(image)
    if found:
        return found[0]
    height_px, width_px = image.shape[:2]
    side_px = min(height_px, width_px) / 2
    left_px, top_px = (width_px - side_px) / 2, (height_px - side_px) / 2
    return Detection(box=Box(x0=left_px, y0=top_px, x1=left_px + side_px, y1=top_px + side_px), score=0.0)


async def _whole_path(models: ModelsConfig, data: bytes, repeats: int) -> tuple[Measured, int]:
    config = bulk_engine(models, threads=1)
    async with running_engine(config, open_archives(models), Metrics()) as engine:
        times_ms = []
        faces = 0
        for number in range(WARM_UPS + repeats):
            began_s = time.perf_counter()
            faces = await _analyze(engine.analyzer, data, number)
            times_ms.append((time.perf_counter() - began_s) * 1000)
    return _summarised("one picture, whole path", times_ms[WARM_UPS:], faces=faces), faces


async def _analyze(analyzer: Analyzer, data: bytes, number: int) -> int:
    context = RequestContext(request_id=f"bench-{number}")
    return len((await analyzer.analyze(data, AnalyzeOptions(), context)).faces)


def _timed(stage: str, run: Callable[[], object], repeats: int, *, faces: int = 0) -> Measured:
    times_ms = []
    for _ in range(WARM_UPS + repeats):
        began_s = time.perf_counter()
        run()
        times_ms.append((time.perf_counter() - began_s) * 1000)
    return _summarised(stage, times_ms[WARM_UPS:], faces=faces)


def _summarised(stage: str, times_ms: list[float], *, faces: int) -> Measured:
    low_ms, median_ms, high_ms = statistics.quantiles(times_ms, n=4, method="inclusive")
    return Measured(
        stage=stage, repeats=len(times_ms), median_ms=median_ms, low_ms=low_ms, high_ms=high_ms, faces=faces
    )

"""Threads that compute stand back behind those that answer, and are warm before the first request."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ferserve.faces.types import Detection, Image
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.cores import STAND_BACK, stand_back
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.preparers.starting import warm_up

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the whole process's")


def niceness(thread_id: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread_id)


@on_linux
def test_a_thread_stands_back_alone():
    before = niceness()
    with ThreadPoolExecutor(1, initializer=stand_back) as threads:
        assert threads.submit(niceness).result() == min(before + STAND_BACK, 19)
    assert niceness() == before


@on_linux
async def test_the_engines_threads_stand_back_and_the_loops_does_not(tiny_archive):
    models = ModelsConfig(archives=(str(tiny_archive),))
    config = EngineConfig(models=models, analyzer=AnalyzerConfig(preparation="threads"))
    async with running_engine(config, open_archives(config.models), Metrics()):
        by_name = {thread.name.partition("_")[0]: niceness(thread.native_id) for thread in threading.enumerate()}
        assert by_name["prepare"] == by_name["onnx-tiny"] == min(niceness() + STAND_BACK, 19)


class Remembering:
    name = "remembering"

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - as every detector
        return 64

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:
        assert image.dtype == np.uint8
        assert size_px is None
        self.threads.add(threading.get_ident())
        return []


def test_every_thread_detects_once_before_the_first_request():
    detector = Remembering()
    with ThreadPoolExecutor(3) as threads:
        warm_up(detector, threads, 3)
    assert len(detector.threads) == 3

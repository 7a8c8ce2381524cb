import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.archive import Archive, write_archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.requests import Priority
from ferserve.serving.workers.embedded import MAX_THREADS, EmbeddedConfig, EmbeddedWorker
from ferserve.serving.workers.protocol import check_shape, grey_batch

SIZE_PX = 16
PIXELS = SIZE_PX * SIZE_PX


def tiny_graph(*, batch: str | int = "n", classes: int = 7, bias: float = 0.0) -> bytes:
    """Softmax of a linear map of the pixels, seeded; `bias` NaN breaks every score."""
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(PIXELS, classes)) / PIXELS).astype(np.float32)
    offsets = np.full(classes, bias, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "offsets"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch, SIZE_PX, SIZE_PX, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(offsets, "offsets")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def pack(folder: Path, graph: bytes, *, size_px: int = SIZE_PX) -> Archive:
    spec = PreprocessSpec(size_px=size_px, channels=1)
    manifest = ArchiveManifest(
        format=FORMAT,
        name="tiny",
        version="3",
        architecture="linear",
        paper="none",
        labels=LABELS,
        preprocess=spec,
        preprocess_sha256=spec.sha256,
        temperature=1.0,
        class_bias=(0.0,) * 7,
        uncertain_below=0.5,
        recipe_sha256="0" * 64,
        data=(),
        figures={"accuracy": 0.5},
    )
    return write_archive(folder / "tiny.mar", manifest, {"model.onnx": graph, "card.md": b"# tiny\n"})


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[EmbeddedWorker]:
    worker = await EmbeddedWorker.start(pack(tmp_path, tiny_graph()), EmbeddedConfig(threads=2))
    yield worker
    await worker.close()


def random_crops(faces: int) -> NDArray[np.uint8]:
    return np.random.default_rng(faces).integers(0, 256, (faces, SIZE_PX, SIZE_PX, 1), dtype=np.uint8)


async def test_scores_are_those_of_the_graph(worker: EmbeddedWorker):
    crops = random_crops(5)
    expected = ort.InferenceSession(tiny_graph(), providers=["CPUExecutionProvider"]).run(None, {"crops": crops})[0]
    np.testing.assert_array_equal(await worker.infer(crops, timeout_s=60), expected)


async def test_a_face_scores_the_same_in_any_batch(worker: EmbeddedWorker):
    crops = random_crops(8)
    together = await worker.infer(crops, timeout_s=60)
    alone = np.concatenate([await worker.infer(crops[index : index + 1], timeout_s=60) for index in range(8)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-5)


async def test_it_says_what_it_is(worker: EmbeddedWorker):
    info = worker.describe()
    assert (info.kind, info.model, info.version, info.precision) == ("embedded", "tiny", "3", "fp32")
    assert info.crop_shape == (SIZE_PX, SIZE_PX, 1)
    assert "CPUExecutionProvider, 2 runs side by side" in info.detail
    assert worker.concurrency == 2


async def test_a_working_graph_passes_the_probe(worker: EmbeddedWorker):
    await worker.probe()


async def test_runs_side_by_side_have_no_more_threads_than_told(worker: EmbeddedWorker):
    await asyncio.gather(*(worker.infer(random_crops(4), timeout_s=60) for _ in range(8)))
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("onnx-")}
    assert names <= {"onnx-tiny_0", "onnx-tiny_1"}
    assert names


async def test_a_batch_of_another_shape_is_a_failure_of_the_call_and_not_of_the_worker(worker: EmbeddedWorker):
    with pytest.raises(WorkerFailedError, match="failed on a batch of 2 faces"):
        await worker.infer(np.zeros((2, 8, 8, 1), dtype=np.uint8), timeout_s=60)
    await worker.probe()


async def test_after_closing_every_call_fails_in_our_own_words(worker: EmbeddedWorker):
    await worker.close()
    with pytest.raises(WorkerFailedError):
        await worker.infer(random_crops(1), timeout_s=60)
    with pytest.raises(WorkerFailedError):
        await worker.probe()


async def test_a_graph_that_takes_other_crops_than_the_manifest_says_does_not_start(tmp_path: Path):
    archive = pack(tmp_path, tiny_graph(), size_px=SIZE_PX * 2)
    with pytest.raises(ArchiveError, match="shape"):
        await EmbeddedWorker.start(archive, EmbeddedConfig(threads=1))


async def test_a_graph_that_gives_other_scores_does_not_start(tmp_path: Path):
    with pytest.raises(ArchiveError, match="shape"):
        await EmbeddedWorker.start(pack(tmp_path, tiny_graph(classes=8)), EmbeddedConfig(threads=1))


async def test_a_graph_with_a_fixed_batch_does_not_start(tmp_path: Path):
    with pytest.raises((WorkerFailedError, ArchiveError)):
        await EmbeddedWorker.start(pack(tmp_path, tiny_graph(batch=1)), EmbeddedConfig(threads=1))


async def test_a_graph_that_gives_nan_does_not_start_and_leaves_no_thread(tmp_path: Path):
    archive = pack(tmp_path, tiny_graph(bias=float("nan")))
    with pytest.raises(WorkerFailedError, match="finite"):
        await EmbeddedWorker.start(archive, EmbeddedConfig(threads=1))


async def test_int8_is_never_replaced_in_silence(tmp_path: Path):
    with pytest.raises(ArchiveError, match=r"precision int8: expected a member model\.int8\.onnx"):
        await EmbeddedWorker.start(pack(tmp_path, tiny_graph()), EmbeddedConfig(threads=1), precision="int8")


async def test_bytes_that_are_no_graph_do_not_start(tmp_path: Path):
    with pytest.raises(ArchiveError):
        await EmbeddedWorker.start(pack(tmp_path, b"no graph"), EmbeddedConfig(threads=1))


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
async def test_a_provider_that_is_not_to_be_had_is_an_error_and_not_a_slow_server(tmp_path: Path):
    config = EmbeddedConfig(threads=1, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises((WorkerFailedError, ArchiveError), match="CUDAExecutionProvider"):
        await EmbeddedWorker.start(pack(tmp_path, tiny_graph()), config)


async def test_a_loaded_model_says_what_its_archive_says_and_scores_through_its_batcher(tmp_path: Path):
    archive = pack(tmp_path, tiny_graph())
    clock = asyncio.get_running_loop().time
    model = LoadedModel.serve(
        archive,
        await EmbeddedWorker.start(archive, EmbeddedConfig(threads=1)),
        is_default=True,
        policy=BatchPolicyConfig(),
        observer=Metrics().batches("tiny"),
        clock=clock,
    )
    assert (model.info.name, model.info.version, model.info.is_default) == ("tiny", "3", True)
    assert (model.info.archive_sha256, model.info.preprocess_sha256) == (archive.sha256, model.spec.sha256)
    assert (model.info.crop_size_px, model.info.crop_channels) == (SIZE_PX, 1)
    assert (model.info.temperature, model.info.uncertain_below, model.info.figures) == (1.0, 0.5, {"accuracy": 0.5})
    crops = random_crops(20)
    futures = model.batcher.submit(
        list(crops), flow="a", priority=Priority.INTERACTIVE, deadline_s=clock() + 60, admitted=True
    )
    scores = np.stack([outcome.value for outcome in await asyncio.gather(*futures)])
    np.testing.assert_allclose(scores, await model.worker.infer(crops, timeout_s=60), atol=1e-6)
    await model.close()
    with pytest.raises(WorkerFailedError):
        await model.worker.probe()


@pytest.mark.parametrize("threads", [0, MAX_THREADS + 1])
def test_threads_out_of_range_are_named(threads: int):
    with pytest.raises(ValueError, match=f"threads must be 1 to 256, got {threads}"):
        EmbeddedConfig(threads=threads)


def test_a_grey_batch_is_one_crop_of_mid_grey():
    batch = grey_batch((4, 4, 3))
    assert batch.shape == (1, 4, 4, 3)
    assert batch.dtype == np.uint8
    assert set(batch.flat) == {128}


def test_a_right_shape_passes_and_a_wrong_one_is_named():
    check_shape(np.zeros((2, 7), dtype=np.float32), 2)
    with pytest.raises(WorkerFailedError, match=r"expected float32 scores of shape \(2, 7\).*got float32 of shape"):
        check_shape(np.zeros((1, 7), dtype=np.float32), 2)

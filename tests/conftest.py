"""What tests of several rooms need: a made-up archive, and one real photo of a face."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage.data
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.archive import write_archive
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest
from ferserve.faces.preprocess import PreprocessSpec

TINY_SIZE_PX = 24


def _tiny_graph() -> bytes:
    """uint8 crops (N, 24, 24, 1) to scores (N, 7): the softmax of a seeded linear map."""
    pixels = TINY_SIZE_PX * TINY_SIZE_PX
    weights = (np.random.default_rng(0).normal(size=(pixels, len(LABELS))) / pixels).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["crops"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", TINY_SIZE_PX, TINY_SIZE_PX, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", len(LABELS)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def pack_archive(tmp_path_factory) -> Callable[..., Path]:
    """Write an archive that learnt nothing: version 0.0.1, grey crops of 24 pixels; its graph scores unless given."""

    def pack(name: str, graph: bytes | None = None) -> Path:
        spec = PreprocessSpec(size_px=TINY_SIZE_PX, channels=1)
        manifest = ArchiveManifest(
            format=FORMAT,
            name=name,
            version="0.0.1",
            architecture="one linear layer",
            paper="none",
            labels=LABELS,
            preprocess=spec,
            preprocess_sha256=spec.sha256,
            temperature=1.0,
            class_bias=(0.0,) * len(LABELS),
            uncertain_below=0.5,
            recipe_sha256="0" * 64,
            data=(),
            figures={"accuracy": 0.125},
        )
        path = tmp_path_factory.mktemp("archives") / f"{name}.mar"
        return write_archive(path, manifest, {"model.onnx": graph or _tiny_graph(), "card.md": b"# made up\n"}).path

    return pack


@pytest.fixture(scope="session")
def tiny_archive(pack_archive) -> Path:
    """An archive named `tiny` that scores."""
    return pack_archive("tiny")


@pytest.fixture(scope="session")
def face_photo() -> bytes:
    """A JPEG of 512 x 512 pixels with one frontal face."""
    done, encoded = cv2.imencode(".jpg", skimage.data.astronaut()[:, :, ::-1])
    assert done
    return encoded.tobytes()

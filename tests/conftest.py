"""What tests of several rooms need: a made-up archive, and one real photo of a face."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage.data
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.archive import write_archive
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest
from ferserve.faces.preprocess import PreprocessSpec

TINY_SIZE_PX = 24


def _tiny_weights(seed: int) -> NDArray[np.float32]:
    pixels = TINY_SIZE_PX * TINY_SIZE_PX
    return (np.random.default_rng(seed).normal(size=(pixels, len(LABELS))) / pixels).astype(np.float32)


def _tiny_graph(seed: int = 0) -> bytes:
    """uint8 crops (N, 24, 24, 1) to scores (N, 7): the softmax of a seeded linear map."""
    weights = _tiny_weights(seed)
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
def tiny_weights() -> NDArray[np.float32]:
    """The linear map inside `tiny_archive`, shape (576, 7)."""
    return _tiny_weights(0)


@pytest.fixture(scope="session")
def pack_archive(tmp_path_factory) -> Callable[..., Path]:
    """Write an archive that learnt nothing: version 0.0.1, grey crops of 24 pixels; its graph scores unless given."""

    def pack(name: str, graph: bytes | None = None, *, int8: bytes | None = None, program: bytes | None = None) -> Path:
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
        members = {"model.onnx": graph or _tiny_graph(), "card.md": b"# made up\n"}
        optional = {"model.int8.onnx": int8, "model.pt2": program}
        return write_archive(path, manifest, members | {key: data for key, data in optional.items() if data}).path

    return pack


@pytest.fixture(scope="session")
def tiny_graph_of_seed() -> Callable[[int], bytes]:
    """Graphs as `pack_archive` packs them, of other weights."""
    return _tiny_graph


@pytest.fixture(scope="session")
def tiny_archive(pack_archive) -> Path:
    """An archive named `tiny` that scores."""
    return pack_archive("tiny")


@pytest.fixture(scope="session")
def both_precisions(pack_archive) -> Path:
    """An archive named `both` with an int8 member, whose scores are others so that it shows which one runs."""
    return pack_archive("both", int8=_tiny_graph(seed=1))


def _red_graph(
    *, side_px: int | None, cells_px: tuple[int, ...], outputs: dict[str, str], metadata: dict[str, str]
) -> bytes:
    """A net of YuNet's shape whose faces are red: each cell of stride 8 scores how red its 64 pixels are on average.

    A cell's box is twice as wide as the cell, its landmarks lie around its middle; coarser strides find nothing.
    """
    strides = (8, 16, 32)
    points = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.75, 0.75]], np.float32)
    constants = {
        "redness": np.array([-1, -1, 1], np.float32).reshape(1, 3, 1, 1) / 255,  # of BGR
        "column": np.array([1, -1, 1], np.int64),
        "bbox": np.array([0.5, 0.5, np.log(2), np.log(2)], np.float32).reshape(1, 1, 4),
        "kps": points.reshape(1, 1, 10),
        "nothing": np.zeros(1, np.float32),
    }
    nodes = [helper.make_node("Conv", ["input", "redness"], ["red"])]
    for stride, cell_px in zip(strides, cells_px, strict=True):
        pool = {"kernel_shape": [cell_px, cell_px], "strides": [cell_px, cell_px]}
        nodes += [
            helper.make_node("AveragePool", ["red"], [f"pool_{stride}"], **pool),
            helper.make_node("Reshape", [f"pool_{stride}", "column"], [f"grid_{stride}"]),
            helper.make_node("Mul", [f"grid_{stride}", "nothing"], [f"zeros_{stride}"]),
            helper.make_node("Add", [f"zeros_{stride}", "bbox"], [f"bbox_{stride}"]),
            helper.make_node("Add", [f"zeros_{stride}", "kps"], [f"kps_{stride}"]),
            *(
                helper.make_node("Identity", [f"{'grid' if stride == 8 else 'zeros'}_{stride}"], [f"{kind}_{stride}"])
                for kind in ("cls", "obj")
            ),
        ]
    named = {f"{kind}_{stride}": width for stride in strides for kind, width in _HEADS.items()}
    nodes += [helper.make_node("Identity", [name], [given]) for name, given in outputs.items()]
    sides = [side_px or "h", side_px or "w"]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])],
        [
            helper.make_tensor_value_info(outputs.get(name, name), TensorProto.FLOAT, [1, f"n_{name}", width])
            for name, width in named.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


_HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


@pytest.fixture(scope="session")
def red_graph() -> Callable[..., bytes]:
    """Build a detector's ONNX file: free size unless `side_px` is given, other cells, outputs renamed, metadata."""

    def build(
        *,
        side_px: int | None = None,
        cells_px: tuple[int, ...] = (8, 16, 32),
        outputs: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> bytes:
        return _red_graph(side_px=side_px, cells_px=cells_px, outputs=outputs or {}, metadata=metadata or {})

    return build


@pytest.fixture(scope="session")
def red_detector(red_graph, tmp_path_factory) -> Path:
    """A detector's file, to be loaded by its path."""
    path = tmp_path_factory.mktemp("detectors") / "red.onnx"
    path.write_bytes(red_graph())
    return path


@pytest.fixture(scope="session")
def face_photo() -> bytes:
    """A JPEG of 512 x 512 pixels with one frontal face."""
    done, encoded = cv2.imencode(".jpg", skimage.data.astronaut()[:, :, ::-1])
    assert done
    return encoded.tobytes()

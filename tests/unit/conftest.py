from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.archive import write_archive
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.recipes.mobilenet import mobilenet

SIDE_PX = 48
WIDTH = 8


def _initialisers():
    rng = np.random.default_rng(0)
    shapes = {
        "stem": (WIDTH, 1, 3, 3),
        "depthwise": (WIDTH, 1, 3, 3),
        "pointwise": (2 * WIDTH, WIDTH, 1, 1),
        "last": (2 * WIDTH, 2 * WIDTH, 1, 1),
    }
    arrays = {f"{name}.weight": rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": rng.normal(size=shape[0]) / 4 for name, shape in shapes.items()}
    arrays |= {"head.weight": rng.normal(size=(len(LABELS), 2 * WIDTH)), "head.bias": np.zeros(len(LABELS))}
    arrays |= {"white": np.float32(127.5), "low": np.float32(0), "high": np.float32(6)}
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    return [*tensors, numpy_helper.from_array(np.asarray([2, 3], np.int64), "axes")]


@pytest.fixture(scope="session")
def conv_graph() -> bytes:
    """uint8 crops (N, 48, 48, 1) to scores (N, 7) by a seeded net of four convolutions, as archives hold one."""
    nodes = [
        helper.make_node("Transpose", ["crops"], ["planes"], "range_0", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["numbers"], "range_1", to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "white"], ["x"], "range_2"),
    ]
    source = "x"
    for name, options in (
        ("stem", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("depthwise", {"group": WIDTH, "pads": [1, 1, 1, 1]}),
        ("pointwise", {}),
        ("last", {}),
    ):
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.sum"], name, **options))
        nodes.append(helper.make_node("Clip", [f"{name}.sum", "low", "high"], [f"{name}.out"], f"{name}.relu6"))
        source = f"{name}.out"
    nodes += [
        helper.make_node("ReduceMean", [source, "axes"], ["features"], "pool", keepdims=0),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], "head", transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "four convolutions",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", SIDE_PX, SIDE_PX, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", len(LABELS)])],
        _initialisers(),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def conv_archive(conv_graph, tmp_path_factory) -> Path:
    """`conv_graph` in an archive that claims the default recipe."""
    spec = PreprocessSpec(size_px=SIDE_PX, channels=1)
    manifest = ArchiveManifest(
        format=FORMAT,
        name="conv",
        version="0.0.1",
        architecture="four convolutions",
        paper="none",
        labels=LABELS,
        preprocess=spec,
        preprocess_sha256=spec.sha256,
        temperature=1.0,
        class_bias=(0.0,) * len(LABELS),
        uncertain_below=0.5,
        recipe_sha256=mobilenet().sha256,
        data=(),
        figures={},
    )
    path = tmp_path_factory.mktemp("archives") / "conv.mar"
    return write_archive(path, manifest, {"model.onnx": conv_graph, "card.md": b"# conv\n"}).path

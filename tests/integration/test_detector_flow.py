"""From folders of pictures to a detector's file and its card, with a teacher that calls bright squares faces."""

import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.detectors.decoding import OUTPUTS
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.training.detector.recipe import View, ferdet
from ferserve.training.detector.run import load_net
from ferserve.training.detector.shipping import ship
from ferserve.training.detector.training import train_detector

CELL_PX = 32
POINTS = (0.3, 0.3, 0.7, 0.3, 0.5, 0.5, 0.3, 0.7, 0.7, 0.7)


def _bright_squares():
    """Each bright cell of stride 32 is a face that fills it; the finer strides see nothing."""
    values = {
        "bbox": np.array([0.5, 0.5, 0, 0], np.float32),
        "kps": np.array(POINTS, np.float32),
        "steep": np.float32(0.2),
        "middle": np.float32(150),
        "never": np.float32(-1000),
        "nothing": np.float32(0),
        "channels": np.array([1], np.int64),
        "column": np.array([1, -1, 1], np.int64),
    }
    nodes, outputs = [], []
    for name, (stride, numbers) in OUTPUTS.items():
        kind = name.split("_")[0]
        sides = [stride, stride]
        mean, cells = f"{name}_mean", f"{name}_cells"
        nodes.append(helper.make_node("AveragePool", ["input"], [f"{name}_pool"], kernel_shape=sides, strides=sides))
        nodes.append(helper.make_node("ReduceMean", [f"{name}_pool", "channels"], [mean]))
        nodes.append(helper.make_node("Reshape", [mean, "column"], [cells]))
        if kind in ("bbox", "kps"):
            nodes.append(helper.make_node("Mul", [cells, "nothing"], [f"{name}_zero"]))
            nodes.append(helper.make_node("Add", [f"{name}_zero", kind], [name]))
        else:
            shift = "middle" if stride == CELL_PX else "never"
            operation = "Sub" if stride == CELL_PX else "Min"
            nodes.append(helper.make_node(operation, [cells, shift], [f"{name}_over"]))
            nodes.append(helper.make_node("Mul", [f"{name}_over", "steep"], [f"{name}_logit"]))
            nodes.append(helper.make_node("Sigmoid", [f"{name}_logit"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 640 * 640 // stride**2, numbers]))
    graph = helper.make_graph(
        nodes,
        "bright squares",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def house(tmp_path):
    """Photos with one square each, crops with one square each, and the teacher."""
    (tmp_path / "photos" / "image").mkdir(parents=True)
    (tmp_path / "lfw" / "someone").mkdir(parents=True)
    lines = []
    for index in range(6):
        photo = np.full((128, 128, 3), 20, np.uint8)
        photo[32:64, 64:96] = 250
        cv2.imwrite(str(tmp_path / "photos" / "image" / f"{index}.png"), photo)
        lines.append(f"{index}.png {index} 32 64 96 64 100 3")
        crop = np.full((112, 112, 3), 20, np.uint8)
        crop[56:73, 56:73] = 250
        cv2.imwrite(str(tmp_path / "lfw" / "someone" / f"{index}.jpg"), crop)
    (tmp_path / "photos" / "label.lst").write_text("\n".join(lines) + "\n")
    onnx.save(_bright_squares(), tmp_path / "teacher.onnx")
    return tmp_path


def _tiny_recipe():
    full = ferdet()
    return replace(
        full,
        views=(View(size_px=64, pictures=2), View(size_px=96, pictures=1)),
        steps_per_epoch=2,
        epochs=2,
        aside_photos=2,
        selection_photos=2,
        precision="fp32",
        scenes=replace(full.scenes, faces_per_source=4),
    )


def test_from_pictures_to_a_detector_with_its_card(house):
    rows = []
    train_detector(
        _tiny_recipe(),
        photos=house / "photos",
        faces={"lfw": house / "lfw"},
        teacher_file=house / "teacher.onnx",
        start_weights=None,
        folder=house / "run",
        device="cpu",
        threads=None,
        workers=2,
        on_step=lambda _done, _loss: None,
        on_epoch=rows.append,
    )
    assert [row.epoch for row in rows] == [1, 2]
    facts = json.loads((house / "run" / "sources.json").read_text())
    assert facts["photos"] == {"fit": 2, "selection": 2, "aside": 2}
    # The other four have the names of photos that nothing may be learnt from.
    assert facts["crops"] == 2
    assert load_net(house / "run")[2] == 2

    shipped, report = ship(
        house / "run",
        photos=house / "photos",
        teacher_file=house / "teacher.onnx",
        faces={},
        folder=house / "out",
    )
    assert list(report.detectors) == ["ferdet", "haar", "teacher"]
    assert report.photos == 2
    teacher = report.detectors["teacher"]
    assert (teacher.labelled.recall, teacher.labelled.unmatched_per_photo) == (1.0, 0.0)
    assert teacher.teacher.landmark_error == 0.0
    assert teacher.crops_with_face == 0
    assert OnnxDetector.from_file(shipped.path, name="made-up").detect(np.zeros((64, 64, 3), np.uint8)) == []
    figures = json.loads((house / "out" / "ferdet.json").read_text())
    assert figures["recipe_sha256"] == _tiny_recipe().sha256
    assert (house / "out" / "ferdet.md").read_text().startswith("# ferdet 1.1.0")

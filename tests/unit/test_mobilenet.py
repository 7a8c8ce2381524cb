import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from ferserve.faces.errors import ArchiveError
from ferserve.training.models.mobilenet import BLOCKS, MobileNetV1, same_padding
from ferserve.training.pretrained import HALF_RANGE, load_faceres, read_tfjs_weights, refit_batch_norm


@pytest.mark.parametrize(
    ("size", "stride", "expected"), [(96, 2, (0, 1)), (3, 2, (1, 1)), (48, 1, (1, 1)), (5, 2, (1, 1)), (6, 2, (0, 1))]
)
def test_same_padding_is_tensorflows(size, stride, expected):
    assert same_padding(size, 3, stride) == expected


def test_has_mobilenets_size_and_shapes():
    net = MobileNetV1().eval()
    convolutions = sum(p.numel() for name, p in net.named_parameters() if name.endswith("conv.weight"))
    # Howard et al. 2017, Table 1, with a grey stem: 3.2 M parameters before the classifier.
    widths = [32, *(width for width, _ in BLOCKS)]
    expected = 9 * 32 + sum(9 * i + i * o for i, o in pairwise(widths))
    assert convolutions == expected
    logits, features = net(torch.zeros(2, 1, 48, 48))
    assert logits.shape == (2, 7)
    assert features.shape == (2, 1024)


def _random_source(folder, rng):
    """A made-up model in TensorFlow.js's layout: the names and shapes of the real one, random values."""
    entries = [("conv1/convolution/merged_input", (3, 3, 3, 32)), ("conv1_bn/batchnorm_1/sub", (32,))]
    inputs = 32
    for number, (outputs, _) in enumerate(BLOCKS, start=1):
        entries += [
            (f"conv_dw_{number}/depthwise_kernel", (3, 3, inputs, 1)),
            (f"conv_dw_{number}_bn/batchnorm_1/mul", (inputs,)),
            (f"conv_dw_{number}_bn/batchnorm_1/sub", (inputs,)),
            (f"conv_pw_{number}/convolution/merged_input", (1, 1, inputs, outputs)),
            (f"conv_pw_{number}_bn/batchnorm_1/sub", (outputs,)),
        ]
        inputs = outputs
    arrays = []
    for name, shape in entries:
        fan_in = np.prod(shape[:-1]) if "merged" in name else 9
        scale = 1.0 if name.endswith(("mul", "sub")) else np.sqrt(2.0 / fan_in)
        arrays.append((rng.normal(size=shape) * scale).astype("<f4"))
    arrays[0] /= 255
    weights = [{"name": n, "shape": list(s), "dtype": "float32"} for n, s in entries]
    (folder / "model.bin").write_bytes(b"".join(a.tobytes() for a in arrays))
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": ["model.bin"], "weights": weights}]}))
    return folder / "model.json", dict(zip((n for n, _ in entries), arrays, strict=True))


def test_import_computes_what_the_source_does(tmp_path):
    path, tensors = _random_source(tmp_path, np.random.default_rng(0))
    net = MobileNetV1().eval()
    load_faceres(net, path)
    grey = torch.rand(1, 1, 16, 16) * 2 - 1
    ours = net.stem(grey)
    # The source: three equal channels of 0 to 255, SAME padding at stride 2, a shift, ReLU6.
    kernel = torch.from_numpy(tensors["conv1/convolution/merged_input"].transpose(3, 2, 0, 1).copy())
    picture = (grey * HALF_RANGE + HALF_RANGE).expand(1, 3, 16, 16)
    shift = torch.from_numpy(tensors["conv1_bn/batchnorm_1/sub"].copy())
    theirs = torch.nn.functional.conv2d(picture, kernel, shift, stride=2).clamp(0, 6)
    assert torch.allclose(ours[:, :, :7, :7], theirs, atol=1e-4)


def test_refit_keeps_the_function_and_whitens_the_norms(tmp_path):
    path, _ = _random_source(tmp_path, np.random.default_rng(1))
    net = MobileNetV1().eval()
    load_faceres(net, path)
    faces = torch.rand(8, 1, 48, 48) * 2 - 1
    before = net.features(faces)
    refit_batch_norm(net, [faces[:4], faces[4:]])
    assert torch.allclose(net.features(faces), before, rtol=1e-3, atol=1e-3)
    net.train()
    # With the batch's own statistics the function is the same too, up to the unbiased variance.
    assert torch.allclose(net.features(faces), before, rtol=0.05, atol=0.05)


def test_folding_norms_keeps_the_function():
    torch.manual_seed(0)
    net = MobileNetV1()
    net(torch.rand(4, 1, 48, 48))
    net.eval()
    faces = torch.rand(2, 1, 48, 48)
    before = net(faces)[0]
    net.fold_norms()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    assert torch.allclose(net(faces)[0], before, atol=1e-5)


def test_missing_and_short_weight_files_are_named(tmp_path):
    with pytest.raises(ArchiveError, match=r"nothing\.json"):
        read_tfjs_weights(tmp_path / "nothing.json")
    path, _ = _random_source(tmp_path, np.random.default_rng(2))
    raw = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(raw[:-4])
    with pytest.raises(ArchiveError, match="ends past"):
        read_tfjs_weights(path)
    (tmp_path / "model.bin").write_bytes(raw + b"1234")
    with pytest.raises(ArchiveError, match="announces"):
        read_tfjs_weights(path)

import io

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.archive import PROGRAM
from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import open_archive
from ferserve.training.cli.inside import inside
from ferserve.training.data.errors import DataError
from ferserve.training.inside.deconvnet import Selection, layers_of, look
from ferserve.training.inside.nets import open_net
from ferserve.training.inside.sheets import contrast, strongest_maps
from ferserve.training.models.alexnet import CaffeNet
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.net_b import MfmConv, NetB
from ferserve.training.models.resnet import TransferResNet


class Tiny(ExpressionNet):
    """Two convolutions, each rectified, a 2x2 max pool between them where asked for."""

    groups = (("conv1",), ("conv2",))
    num_features = 1

    def __init__(self, first, second, *, pooled=False, biases=(0.0, 0.0)):
        super().__init__()
        for name, kernel, bias in (("conv1", first, biases[0]), ("conv2", second, biases[1])):
            weight = torch.tensor(kernel, dtype=torch.float32)
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
            conv.weight = nn.Parameter(weight)
            nn.init.constant_(conv.bias, bias)
            self.add_module(name, conv)
        self.pooled = pooled

    def forward(self, x):
        x = F.relu(self.conv1(x), inplace=True)
        x = F.relu(self.conv2(F.max_pool2d(x, 2) if self.pooled else x))
        return x.mean((2, 3)), x.mean((2, 3))


def one(*values):
    return torch.tensor([values], dtype=torch.float32)[None]


def test_a_maximum_returns_to_its_place_through_transposed_filters():
    # conv1 adds each pixel and the one below right of it: [[4, 3], [0, 2]]; the pool takes the 4 at the top left;
    # conv2 makes 2 * 4 + 1 = 9 and -4 + 1, rectified 0. Down: 9 * 2 = 18 (no bias) to the top left, then to both
    # pixels that made it.
    net = Tiny([[[[1, 0], [0, 1]]]], [[[[2]]], [[[-1]]]], pooled=True, biases=(0.0, 1.0))
    seen = look(net, one((1, 2, 0), (0, 3, 1), (4, 0, -1)))
    assert seen.maps["conv1"].flatten().tolist() == [4, 3, 0, 2]
    assert seen.maps["conv2"].flatten().tolist() == [9, 0]
    assert seen.reconstruct("conv2")[0, 0].tolist() == [[18, 0, 0], [0, 18, 0], [0, 0, 0]]
    assert not seen.reconstruct("conv2", Selection(map=1)).any()


def test_a_layer_comes_down_whole_or_by_its_strongest_activations():
    net = Tiny([[[[1, 0], [0, 1]]]], [[[[1]]]])
    seen = look(net, one((1, 2, 0), (0, 3, 1), (4, 0, -1)))
    assert seen.reconstruct("conv1")[0, 0].tolist() == [[4, 3, 0], [0, 6, 3], [0, 0, 2]]
    assert seen.reconstruct("conv1", Selection(top=1))[0, 0].tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 0]]
    assert seen.reconstruct("conv1", Selection(top=2))[0, 0].tolist() == [[4, 3, 0], [0, 4, 3], [0, 0, 0]]
    assert torch.equal(seen.reconstruct("conv1", Selection(top=99)), seen.reconstruct("conv1"))


def test_top_counts_in_every_map_and_a_single_map_is_taken_alone():
    net = Tiny([[[[1]]], [[[2]]]], [[[[1]], [[1]]]])
    seen = look(net, one((1, 2)))
    # Maps (1, 2) and (2, 4): their strongest are 2 and 4, both in the second pixel, brought down by 1 and by 2.
    assert seen.reconstruct("conv1", Selection(top=1))[0, 0].tolist() == [[0, 10]]
    assert seen.reconstruct("conv1", Selection(map=1))[0, 0].tolist() == [[4, 8]]
    assert seen.reconstruct("conv1", Selection(map=0, top=1))[0, 0].tolist() == [[0, 2]]


def test_rectifiers_keep_what_is_positive_on_the_way_down_and_nothing_else():
    # x = 3 makes (3, -3), rectified (3, 0), and 1 * 3 + 1 * 0 = 3. Down (3, 3): both positive, though the second was
    # not on the way up, and 3 * 1 + 3 * -1 = 0, where the derivative would be 3.
    sums = Tiny([[[[1]]], [[[-1]]]], [[[[1]], [[1]]]])
    assert look(sums, one((3,))).reconstruct("conv2").item() == 0
    # With 1 * 3 - 2 * 0 = 3 the way down is (3, -6), rectified (3, 0), and 3.
    differs = Tiny([[[[1]]], [[[-1]]]], [[[[1]], [[-2]]]])
    assert look(differs, one((3,))).reconstruct("conv2").item() == 3


def test_what_is_recorded_is_what_the_net_computes():
    torch.manual_seed(0)
    net = TransferResNet((1, 1, 1, 1)).eval()
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    expected = {}

    def keep(layer):
        return lambda _module, _inputs, output: expected.update({layer: output.clone()})

    assert layers_of(net) == ("conv1", "layer1", "layer2", "layer3", "layer4")
    hooks = [net.get_submodule(group[-1]).register_forward_hook(keep(group[0])) for group in net.groups]
    with torch.no_grad():
        net(x)
    for handle in hooks:
        handle.remove()
    seen = look(net, x)
    for layer, maps in expected.items():
        assert seen.maps[layer].numpy() == pytest.approx(maps.clamp(min=0).numpy(), abs=1e-5)
        down = seen.reconstruct(layer)
        assert down.shape == x.shape
        assert down.isfinite().all()
    assert not any(parameter.grad is not None for parameter in net.parameters())


def _unpool(down, like, indices):
    """Where windows overlap in a maximum, what comes down to it adds up."""
    flat = torch.zeros_like(like).flatten(2)
    return flat.scatter_add(2, indices.flatten(2), down.flatten(2)).view_as(like)


def test_caffenet_comes_down_as_layer_by_layer():
    torch.manual_seed(1)
    # In float64: two pixels that float32 cannot tell apart may be another maximum in another order of sums.
    net = CaffeNet(size_px=64, stem_stride=2).double().eval()
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64) * 2 - 1
    lrn = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    with torch.no_grad():
        one_up = F.relu(net.conv1(x))
        pooled1, switches1 = F.max_pool2d(one_up, 3, 2, return_indices=True)
        two_up = F.relu(net.conv2(F.local_response_norm(pooled1, **lrn)))
        pooled2, switches2 = F.max_pool2d(two_up, 3, 2, return_indices=True)
        three_up = F.relu(net.conv3(F.local_response_norm(pooled2, **lrn)))
        down = F.conv_transpose2d(three_up, net.conv3.weight, padding=1)
        down = _unpool(down, two_up, switches2).clamp(min=0)
        down = F.conv_transpose2d(down, net.conv2.weight, padding=2, groups=2)
        down = _unpool(down, one_up, switches1).clamp(min=0)
        down = F.conv_transpose2d(down, net.conv1.weight, stride=2, output_padding=1)
    assert layers_of(net) == ("conv1", "conv2", "conv3", "conv4", "conv5")
    found = look(net, x).reconstruct("conv3")
    assert found.numpy() == pytest.approx(down.numpy(), rel=1e-9, abs=1e-9)


class Halves(ExpressionNet):
    groups = (("conv1",),)
    num_features = 1

    def __init__(self, weights, biases):
        super().__init__()
        self.conv1 = MfmConv(1, 1, kernel=1)
        self.conv1.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32).view(2, 1, 1, 1))
        self.conv1.bias = nn.Parameter(torch.tensor(biases, dtype=torch.float32))

    def forward(self, x):
        return self.conv1(x), x


def test_the_larger_half_is_a_switch_and_the_first_one_on_a_tie():
    assert look(Halves([1, -3], [0, 0]), one((2, -2))).reconstruct("conv1")[0, 0].tolist() == [[2, -18]]
    # Both halves are 5: all of it goes down the first, by its weight 1, where a derivative would halve it.
    assert look(Halves([1, 2], [4, 3]), one((1,))).reconstruct("conv1").item() == 5


def test_net_b_keeps_its_negative_activations():
    torch.manual_seed(0)
    seen = look(NetB(size_px=32), torch.rand(1, 1, 32, 32) * 2 - 1)
    assert list(seen.maps) == ["conv1", "group2", "group3", "group4", "group5"]
    assert (seen.maps["group5"] < 0).any()
    assert seen.reconstruct("group5", Selection(top=1)).abs().max() > 0


def test_norms_come_down_as_part_of_their_filters():
    torch.manual_seed(0)
    net = MobileNetV1().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.0, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    x = torch.rand(1, 1, 32, 32, dtype=torch.float64) * 2 - 1
    before = look(net, x).reconstruct("blocks.2")
    net.fold_norms()
    after = look(net, x).reconstruct("blocks.2")
    assert after.numpy() == pytest.approx(before.numpy(), rel=1e-6, abs=1e-9)


def test_what_is_not_there_is_named():
    seen = look(Tiny([[[[1]]]], [[[[1]]]]), one((1, 2)))
    with pytest.raises(DataError, match="layer: expected one of conv1, conv2, got 'conv3'"):
        seen.reconstruct("conv3")
    with pytest.raises(DataError, match="map: expected 0 to 0 of this layer, got 1"):
        seen.reconstruct("conv1", Selection(map=1))
    with pytest.raises(ValueError, match="top: expected 1 or more activations, got 0"):
        Selection(top=0)


def test_a_picture_of_a_reconstruction_has_nothing_at_mid_grey():
    down = np.zeros((1, 10, 20), np.float32)
    down[0, 0, 0], down[0, 9] = -8.0, 4.0
    drawn = contrast(down)
    assert drawn.shape == (10, 20)
    assert (drawn[5, 5], drawn[0, 0]) == (0.5, 0.0)
    assert drawn[9, 0] == pytest.approx(1.0, abs=0.01)
    assert (contrast(np.zeros((3, 4, 4), np.float32)) == 0.5).all()
    assert strongest_maps(torch.tensor([[[1.0]], [[3.0]], [[2.0]]]), 2) == [1, 2]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    cv2.imwrite(str(path), skimage.data.astronaut()[:, :, ::-1])
    return path


def run(*arguments):
    app = Typer()
    app.add_typer(inside, name="inside")
    return CliRunner().invoke(app, ["inside", *map(str, arguments)])


def test_an_archive_is_read_back_into_a_net():
    opened, archive = open_net("default"), open_archive("default")
    program = torch.export.load(io.BytesIO(archive.read(PROGRAM))).module()
    crops = torch.randint(0, 255, (2, 48, 48, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(crops.permute(0, 3, 1, 2) / 127.5 - 1.0, size=(128, 128), mode="bilinear")
    with torch.no_grad():
        logits, _ = opened.net(x)
        bias = torch.tensor(archive.manifest.class_bias)
        scores = torch.softmax(logits / archive.manifest.temperature + bias, dim=1)
        assert scores.numpy() == pytest.approx(program(crops).numpy(), abs=1e-3)
    assert (opened.name, opened.sha256) == ("mobilenet", archive.sha256)


def test_an_archive_without_a_program_is_refused(conv_archive):
    with pytest.raises(ArchiveError, match=r"expected a member model\.pt2"):
        open_net(str(conv_archive))


def test_a_sheet_and_a_map_are_drawn_by_command(photo, tmp_path):
    sheet, heat = tmp_path / "sheet.png", tmp_path / "map.png"
    flags = [
        "--layer",
        "stem",
        "--layer",
        "blocks.4",
        "--map",
        6,
        "--top",
        3,
        "--cover",
        "eyes",
        "--shrink",
        "--out",
        sheet,
    ]
    outcome = run("deconvnet", "default", photo, *flags)
    assert outcome.exit_code == 0, outcome.output
    # The face, all maps, the top 3 of each, map 6 whole and by its top 3: five tiles in two rows.
    height, width = cv2.imread(str(sheet)).shape[:2]
    assert (width, height) == (round(5 * 1.35 * 100), round((2 * 1.65 + 0.4) * 100))
    assert run("map", "default", photo, "--grid", 3, "--out", heat).exit_code == 0
    assert cv2.imread(str(heat)) is not None


def test_a_wrong_layer_or_part_and_a_picture_without_a_face_are_explained(photo, tmp_path):
    layer = run("deconvnet", "default", photo, "--layer", "conv9", "--out", tmp_path / "x.png")
    assert "layer: expected one of stem, blocks.0" in str(layer.exception)
    part = run("deconvnet", "default", photo, "--cover", "ears", "--out", tmp_path / "x.png")
    assert "--cover: expected one of none, cheeks and forehead, eyes" in str(part.exception)
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((64, 64, 3), 127, np.uint8))
    nobody = run("map", "default", empty, "--out", tmp_path / "x.png")
    assert "expected a picture with a face, found none; --whole takes the picture as a face" in str(nobody.exception)
    assert not (tmp_path / "x.png").exists()

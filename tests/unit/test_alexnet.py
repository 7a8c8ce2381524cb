"""S3's nets: local response normalisation by hand, CaffeNet's sizes, attribute heads, Caffe's weights by name."""

import pytest
import torch

from ferserve.training.data.errors import DataError
from ferserve.training.losses.hinge import attribute_hinge
from ferserve.training.models.alexnet import AttributeCaffeNet, CaffeNet, local_response_norm, pooled_px
from ferserve.training.start_weights import load_run_weights, load_state_dict_file


def test_local_response_norm_by_hand():
    x = torch.tensor([1.0, 2.0, 0.0, 3.0, 50.0]).view(1, 5, 1, 1)
    # Channel 0 sees 0 to 2, channel 2 all five, channel 4 the last three.
    sums = [1 + 4, 1 + 4 + 9, 1 + 4 + 9 + 2500, 4 + 9 + 2500, 9 + 2500]
    expected = [a / (1 + 1e-4 / 5 * total) ** 0.75 for a, total in zip((1, 2, 0, 3, 50), sums, strict=True)]
    assert local_response_norm(x).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_sizes_are_the_papers():
    assert pooled_px(227) == 6
    with torch.device("meta"):
        net = CaffeNet(size_px=227, in_channels=3, num_classes=8)
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in net.named_children()}
    # BVLC's own counts of its convolutions.
    assert counts["conv1"] == 96 * 3 * 121 + 96 == 34_944
    assert counts["conv2"] == 256 * 48 * 25 + 256 == 307_456
    assert counts["conv3"] == 384 * 256 * 9 + 384 == 885_120
    assert counts["conv4"] == 384 * 192 * 9 + 384 == 663_936
    assert counts["conv5"] == 256 * 192 * 9 + 256 == 442_624
    assert counts["fc6"] == 9216 * 128 + 128
    assert counts["fc7"] == 128 * 8 + 8
    maps = net.feature_map(torch.zeros(1, 3, 227, 227, device="meta"))
    assert maps.shape == (1, 256, 6, 6)


def test_without_conv5_the_pool_stays():
    net = CaffeNet(size_px=96, layers=4).eval()
    assert not hasattr(net, "conv5")
    assert [conv for conv, _ in net.groups] == ["conv1", "conv2", "conv3", "conv4"]
    faces = torch.rand(2, 1, 96, 96)
    assert net.feature_map(faces).shape == (2, 384, 1, 1)
    assert net(faces)[0].shape == (2, 7)


def test_too_small_faces_are_refused():
    with pytest.raises(ValueError, match="48 px leave nothing behind the last pool at stride 4"):
        CaffeNet(size_px=48)


def test_attribute_heads_are_apart():
    net = AttributeCaffeNet(size_px=96, num_classes=12).eval()
    faces = torch.rand(2, 1, 96, 96)
    logits, features = net(faces)
    assert (logits.shape, features.shape) == ((2, 12, 2), (2, 12 * 128))
    logits[:, 3].sum().backward()
    assert net.heads[3][0].weight.grad.abs().max() > 0
    assert net.heads[4][0].weight.grad.abs().max() == 0


def test_hinge_by_hand():
    # Face 0 is of class 1: 1 - 0.5 for class 0, nothing for class 1. Face 1, of class 0, is between: 1 + 1.
    logits = torch.tensor([[[-0.5, 2.0]], [[0.0, 0.0]]], requires_grad=True)
    value = attribute_hinge(logits, torch.tensor([[1], [0]]))
    assert value.item() == pytest.approx((0.5 + 2.0) / 2)
    value.backward()
    assert logits.grad.flatten().tolist() == [0.5, 0.0, -0.5, 0.5]


def test_attribute_convolutions_go_over_to_expressions():
    source, net = AttributeCaffeNet(size_px=96, num_classes=12), CaffeNet(size_px=96)
    load_run_weights(net, source.state_dict(), "a run")
    assert torch.equal(net.conv5.weight, source.conv5.weight)
    four = CaffeNet(size_px=96, layers=4)
    head = four.fc6.weight.clone()
    load_run_weights(four, source.state_dict(), "a run")
    assert torch.equal(four.conv4.weight, source.conv4.weight)
    assert torch.equal(four.fc6.weight, head)
    with pytest.raises(DataError, match=r"with conv1\.weight \(96, 1, 11, 11\); in a run it is \(96, 3, 11, 11\)"):
        load_run_weights(net, CaffeNet(size_px=96, in_channels=3).state_dict(), "a run")


@torch.no_grad()
def test_caffes_weights_load_by_name(tmp_path):
    """Blue first, the mean colour taken off, fc6 to fc8 of another width."""
    generator = torch.Generator().manual_seed(0)
    state = {name: value for name, value in CaffeNet(size_px=96).state_dict().items() if name.startswith("conv")}
    state["conv1.weight"] = torch.randn(96, 3, 11, 11, generator=generator) / 1000
    state |= {"fc6.weight": torch.zeros(4096, 9216), "fc6.bias": torch.zeros(4096), "fc8.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "caffenet.pth")
    net = CaffeNet(size_px=96, in_channels=3).eval()
    load_state_dict_file(net, tmp_path / "caffenet.pth", "caffenet")
    rgb = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    pixels = (rgb * 127.5 + 127.5).flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    theirs = torch.nn.functional.conv2d(pixels, state["conv1.weight"], state["conv1.bias"], stride=4)
    assert torch.allclose(net.conv1(rgb), theirs, atol=1e-4)

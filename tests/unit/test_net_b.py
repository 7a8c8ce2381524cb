"""S1's and S2's nets: Max-Feature-Map and DAL by hand, Net B's sizes, its three readings."""

import pytest
import torch

from ferserve.training.models.net_b import MfmConv, NetB, max_feature_map


def test_max_feature_map_by_hand():
    x = torch.tensor([[1.0, 5.0, 4.0, 2.0]])
    # Halves (1, 5) and (4, 2).
    assert max_feature_map(x).tolist() == [[4.0, 5.0]]
    maps = torch.tensor([[[[1.0]], [[-3.0]]]])
    assert max_feature_map(maps).tolist() == [[[[1.0]]]]


def test_an_mfm_convolution_is_the_larger_of_two():
    conv = MfmConv(1, 1, kernel=1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        conv.bias.copy_(torch.tensor([0.0, 1.0]))
    # max(2 x, 1 - x)
    assert conv(torch.tensor([[[[3.0, -3.0]]]])).tolist() == [[[[6.0, 4.0]]]]


def _with_head(dal, weights):
    """A net whose features are those weights times one: two groups of one matrix, set by hand."""
    net = NetB(dal, size_px=16).eval()
    with torch.no_grad():
        net.fc1.weight.zero_()
        net.fc1.bias.copy_(weights)
    return net


@pytest.mark.parametrize(("dal", "features"), [("none", 256), ("groups", 256), ("wide", 512), ("maps", 256)])
def test_dal_by_hand(dal, features):
    # First group -1, second group -2 but for the first feature, where it is 3.
    bias = torch.cat((torch.full((features,), -1.0), torch.full((features,), -2.0)))
    bias[features] = 3.0
    feat = _with_head(dal, bias).features(torch.zeros(1, 1, 16, 16))[0]
    assert feat.shape == (features,)
    assert feat[0] == 3.0
    # Net B keeps the maximum, DAL rectifies it.
    assert feat[1] == (0.0 if dal in {"groups", "wide"} else -1.0)


def test_the_reading_by_maps_rectifies_the_last_convolution():
    net, plain = NetB("maps", size_px=16).eval(), NetB(size_px=16).eval()
    plain.load_state_dict(net.state_dict())
    with torch.no_grad():
        for other in (net, plain):
            other.group5[1].weight.zero_()
            other.group5[1].bias.fill_(-1.0)
    faces = torch.zeros(1, 1, 16, 16)
    bias = max_feature_map(net.fc1.bias[None])
    assert torch.allclose(net.features(faces), bias)
    assert torch.allclose(
        plain.features(faces), max_feature_map((net.fc1.bias - net.fc1.weight.sum(dim=1))[None]), atol=1e-5
    )


def test_has_the_papers_widths_and_count():
    with torch.device("meta"):
        net = NetB("groups", size_px=144)
    # S2's Table 1, before the max: 96, 192, 384, 384, 256, then 512 and 7.
    names = ("conv1", "group2.1", "group3.1", "group4.1", "group5.1")
    assert [net.get_submodule(name).out_channels for name in names] == [96, 192, 384, 384, 256]
    assert [net.get_submodule(f"group{number}.0").out_channels for number in range(2, 6)] == [96, 192, 384, 384]
    assert net.fc1.in_features == 128 * 9 * 9
    assert (net.fc1.out_features, net.fc2.out_features) == (512, 7)
    weights = (
        25 * 96 + 48 * 96 + 9 * 48 * 192 + 96 * 192 + 9 * 96 * 384 + 192 * 384 + 9 * 192 * 384 + 192 * 384
        + 9 * 192 * 256 + 10368 * 512 + 256 * 7
    )  # fmt: skip
    biases = 96 + 96 + 192 + 192 + 384 + 384 + 384 + 384 + 256 + 512 + 7
    assert sum(parameter.numel() for parameter in net.parameters()) == weights + biases


def test_shapes_and_refused_sizes():
    logits, features = NetB("groups", size_px=64).eval()(torch.zeros(3, 1, 64, 64))
    assert (logits.shape, features.shape) == ((3, 7), (3, 256))
    with pytest.raises(ValueError, match="size_px: expected a multiple of 16, got 50"):
        NetB(size_px=50)

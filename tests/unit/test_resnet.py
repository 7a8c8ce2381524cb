"""S5's nets: the attention block by hand, shapes and sizes, start weights in torchvision's layout."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ferserve.training.data.errors import DataError
from ferserve.training.freezing import freeze, train_mode
from ferserve.training.models.attention import SelfAttention
from ferserve.training.models.resnet import RESNET_152, Bottleneck, TransferResNet
from ferserve.training.recipes.transfer_resnet import transfer_resnet50, transfer_resnet50_imagenet
from ferserve.training.start_weights import load_state_dict_file


def test_attention_by_hand():
    block = SelfAttention(2)
    with torch.no_grad():
        block.query.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    # Two positions: (1, 0) and (3, 8). Their mean is (2, 4), so the query is (tanh 2, 0).
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    query = math.tanh(2.0)
    odds = math.exp((3 * query - 1 * query) / math.sqrt(2))
    second = odds / (1 + odds)
    assert block.weights(features)[0].tolist() == pytest.approx([1 - second, second])
    assert block(features)[0].tolist() == pytest.approx([1 + 2 * second, 8 * second])


def test_attention_starts_as_average_pooling_and_can_learn():
    block = SelfAttention(3)
    features = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(block(features), features.mean(dim=(2, 3)), atol=1e-6)
    block(features).square().sum().backward()
    assert block.query.weight.grad.abs().max() > 0


def test_a_bottleneck_starts_as_its_shortcut():
    block = Bottleneck(8, 2, stride=1)
    nn.init.zeros_(block.bn3.weight)
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("depths", "parameters"),
    # He et al.'s 25,557,032 and 60,192,808 with 1,000 classes, as torchvision counts them.
    [((3, 4, 6, 3), 25_557_032), (RESNET_152, 60_192_808)],
)
def test_has_resnets_size(depths, parameters):
    with torch.device("meta"):
        net = TransferResNet(depths, in_channels=3, num_classes=1000)
    attention = sum(parameter.numel() for parameter in net.attention.parameters())
    assert sum(parameter.numel() for parameter in net.parameters()) - attention == parameters
    assert attention == 2048 * 2048 + 2048


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = TransferResNet()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@torch.no_grad()
def test_shapes_and_folding(net):
    faces = torch.rand(2, 1, 64, 64) * 2 - 1
    logits, features = net(faces)
    assert logits.shape == (2, 7)
    assert features.shape == (2, net.num_features)
    assert net.feature_map(faces).shape == (2, 2048, 2, 2)
    folded = TransferResNet().eval()
    folded.load_state_dict(net.state_dict())
    folded.fold_norms()
    folded.fold_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(faces)[1], features, rtol=1e-3, atol=1e-3)


def _source(net, path):
    """A state dict as torchvision writes it, of a net that takes normalised RGB."""
    state = {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("attention")}
    state["conv1.weight"] = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(1)) / 20
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return state


@torch.no_grad()
def test_start_weights_compute_what_their_source_does(net, tmp_path):
    source = _source(net, tmp_path / "resnet50.pth")
    ours = TransferResNet().eval()
    load_state_dict_file(ours, tmp_path / "resnet50.pth", "imagenet")
    grey = torch.rand(1, 1, 32, 32) * 2 - 1
    pixels = (grey * 127.5 + 127.5).expand(1, 3, 32, 32)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
    theirs = nn.functional.conv2d((pixels - mean) / std, source["conv1.weight"], stride=2, padding=3)
    norm = [source[f"bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    expected = nn.functional.batch_norm(theirs, *norm)
    # Inside: at the border the source pads with its mean.
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(ours.bn1(ours.conv1(grey))[inside], expected[inside], atol=1e-3)
    assert torch.equal(ours.layer4[2].conv2.weight, net.layer4[2].conv2.weight)
    assert ours.fc.weight.abs().max() > 0


def test_start_weights_of_another_net_are_refused(net, tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(DataError, match="expected a file with a state dict, found none"):
        load_state_dict_file(net, path, "imagenet")
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no file of torch\.save with tensors alone"):
        load_state_dict_file(net, path, "imagenet")
    source = _source(net, path)
    torch.save({name: value for name, value in source.items() if name != "layer3.5.conv2.weight"}, path)
    with pytest.raises(DataError, match=r"with layer3\.5\.conv2\.weight .* it is missing"):
        load_state_dict_file(net, path, "imagenet")
    torch.save(source | {"layer1.0.conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"with layer1\.0\.conv1\.weight .* it is \(3,\)"):
        load_state_dict_file(net, path, "imagenet")


def test_the_papers_recipe_trains_its_three_parts_alone():
    net = TransferResNet()
    freeze(net, transfer_resnet50_imagenet())
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {
        "layer4.2.conv2.weight", "layer4.2.conv3.weight",
        "attention.query.weight", "attention.query.bias", "fc.weight", "fc.bias",
    }  # fmt: skip
    train_mode(net)
    assert net.layer4[2].conv2.training
    assert not any(module.training for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    assert net.dropout.training


def test_frozen_groups_are_frozen_from_the_input_on():
    net = TransferResNet()
    freeze(net, replace(transfer_resnet50(), frozen_groups=2))
    frozen = {name.split(".")[0] for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    train_mode(net)
    assert not net.bn1.training
    assert net.layer2[0].bn1.training


def test_parts_that_are_not_there_are_named():
    with pytest.raises(DataError, match="frozen_groups: expected 0 to 5 of transfer_resnet50, got 6"):
        freeze(TransferResNet(), replace(transfer_resnet50(), frozen_groups=6))
    with pytest.raises(DataError, match="trained: expected names of parts of transfer_resnet50, got layer5"):
        freeze(TransferResNet(), replace(transfer_resnet50(), trained=("layer5", "fc")))

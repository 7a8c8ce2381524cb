"""S5: the TransFER ResNets."""

from ferserve.training.ledger.claim import NOT_TRAINED, Claim, OnSplit


def claims() -> tuple[Claim, ...]:
    """In the order of the page."""
    weights = "ImageNet's weights are not to be had here; the recipe takes them as a state dict"
    own = "random weights and four face nets' scores instead of VGG-Face; all of the net trained, 64 px"
    return (
        Claim(
            system="S5", what="ResNet-50, ImageNet", where="Table 1", value=33.46,
            evidence=OnSplit(archives=("transfer-resnet50-imagenet",)), why_not=weights,
        ),
        Claim(
            system="S5", what="ResNet-152, ImageNet", where="Table 1", value=35.7,
            evidence=OnSplit(archives=("transfer-resnet152-imagenet",)), why_not=weights,
        ),
        Claim(
            system="S5", what="ResNet-50, VGG-Face", where="Table 1", value=56.21,
            evidence=OnSplit(archives=("transfer-resnet50",)), why_not=NOT_TRAINED, note=own,
        ),
        Claim(
            system="S5", what="ResNet-152, VGG-Face", where="Table 1", value=57.8,
            evidence=OnSplit(archives=("transfer-resnet152", "transfer-resnet152-vggface2")),
            why_not="needs a GPU: `ferserve train transfer-resnet152 --device cuda`", note=own,
        ),
    )  # fmt: skip

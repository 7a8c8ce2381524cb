"""What the five papers claim, in the order of the page.

A claim that nothing is measured against yet says why; a result file that fits takes the reason's place.
"""

from typing import Final

from ferserve.training.ledger.claim import Claim
from ferserve.training.ledger.papers import alexnet, beyond, dal_net, mobilenet, net_b, transfer_resnet

SYSTEMS: Final = {
    "S1": "S1 Net B, Net B + DAL, Net B + DAL + Softmax-MSE (Zhai et al., Deep Convolutional Neural Network for FER)",
    "S2": "S2 DAL-Net with active incremental learning (Xu et al., Weakly Supervised FER Via Transferred DAL-CNN)",
    "S3": "S3 dual transfer AlexNet (Lin et al. 2020)",
    "S4": "S4 real-time MobileNet (Miao et al. 2019)",
    "S5": "S5 TransFER, ResNet with self-attention (Gupta et al. 2020)",
    "Beyond": "Beyond the papers: what this project asks of itself",
}

CLAIMS: Final[tuple[Claim, ...]] = (
    *net_b.claims(),
    *dal_net.claims(),
    *alexnet.claims(),
    *mobilenet.claims(),
    *transfer_resnet.claims(),
    *beyond.claims(),
)

"""S5's TransFER (Gupta, Swaminathan, Balakrishnan 2020) on FER-2013: the recipe that two cores can run, and theirs."""

from dataclasses import replace

from ferserve.training.recipe import Optimisation, Phase, Recipe, Schedule
from ferserve.training.recipes.mobilenet import CROPS
from ferserve.training.recipes.net_b import MIRRORED, PLAIN, TAUGHT, VARIED

PAPER = "Gupta, Swaminathan, Balakrishnan 2020: TransFER, Deep Inductive Network for Facial Emotion Recognition"


def transfer_resnet50() -> Recipe:
    """ResNet-50 with self-attention from random weights, on FER-2013's labels and teachers' scores.

    Needs a `--teacher`, better four (`mobilenet-teacher`), and in practice a GPU. Differs from the paper: its ImageNet
    and VGGFace weights are not to be had here, so all of the net is trained, and what a face net knows comes from the
    teachers' scores instead; FERPlus's votes for a head of their own (docs/adr/0010); 64 px; Adam, a cosine and an
    average of weights in place of the plateau and the early stop; more views than mirroring.
    """
    return Recipe(
        name="transfer-resnet50",
        version="1.0.0",
        architecture="transfer_resnet50",
        paper=PAPER,
        seed=1,
        start="random",
        preprocess=CROPS,
        phases=(Phase(epochs=40, input_size_px=64),),
        batch_size=128,
        optimisation=Optimisation(
            method="adam",
            rate=5e-4,
            momentum=0.9,
            weight_decay=0.0,
            warmup_epochs=2.0,
            clip_norm=5.0,
            ema_decay=0.998,
        ),
        objective=TAUGHT,
        augmentation=replace(VARIED, mixup=0.3),
        patience_epochs=40,
        validation_share=0.1,
        split_seed=1,
        precision="bf16",
    )


def transfer_resnet152() -> Recipe:
    """The same with 152 layers and fewer epochs."""
    smaller = transfer_resnet50()
    return replace(
        smaller,
        name="transfer-resnet152",
        architecture="transfer_resnet152",
        phases=(Phase(epochs=24, input_size_px=64),),
        patience_epochs=24,
    )


def transfer_resnet50_imagenet() -> Recipe:
    """The paper's own from ImageNet's weights: 224 px, 50 epochs of SGD at 0.1, three parts trained.

    Needs `--start-weights` with torchvision's ResNet-50 and, in practice, a GPU. `layer4.2.conv2` and `layer4.2.conv3`
    are its `res5c_branch2b` and `res5c_branch2c`; `activation_97` has no weights. The paper prints no batch size and no
    momentum: 64 and 0.9 are ours; no augmentation but mirroring; nothing is averaged.
    """
    return replace(
        transfer_resnet50(),
        name="transfer-resnet50-imagenet",
        start="imagenet",
        phases=(Phase(epochs=50, input_size_px=224),),
        optimisation=Optimisation(
            rate=0.1,
            momentum=0.9,
            weight_decay=0.0,
            warmup_epochs=0.0,
            clip_norm=0.0,
            ema_decay=0.0,
            nesterov=False,
            schedule=Schedule(kind="constant"),
        ),
        objective=PLAIN,
        augmentation=MIRRORED,
        patience_epochs=50,
        precision="bf16",
        trained=("layer4.2.conv2", "layer4.2.conv3", "attention", "fc"),
    )


def transfer_resnet50_vggface2() -> Recipe:
    """The paper's own from face weights: the rate falls on a plateau of 3 epochs, 10 without a gain end the run.

    The paper has VGGFace's 2,622 identities; ResNets are to be had trained on VGGFace2 (Cao et al. 2018). The factor of
    the plateau is not printed: Keras' own 0.1.
    """
    paper = transfer_resnet50_imagenet()
    return replace(
        paper,
        name="transfer-resnet50-vggface2",
        start="vggface2",
        optimisation=replace(paper.optimisation, schedule=Schedule(kind="plateau", factor=0.1, every_epochs=3)),
        patience_epochs=10,
    )


def transfer_resnet152_imagenet() -> Recipe:
    """The same with 152 layers and 30 epochs."""
    paper = transfer_resnet50_imagenet()
    return replace(
        paper,
        name="transfer-resnet152-imagenet",
        architecture="transfer_resnet152",
        phases=(Phase(epochs=30, input_size_px=224),),
        patience_epochs=30,
    )


def transfer_resnet152_vggface2() -> Recipe:
    """152 layers from face weights with Adam; its rate is not printed, so Keras' own 0.001."""
    paper = transfer_resnet50_vggface2()
    return replace(
        paper,
        name="transfer-resnet152-vggface2",
        architecture="transfer_resnet152",
        phases=(Phase(epochs=30, input_size_px=224),),
        optimisation=replace(paper.optimisation, method="adam", rate=0.001),
    )

"""S3's dual transfer (Lin et al. 2020): BVLC's weights, CelebA's attributes, CK+; and what of it can be run here.

As printed, on 227 px and three channels: `alexnet-attributes` (start `caffenet`; conv1 fixed, hinge loss, 100,000 steps
of 100), then `alexnet-ck` from its run (conv1 and conv2 fixed, 10,000 steps), `alexnet-ck-four-layers` (conv5 left out,
only the two fully connected layers trained). Steps are counted in epochs here: of the 162,770 pictures of CelebA's
training part and of 1,400 frames.

Here neither BVLC's weights nor CelebA's attributes are to be had: `alexnet-faces` learns LFW's identities from random
weights, `alexnet` learns FER-2013 from its run, on 64 px with a first stride of 2, taught by four `mobilenet-teacher`;
`alexnet-ck48` goes on to CK+48 with conv1 and conv2 fixed. Nothing trained on CK+ ships; `alexnet` is the archive.
"""

from dataclasses import replace

from ferserve.training.recipe import Optimisation, Phase, Recipe, Schedule
from ferserve.training.recipes.mobilenet import CROPS
from ferserve.training.recipes.net_b import MIRRORED, PLAIN, TAUGHT, VARIED

PAPER = "Lin, Liu, Hung, Liu, Chai 2020: dual transfer learning of a convolutional net, led by feature visualisation"


def alexnet_faces() -> Recipe:
    """Identities, in place of ImageNet and the attributes."""
    return Recipe(
        name="alexnet-faces",
        version="1.0.0",
        architecture="caffenet_small",
        paper=PAPER,
        seed=1,
        start="random",
        preprocess=CROPS,
        phases=(Phase(epochs=20, input_size_px=64),),
        batch_size=128,
        optimisation=Optimisation(
            rate=0.05, momentum=0.9, weight_decay=5e-4, warmup_epochs=1.0, clip_norm=5.0, ema_decay=0.998
        ),
        objective=PLAIN,
        augmentation=VARIED,
        patience_epochs=20,
        validation_share=0.1,
        split_seed=1,
        precision="fp32",
        task="identities",
    )


def alexnet() -> Recipe:
    """The last stage on FER-2013: all layers, on teachers' scores and the votes beside the labels."""
    return replace(
        alexnet_faces(),
        name="alexnet",
        start="run",
        phases=(Phase(epochs=30, input_size_px=64),),
        objective=TAUGHT,
        patience_epochs=30,
        task="expressions",
    )


def alexnet_ck48() -> Recipe:
    """S3's last step from a run of `alexnet`: conv1 and conv2 fixed, CK+48's classes, one rate with stairs."""
    return replace(
        alexnet(),
        name="alexnet-ck48",
        phases=(Phase(epochs=30, input_size_px=64),),
        batch_size=64,
        optimisation=Optimisation(
            rate=0.002,
            momentum=0.9,
            weight_decay=5e-5,
            warmup_epochs=0.0,
            clip_norm=2.0,
            ema_decay=0.9,
            schedule=Schedule(kind="stairs", factor=0.1, every_epochs=20),
        ),
        objective=PLAIN,
        patience_epochs=30,
        frozen_groups=2,
    )


def alexnet_ck48_four_layers() -> Recipe:
    """S3's variant without conv5: the two fully connected layers alone.

    From a run of `alexnet`, not of `alexnet-ck48`: that one has seen the people that a fold is tested on.
    """
    return replace(
        alexnet_ck48(), name="alexnet-ck48-four-layers", architecture="caffenet_small_four_layers", frozen_groups=4
    )


def alexnet_attributes() -> Recipe:
    """S3's first transfer as printed; its text has conv1 "free-trained" and its conclusion transfers it: fixed here."""
    return replace(
        alexnet_faces(),
        name="alexnet-attributes",
        architecture="caffenet_attributes",
        start="caffenet",
        preprocess=replace(CROPS, size_px=227, channels=3),
        phases=(Phase(epochs=62, input_size_px=227),),
        batch_size=100,
        # A step of x0.1 after 1,000 of 1,628 steps an epoch.
        optimisation=_printed(rate=1e-4, weight_decay=5e-4, every_epochs=1000 / 1628),
        augmentation=MIRRORED,
        patience_epochs=62,
        precision="bf16",
        frozen_groups=1,
        task="attributes",
    )


def alexnet_ck() -> Recipe:
    """S3's second transfer as printed, 10,000 steps of 100 of 1,400 frames, from a run of `alexnet-attributes`."""
    attributes = alexnet_attributes()
    return replace(
        attributes,
        name="alexnet-ck",
        architecture="caffenet",
        start="run",
        phases=(Phase(epochs=715, input_size_px=227),),
        optimisation=_printed(rate=1e-4, weight_decay=5e-5, every_epochs=1000 / 14),
        patience_epochs=715,
        frozen_groups=2,
        task="expressions",
    )


def alexnet_ck_four_layers() -> Recipe:
    """S3's variant without conv5, from a run of `alexnet-ck`: the two fully connected layers alone."""
    return replace(alexnet_ck(), name="alexnet-ck-four-layers", architecture="caffenet_four_layers", frozen_groups=4)


def _printed(*, rate: float, weight_decay: float, every_epochs: float) -> Optimisation:
    return Optimisation(
        rate=rate,
        momentum=0.9,
        weight_decay=weight_decay,
        warmup_epochs=0.0,
        clip_norm=0.0,
        ema_decay=0.0,
        nesterov=False,
        schedule=Schedule(kind="stairs", factor=0.1, every_epochs=every_epochs),
    )

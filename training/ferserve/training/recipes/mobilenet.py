"""S4's coarse stage (Miao et al. 2019, section 3.2): MobileNet V1, face-trained, fine-tuned on FER-2013.

In steps, each a recipe and a run that starts from the one before: `mobilenet-base` moves the face weights to
expressions, `mobilenet-96` learns FER-2013's own labels, `mobilenet` sees the same crops larger and is the default.
"""

from dataclasses import replace

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.recipe import Augmentation, Objective, Optimisation, Phase, Recipe

PAPER = "Miao, Dong, Al Jaam, El Saddik 2019: A Deep Learning System for Recognizing Facial Expression in Real-Time"


CROPS = PreprocessSpec(size_px=48, channels=1, box_scale=0.9, eye_y=0.38, eye_distance=0.36)
"""48 px and grey as FER-2013 is, faces placed as it places them (measured: docs/adr/0014); training takes its pictures
whole, so only what is served depends on the last three."""


def mobilenet_base() -> Recipe:
    """From a face net to expressions, on labels and votes blended.

    Differs from the paper, each time for accuracy at the epochs that two cores can run: weights of a face net instead
    of ImageNet's and a stem that keeps them; crops of 48 px enlarged (first to 64, then to 96 px) because those weights
    were made at 224 px; a cosine to zero instead of x0.94 every 15 epochs; FERPlus votes blended into the labels;
    rotation, shifts, light and erasing beside the paper's crops and flips; an average of weights.
    """
    return Recipe(
        name="mobilenet-base",
        version="1.0.0",
        architecture="mobilenet_v1",
        paper=PAPER,
        seed=1,
        start="faceres",
        preprocess=CROPS,
        phases=(Phase(epochs=6, input_size_px=64), Phase(epochs=20, input_size_px=96)),
        batch_size=64,
        optimisation=Optimisation(
            rate=0.03, momentum=0.9, weight_decay=3e-4, warmup_epochs=1.0, clip_norm=5.0, ema_decay=0.998
        ),
        objective=Objective(
            vote_weight=0.35,
            vote_head_weight=0.0,
            teacher_weight=0.0,
            smoothing=0.05,
            center_weight=0.001,
            center_rate=0.001,
        ),
        augmentation=Augmentation(
            min_area=0.75,
            max_zoom_out=1.1,
            max_rotation_deg=15.0,
            max_shift=0.06,
            flip=True,
            contrast=0.3,
            brightness=0.2,
            erase_probability=0.3,
            erase_max_area=0.15,
        ),
        patience_epochs=10,
        validation_share=0.1,
        split_seed=1,
        precision="bf16",
    )


def mobilenet_96() -> Recipe:
    """FER-2013's own labels for the classifier, the votes for a head of their own (docs/adr/0010).

    Starts from a run of `mobilenet-base`. Without the paper's centre loss: the base run has it.
    """
    base = mobilenet_base()
    return replace(
        base,
        name="mobilenet-96",
        start="run",
        phases=(Phase(epochs=12, input_size_px=96),),
        optimisation=replace(base.optimisation, rate=0.012, warmup_epochs=0.5),
        objective=replace(base.objective, vote_weight=0.0, vote_head_weight=0.5, center_weight=0.0),
    )


def mobilenet() -> Recipe:
    """The default archive's: the same net on crops enlarged to 128 px. Starts from a run of `mobilenet-96`."""
    smaller = mobilenet_96()
    return replace(
        smaller,
        name="mobilenet",
        version="1.1.0",
        phases=(Phase(epochs=4, input_size_px=128),),
        optimisation=replace(smaller.optimisation, rate=0.006, warmup_epochs=0.25),
    )

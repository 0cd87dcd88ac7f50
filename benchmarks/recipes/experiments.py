"""The experiments: each a name and what differs from the run's own recipe."""

from __future__ import annotations

from dataclasses import dataclass

from softctm.training.config import Task


@dataclass(frozen=True)
class Experiment:
    """One way of training tissue or cell networks.

    Attributes
    ----------
    settings : tuple of str
        What differs from the run's recipe, as `softctm train --set` takes it.
    pretrained : bool
        Whether it starts from what `softctm pretrain` made; it is run for each of those that are given.
    guided : bool
        Whether a network that the points guide, not the classical segmenter, makes the masks of its targets.
    weighted : bool
        Whether training pairs are drawn as the file of `--pair-weights` says.
    one_in : int
        It learns from every such patient, for as many times the epochs: from fewer patients in as many steps.
    """

    settings: tuple[str, ...] = ()
    pretrained: bool = False
    guided: bool = False
    weighted: bool = False
    one_in: int = 1


def _joined(place: str) -> tuple[str, ...]:
    return (f"cells.network.architecture=deeplabv3plus-{place}",)


_TARGETS = {
    "soft 3 um": ("cells.target.sigma_um=3",),
    "soft 3 um, square error": ("cells.target.sigma_um=3", "cells.target.loss=square-error"),
    "circle, Dice": ("cells.target.kind=circle", "cells.target.loss=generalized-dice"),
    "hard, Dice": ("cells.target.kind=hard", "cells.target.loss=generalized-dice"),
}


def _of_pairs(architecture: str, coupling: str) -> tuple[str, ...]:
    return (f"cells.network.architecture={architecture}", f"cells.coupling={coupling}")


_OCELOT = {
    "cell only": ("cells.coupling=none",),
    "tissue after the encoder": _joined("after-encoder"),
    "tissue after the ASPP": _joined("after-aspp"),
    "tissue after the decoder": _joined("after-decoder"),
    "annotated tissue": ("cells.coupling=annotated",),
    "joint, tissue at the input": _of_pairs("joint-deeplabv3plus", "joint"),
    "joint, tissue after the ASPP": _of_pairs("joint-deeplabv3plus-after-aspp", "joint"),
    "features shared": _of_pairs("feature-sharing", "joint"),
    "second encoder": _of_pairs("mfovce-net", "image"),
}
"""OCELOT's models (arXiv 2303.13110); its model with the tissue at the input is the recipe itself.

The last four see both patches, and all but the very last learn the tissue map too."""

_RATES = {
    "one learning rate": ("cells.optimizer.learning_rate=4e-4", "cells.optimizer.encoder_factor=1"),
    "faster encoder": ("cells.optimizer.learning_rate=2e-3", "cells.optimizer.encoder_factor=0.1"),
}

_TRUNKS = {
    "U-Net": ("cells.network.architecture=unet",),
}

_PATIENTS = {
    "half of the patients": Experiment(one_in=2),
    "a quarter of the patients": Experiment(one_in=4),
}
"""What more patients would bring is guessed from what fewer of them take away."""

RECIPE = "recipe"
"""The experiment that the others are compared with: the run's own recipe."""

EXPERIMENTS: dict[Task, dict[str, Experiment]] = {
    "cells": {
        RECIPE: Experiment(),
        **{
            name: Experiment(settings)
            for group in (_TARGETS, _OCELOT, _RATES, _TRUNKS)
            for name, settings in group.items()
        },
        "guided masks": Experiment(guided=True),
        "hard, Dice, guided masks": Experiment(_TARGETS["hard, Dice"], guided=True),
        "weighted pairs": Experiment(weighted=True),
        **_PATIENTS,
        "pretrained": Experiment(pretrained=True),
        "pretrained, guided masks": Experiment(pretrained=True, guided=True),
        "pretrained, tissue after the ASPP": Experiment(_joined("after-aspp"), pretrained=True),
    },
    "tissue": {
        RECIPE: Experiment(),
        "U-Net": Experiment(("tissue.network.architecture=unet",)),
        "weighted pairs": Experiment(weighted=True),
        **_PATIENTS,
        "pretrained": Experiment(pretrained=True),
    },
}
"""Task → name → experiment."""

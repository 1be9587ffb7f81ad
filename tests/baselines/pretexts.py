"""Small pretexts by name."""

import torch

from medistill.baselines.byol import BYOL
from medistill.baselines.mae import MAE
from medistill.baselines.pretraining import Pretext
from medistill.baselines.simsiam import SimSiam
from medistill.baselines.skd import SKD
from medistill.networks import build
from medistill.networks.vit import ViT
from medistill.recipe import NetworkSettings

IMAGE = (1, 8, 8)


def pretext_named(name: str) -> Pretext:
    torch.manual_seed(0)
    if name == "mae":
        return MAE(ViT(1, 8, 2, 16, 1).features, IMAGE)
    network = build(NetworkSettings(width=8, depth=2), 1, 8, 2)
    encoder = network.module_at(network.initial(0)).get_submodule("features")
    return {"byol": BYOL, "simsiam": SimSiam, "skd": SKD}[name](encoder, IMAGE)

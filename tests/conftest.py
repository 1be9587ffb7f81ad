"""Shapes are checked in the numeric half; hypothesis runs without a clock, torch on one thread; nobody is trusted."""

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(
    ["medistill.matching", "medistill.networks", "medistill.augment", "medistill.train", "medistill.buffer"],
    "beartype.beartype",
)
settings.register_profile("medistill", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("medistill")
torch.set_num_threads(
    1
)  # tiny networks beside another process on the same cores: more threads only wait for each other


@pytest.fixture(autouse=True)
def nobody_is_trusted_yet(tmp_path_factory, monkeypatch):
    """Every test has settings of its own."""
    monkeypatch.setenv("MEDISTILL_HOME", str(tmp_path_factory.mktemp("home")))

"""What the tests of trainings share: a folder of small pictures, and NRP settings with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purifier.training.nrp import NRPTraining
from tests.training.nrp import Settings


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of eight smooth random pictures of 40 x 48 pixels."""
    return write_photos(tmp_path_factory.mktemp("trainings") / "photos")


def write_photos(folder: Path) -> Path:
    """Writes the pictures of `photos`."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def settings(photos: Path) -> Settings:
    """Makes settings of NRP from a base and changes to it."""
    return lambda base, **changes: NRPTraining(data=(str(photos),), **{**base, **changes})

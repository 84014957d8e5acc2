"""Every family of networks through every path; ``docs/architectures.md`` has the table, and is held to it here."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anomalib.data import Visa
from anomalib.engine import Engine
from anomalib.models import Patchcore

from anomalib_spd import adapt
from anomalib_spd.backbones import register
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.local import DenseSPD
from anomalib_spd.pretraining import SimSiamSPD
from tests.benchmark.grids import draw_images
from tests.conftest import REPOSITORY
from tests.sweep import PATHS, Subject, name_of, register_random

PAGE = REPOSITORY / "docs" / "architectures.md"
#: small networks of timm's, of the families of the table: the rest of the sweep is slow
SMALL = ("test_resnet", "test_convnext", "test_vit")


def table() -> dict[str, dict[str, str]]:
    """Return architecture -> path -> what the page says of it."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip().strip("`") for cell in row] for row in rows]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in body}


CELLS = [(architecture, path) for architecture, row in table().items() for path in row]
REFUSED = [
    (architecture, path)
    for architecture, path in CELLS
    if all(cell != "yes" for cell in table()[architecture].values())
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Subject]]:
    """Return what goes through the paths, in the registry where it can be; each architecture is registered once."""
    folder = tmp_path_factory.mktemp("sweep")
    draw_images(folder, "one")
    made: dict[str, Subject] = {}

    def make(architecture: str) -> Subject:
        if architecture not in made:
            try:
                register_random(architecture)
                made[architecture] = Subject(architecture, name_of(architecture), folder, folder)
            except ValueError:
                made[architecture] = Subject(architecture, architecture, folder, folder, registered=False)
        return made[architecture]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(folder / "registry"))
        yield make
    register()


def test_the_table_has_every_path() -> None:
    assert [*next(iter(table().values()))] == [*PATHS]
    cells = {cell for row in table().values() for cell in row.values()}
    assert all(cell == "yes" or cell.startswith("no: ") for cell in cells)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("architecture", SMALL)
def test_small_networks_go_through(
    architecture: str, path: str, subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    PATHS[path](subject(architecture)._replace(folder=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "path"), [cell for cell in CELLS if cell not in REFUSED])
def test_every_cell_of_the_table(
    architecture: str, path: str, subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    _check(architecture, path, subject(architecture)._replace(folder=tmp_path))


@pytest.mark.parametrize(("architecture", "path"), REFUSED)
def test_channels_last_is_refused_everywhere(
    architecture: str, path: str, subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    assert not subject(architecture).registered
    _check(architecture, path, subject(architecture)._replace(folder=tmp_path))


BROKEN = {
    "pre-training": lambda subject: SimSiamSPD(backbone=subject.name, image_size=40),
    "dense SPD": lambda subject: DenseSPD(backbone=subject.name, image_size=40),
    "adapt": lambda subject: adapt(
        Visa(root=subject.root, category="one"),
        "adapted_vit",
        backbone=subject.name,
        image_size=40,
        folder=subject.folder,
    ),
    "detector": lambda subject: Engine(accelerator="cpu", default_root_dir=subject.folder).fit(
        Patchcore(backbone=subject.name, layers=["blocks.2"], pre_processor=BackbonePreProcessor((48, 40))),
        datamodule=Visa(root=subject.root, category="one"),
    ),
}


@pytest.mark.parametrize("path", BROKEN)
def test_images_of_broken_patches_are_refused(path: str, subject: Callable[[str], Subject], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"16-pixel patches .*Got 40 px: give image_size 32 or 48\.$"):
        BROKEN[path](subject("test_vit")._replace(folder=tmp_path))
    assert not [*tmp_path.rglob("*.ckpt")]


def _check(architecture: str, path: str, subject: Subject) -> None:
    answer = table()[architecture][path]
    if answer == "yes":
        PATHS[path](subject)
    else:
        with pytest.raises(ValueError, match=re.escape(answer.removeprefix("no: "))) as raised:
            PATHS[path](subject)
        assert "\n" not in str(raised.value)

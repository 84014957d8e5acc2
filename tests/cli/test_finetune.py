"""``anomalib-spd finetune`` from outside: from normal images to a registered name."""

import csv
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from anomalib.models import Patchcore
from PIL import Image, ImageOps

from anomalib_spd.backbones import find, register
from anomalib_spd.cli.main import main
from anomalib_spd.config_files import SHIPPED
from anomalib_spd.files import sha256_of
from tests.benchmark.grids import LAYERS, small_registry
from tests.data.test_faint_defects import parts
from tests.finetuning.small import MEMORY, RECIPE, STEPS, failing, finetune, of_visa, small, weights

RECIPES = {
    "cutswap": ["cutswap.yaml"],
    "cutswap_small": ["cutswap.yaml", "cutswap_small.yaml"],
    "cutswap_resnet18": ["cutswap.yaml", "cutswap_resnet18.yaml"],
    "adapt": ["adapt.yaml"],
}


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of runs of which ``tuned`` has come, which is registered."""
    folder = tmp_path_factory.mktemp("made")
    with small_registry(folder):
        assert finetune(root, folder / "runs", "tuned", "--batch_size", "32") == 0
        yield folder / "runs"


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


def test_the_backbone_is_on_the_shelf(root: Path, made: Path) -> None:
    trained = weights(made, "tuned")
    encoder = {name.removeprefix("encoder."): each for name, each in trained.items() if name.startswith("encoder.")}
    model = timm.create_model("tuned", pretrained=True, num_classes=0)
    named = model.state_dict()
    assert all(torch.equal(named[name], tensor) for name, tensor in encoder.items())
    before = timm.create_model("small_a", pretrained=True).state_dict()
    assert not torch.equal(named["conv_stem.weight"], before["conv_stem.weight"])
    assert torch.equal(trained["encoder.conv_stem.weight"], named["conv_stem.weight"])

    detector = Patchcore(backbone="tuned", layers=LAYERS).model.eval()
    image = torch.rand(1, 3, 64, 64)
    levels = timm.create_model("tuned", pretrained=True, features_only=True, out_indices=(1, 2)).eval()(image)
    found = detector.feature_extractor(image)
    assert [each.shape for each in found.values()] == [each.shape for each in levels]
    assert all(torch.equal(*pair) for pair in zip(found.values(), levels, strict=True))


def test_it_says_what_it_was_made_of(root: Path, made: Path) -> None:
    provenance = find("tuned").provenance
    assert provenance.data.startswith("6 normal training images of Visa one")
    assert provenance.command.startswith(f"anomalib-spd finetune --config {RECIPE} ")
    assert provenance.command.endswith("--name tuned --batch_size 32")
    assert sha256_of(made / "tuned" / "checkpoints" / "last.ckpt") == provenance.checkpoint_sha256
    assert sorted(path.name for path in (made / "tuned").iterdir()) == [".lock", "checkpoints", "log", "views.png"]
    with (made / "tuned" / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == STEPS
    assert {"loss", "learning_rate", "accuracy_normal", "accuracy_patch", "accuracy_scar"} <= set(rows[0])
    # the mean of patches of 2 to 15 % of the image, and of scars of less
    assert all(0.002 < float(row["swap_area"]) < 0.15 for row in rows)
    assert all(0.01 < float(row["swap_distance"]) < 1 for row in rows)


def test_the_same_command_again_does_nothing(root: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = runs / "tuned" / "checkpoints" / "last.ckpt"
    before, written = last.read_bytes(), find("tuned").weights.stat().st_mtime_ns
    assert finetune(root, runs, "tuned", "--batch_size", "32") == 0
    assert "tuned is in the registry: --model.backbone tuned" in capsys.readouterr().out
    assert last.read_bytes() == before
    assert find("tuned").weights.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--trainer.max_steps", "11"), "belongs to a run with other settings (steps: 9 then, 11 now)"),
        (("--ckpt_path", "none"), "The name 'tuned' is taken in your registry: "),
    ],
)
def test_a_registered_run_is_neither_longer_nor_trained_anew(
    root: Path, runs: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str], message: str
) -> None:
    before = (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes()
    provenance = find("tuned").provenance
    assert message in failing(capsys, root, runs, "tuned", "--batch_size", "32", *more)
    assert (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert find("tuned").provenance == provenance


@pytest.mark.parametrize("name", ["tuned", "small_a", "efficientnet_lite0_in1k"])
def test_a_taken_name_is_refused_before_any_training(
    root: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    line = failing(capsys, root, tmp_path / "others", name)
    assert line.startswith(f"error: The name '{name}' is taken ")
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("name", ["a b", "resnet18", "x_{seed}"])
def test_what_cannot_be_a_name_is_refused_before_any_training(
    root: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert repr(name) in failing(capsys, root, tmp_path / "others", name)
    assert not (tmp_path / "others").exists()


def test_a_name_by_which_anomalib_would_read_a_transformer_is_refused_before_any_training(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # one of several categories is enough, before the first of them is trained on
    line = failing(capsys, root, tmp_path / "runs", "x_{category}", "--categories", "[one,vitamins]")
    assert line.startswith(
        "error: The name 'x_vitamins' contains 'vit', by which anomalib recognizes vision transformers"
    )
    assert not (tmp_path / "runs").exists()


def test_a_registry_that_cannot_be_written_is_found_before_any_training(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(tmp_path / "file" / "registry"))
    line = failing(capsys, root, tmp_path / "runs", "x", "--model.init_args.backbone", "efficientnet_lite0_in1k")
    assert line.startswith("error: Cannot write to the registry ")
    assert "Set ANOMALIB_SPD_HOME to a folder that you may write to" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("recipe", [RECIPE, MEMORY])
def test_a_network_that_detectors_cannot_read_is_refused_before_any_training(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: Path
) -> None:
    swap = ("--model.init_args.backbone", "mambaout_femto", "--model.init_args.pretrained", "false")
    line = failing(capsys, root, tmp_path / "runs", "x", *swap, recipe=recipe)
    assert line.startswith("error: mambaout_femto gives maps of the form (B, H, W, C)")
    assert not (tmp_path / "runs").exists()


def test_a_run_does_not_go_on_from_one_with_other_settings(
    root: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--batch_size", "32", "--model.init_args.clusters", "3", "--trainer.max_steps", "10")
    before = (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes()
    assert "other settings (clusters: 4 then, 3 now)" in failing(capsys, root, runs, "tuned", *more)
    assert (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_run_does_not_go_on_from_one_on_other_images(
    root: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--batch_size", "32", "--data.init_args.category", "two", "--trainer.max_steps", "10")
    before = (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes()
    line = failing(capsys, root, runs, "tuned", *more)
    assert "belongs to a run with other settings (other images). Give this run a folder of its own" in line
    assert (runs / "tuned" / "checkpoints" / "last.ckpt").read_bytes() == before


# what follows trains anew


def test_a_training_on_a_memory_ends_on_the_shelf(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(root, tmp_path, "remembering", "--trainer.max_steps", "3", recipe=MEMORY) == 0
    trained = weights(tmp_path, "remembering", 3)
    # the head that classifies is not kept
    named, before = (
        timm.create_model(name, pretrained=True, num_classes=0).state_dict() for name in ("remembering", "small_a")
    )
    assert all(torch.equal(each, trained[f"encoder.{name}"]) for name, each in named.items())
    changed = {name for name, each in named.items() if not torch.equal(each, before[name])}
    assert {name.rpartition(".")[0].split(".")[1] for name in changed} == {"1", "2"}
    assert all(torch.equal(each, trained[f"teacher.{name}"]) for name, each in before.items())
    levels = timm.create_model("remembering", pretrained=True, features_only=True, out_indices=(1, 2)).eval()
    image = torch.rand(1, 3, 64, 64)
    found = Patchcore(backbone="remembering", layers=LAYERS).model.eval().feature_extractor(image)
    assert all(torch.equal(*pair) for pair in zip(found.values(), levels(image), strict=True))
    provenance = find("remembering").provenance
    assert provenance.data == "6 normal training images of Visa one"
    assert provenance.method == "CategoryAdaptation"
    with (tmp_path / "remembering" / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    logged = {"loss", "loss_spd", "ranking_accuracy", "learning_rate", "distillation_blocks.1", "mean_square_blocks.2"}
    assert logged <= set(rows[0])
    assert all(float(row["loss_spd"]) > 0 for row in rows)
    # its cycle has an end
    assert finetune(root, tmp_path, "remembering", "--trainer.max_steps", "5", recipe=MEMORY) == 1
    assert "belongs to a run with other settings (steps: 3 then, 5 now)" in capsys.readouterr().err


SHORT = ("--trainer.max_steps", "2", "--model.init_args.clusters", "1", "--model.init_args.frozen_steps", "0")


def test_each_category_gets_its_own(root: Path, home: Path, tmp_path: Path) -> None:
    assert finetune(root, tmp_path, "x_{category}", "--categories", "[one,two]", *SHORT) == 0
    one, two = (find(f"x_{category}").provenance for category in ("one", "two"))
    assert (one.data, two.data) == tuple(f"6 normal training images of Visa {each}" for each in ("one", "two"))
    assert one.sha256 != two.sha256
    assert (tmp_path / "x_one" / "checkpoints").is_dir()
    # the command on record makes that one alone
    again = [*shlex.split(two.command)[2:], "--folder", str(tmp_path / "again"), "--name", "same"]
    assert main(["finetune", *again]) == 0
    state, same = (find(name).provenance for name in ("x_two", "same"))
    assert (state.data, state.sha256) == (same.data, same.sha256)


def test_the_category_of_the_data_module_is_put_into_the_name(root: Path, home: Path, tmp_path: Path) -> None:
    braces = ("--data.init_args.category", "two")
    assert finetune(root, tmp_path, "{category}_x.{category}", *braces, *SHORT) == 0
    assert find("two_x.two").provenance.data.endswith("Visa two")
    register()


def test_one_for_all_categories_has_the_images_of_all(root: Path, home: Path, tmp_path: Path) -> None:
    more = ("--categories", "[one,two]", "--per", "dataset", "--batch_size", "32", *SHORT)
    assert finetune(root, tmp_path, "all", *more) == 0
    assert find("all").provenance.data == "12 normal training images of Visa one, Visa two"
    assert sorted(path.name for path in tmp_path.iterdir() if (path / "checkpoints").is_dir()) == ["all"]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("x", ("--categories", "[one,two]"), "have {category} in the name. Got 'x'"),
        ("x_{category}", ("--categories", "[one,two]", "--per", "dataset"), "cannot have {category} in its name"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    root: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, more: list[str], message: str
) -> None:
    assert message in failing(capsys, root, tmp_path / "runs", name, *more)
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_images_has_no_categories(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"name": "mine", "root": root / "visa_pytorch" / "one", "normal_dir": "train/good"}
    places |= {"normal_test_dir": "test/good", "abnormal_dir": "test/bad"}
    data = ["--data", "anomalib.data.Folder", *(f"--data.init_args.{key}={value}" for key, value in places.items())]
    command = ["finetune", "--config", str(RECIPE), *small(tmp_path, *SHORT), *data]
    for more in (["--name", "x_{category}"], ["--name", "x", "--categories", "[one]"]):
        capsys.readouterr()
        assert main([*command, *more]) == 1
        assert "error: anomalib.data.Folder has no categories: leave them out" in capsys.readouterr().err
    assert main([*command, "--name", "x"]) == 0
    assert find("x").provenance.data == "6 normal training images of mine"


def test_gray_images_of_more_than_8_bits_have_a_white(root: Path, home: Path, tmp_path: Path) -> None:
    """Images of 12 bits with their white are those of 8 bits."""
    shas = []
    for bits, more in ((8, ()), (12, ("--white", str(255 * 16)))):
        folder = tmp_path / f"{bits}"
        for split in ("train/good", "test/good", "test/bad"):
            (folder / split).mkdir(parents=True)
            for number in range(6):
                values = np.random.default_rng(number).integers(256, size=(64, 64))
                pixels = values.astype(np.uint8) if bits == 8 else (16 * values).astype(np.uint16)
                Image.fromarray(pixels).save(folder / split / f"{number}.png")
        names = {"name": "gray", "root": folder, "normal_dir": "train/good"}
        names |= {"normal_test_dir": "test/good", "abnormal_dir": "test/bad"}
        data = ["--data", "anomalib.data.Folder", *(f"--data.init_args.{key}={value}" for key, value in names.items())]
        command = ["finetune", "--config", str(RECIPE), *small(tmp_path / "runs", *SHORT), *data, *more]
        assert main([*command, "--name", f"gray_{bits}"]) == 0
        shas.append(find(f"gray_{bits}").provenance.sha256)
    assert shas[0] == shas[1]


@pytest.fixture
def parts_root(tmp_path: Path) -> Path:
    """VisA's layout with twenty pictures of one part, and no other."""
    folder = tmp_path / "parts" / "visa_pytorch" / "disk"
    for number, image in enumerate(parts(96, 22)):
        split = "test/bad" if number == 21 else "test/good" if number == 20 else "train/good"
        (folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / split / f"{number:03d}.JPG", quality=100)
    (folder / "ground_truth/bad").mkdir(parents=True)
    Image.new("L", (96, 96), 1).save(folder / "ground_truth/bad/021.png")
    return tmp_path / "parts"


@pytest.mark.parametrize(
    ("rate", "harms", "size"), [("0.001", False, "96"), ("0.001", False, "[96, 128]"), ("3.0", True, "96")]
)
def test_held_out_images_choose_the_weights_and_a_harmful_training_keeps_the_backbone(
    rate: str, harms: bool, size: str, parts_root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        *("finetune", "--config", str(MEMORY), "--model.init_args.backbone", "efficientnet_lite0_in1k"),
        *("--model.init_args.learning_rate", rate, "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"),
        *("--folder", str(tmp_path / "runs"), "--batch_size", "4", "--image_size", size, "--num_workers", "0"),
        *(*of_visa(parts_root, "disk"), "--name", "disk_backbone"),
    ]
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    chosen = "trained" if "The trained weights are taken." in out else "the backbone's own"
    assert not (harms and chosen == "trained")
    check_choice(chosen, gains(out, ["Visa disk (5 images)"]))
    backbone = find("disk_backbone")
    assert backbone.provenance.data.startswith("15 normal training images of Visa disk")
    assert backbone.provenance.recipe == f"{chosen} weights, chosen by faint defects drawn on 5 held-out images"
    own = timm.create_model("disk_backbone", pretrained=True).state_dict()
    base = timm.create_model("efficientnet_lite0_in1k", pretrained=True).state_dict()
    is_base = all(torch.equal(own[key], each) for key, each in base.items() if key.startswith("blocks."))
    assert is_base == (chosen == "the backbone's own")
    assert ("The backbone is kept as it was: no gain on your parts." in out) == is_base
    # the same command again does nothing
    written = backbone.weights.stat().st_mtime_ns
    assert main(command) == 0
    assert find("disk_backbone").weights.stat().st_mtime_ns == written


def gains(out: str, parts: list[str]) -> list[float]:
    """Return what the held-out images of each part gained by the training, as it was printed."""
    head = "Faint defects drawn on held-out images, image AU-ROC / pixel AU-PR of PatchCore:"
    _, _, lines = out.partition(head)
    number = r"(\d\.\d{3})"
    form = re.compile(f"  (.*): {number} / {number} before the training, {number} / {number} after it")
    found = [match.groups() for line in lines.splitlines() if (match := form.fullmatch(line))]
    assert [title for title, *_ in found] == parts
    return [sum(map(float, scores[2:])) - sum(map(float, scores[:2])) for _, *scores in found]


def check_choice(chosen: str, gain: list[float]) -> None:
    rounding = 0.002 * len(gain)
    assert sum(gain) > -rounding if chosen == "trained" else sum(gain) < rounding and chosen == "the backbone's own"


def test_parts_of_one_backbone_are_judged_each_by_its_own_images(
    parts_root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = shutil.copytree(parts_root / "visa_pytorch/disk", parts_root / "visa_pytorch/negative")
    for file in others.rglob("*.JPG"):
        with Image.open(file) as image:
            inverted = ImageOps.invert(image)
        inverted.save(file, quality=100)
    for number in range(8):  # fewer: of each, a quarter and at least five are held out
        (others / f"train/good/{number:03d}.JPG").unlink()
    command = [
        *("finetune", "--config", str(MEMORY), "--model.init_args.backbone", "efficientnet_lite0_in1k"),
        *("--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--folder", str(tmp_path / "runs")),
        *("--batch_size", "4", "--image_size", "96", "--num_workers", "0", *of_visa(parts_root, None)),
        *("--categories", "[disk,negative]", "--per", "dataset", "--name", "line"),
    ]
    capsys.readouterr()
    assert main(command) == 0
    gain = gains(capsys.readouterr().out, ["Visa disk (5 images)", "Visa negative (5 images)"])
    provenance = find("line").provenance
    assert provenance.data.startswith("22 normal training images of Visa disk, Visa negative")
    chosen = provenance.recipe.removesuffix(" weights, chosen by faint defects drawn on 10 held-out images")
    check_choice(chosen, gain)


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        (MEMORY, ("--holdout", "0.25"), "holds 6 images, too few to hold out 5: give more, or --holdout 0"),
        (MEMORY, ("--holdout", "1"), "holdout is a share of the images, 0 or more and below 1. Got 1.0"),
        (
            RECIPE,
            ("--holdout", "0.25"),
            "holdout is for trainings of the layers that detectors read, such as CategoryAdaptation",
        ),
    ],
)
def test_a_holdout_that_cannot_be_is_refused_before_any_training(
    recipe: Path,
    more: tuple[str, ...],
    message: str,
    root: Path,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in failing(capsys, root, tmp_path / "runs", "x", *more, recipe=recipe)
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize("recipe", [RECIPE, MEMORY])
def test_long_parts_are_seen_in_their_own_aspect(
    recipe: Path, root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ("--image_size", "[96, 64]", "--trainer.max_steps", "2")
    assert finetune(root, tmp_path, "long", *long, recipe=recipe) == 0
    with Image.open(tmp_path / "long" / "views.png") as views:
        width, height = views.size
    frame, images = 2, 2
    assert width == images * (64 + frame) + frame
    assert (height - frame) % (96 + frame) == 0
    # it is the run's size: it resumes with no other
    turned = ("--image_size", "[64, 96]", "--trainer.max_steps", "3")
    line = failing(capsys, root, tmp_path, "long", *turned, recipe=recipe)
    assert "other settings (image_size: (96, 64) then, (64, 96) now" in line


@pytest.mark.parametrize("size", ["0", "[96]", "[96, 0]", "[96, 96, 96]"])
def test_what_is_no_size_is_refused_before_any_training(
    size: str, root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failing(capsys, root, tmp_path / "runs", "long", "--image_size", size)
    assert f"image_size is {size}, expected height and width, or one number for both" in line
    assert not (tmp_path / "runs").exists()


def test_every_shipped_file_is_a_recipe() -> None:
    assert {path.name for path in (SHIPPED / "finetune").iterdir()} == {
        name for files in RECIPES.values() for name in files
    }


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_run_and_a_trial_leaves_nothing(name: str, root: Path, home: Path, tmp_path: Path) -> None:
    registered = sorted(path.name for path in home.iterdir())
    # those of the classifier, where the recipe names them
    more = () if name == "adapt" else ("--model.init_args.layers=null",)
    arguments = [
        *small(tmp_path / "runs", *more, recipe=SHIPPED / "finetune" / RECIPES[name][0]),
        *of_visa(root),
        *("--name", "trial", "--trainer.fast_dev_run", "true"),
    ]
    assert main(["finetune", *(f"--config=finetune/{file}" for file in RECIPES[name]), *arguments]) == 0
    assert sorted(path.name for path in home.iterdir() if not path.name.startswith(".")) == registered
    assert not list((tmp_path / "runs").rglob("*.ckpt"))

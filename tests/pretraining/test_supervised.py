"""The classifier that the supervised method starts from."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from anomalib_spd.cli.main import main
from anomalib_spd.losses import spd_loss, two_way_loss
from anomalib_spd.pretraining import SupervisedSPD
from tests.cli.test_main import _small, recipe

IMAGES = torch.randint(0, 256, (6, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def small(**settings: Any) -> Any:
    torch.manual_seed(0)
    return SupervisedSPD(num_classes=3, backbone="test_efficientnet", pretrained=False, image_size=32, **settings)


def step(model: Any) -> tuple[torch.Tensor, dict[str, float]]:
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    torch.manual_seed(1)
    return model.training_step(model.on_after_batch_transfer((IMAGES, LABELS), 0), 0), logged


def test_keeps_the_classifier_of_the_backbone() -> None:
    model = SupervisedSPD(num_classes=1000, backbone="efficientnet_lite0_in1k", pretrained=True).eval()
    whole = timm.create_model("efficientnet_lite0_in1k", pretrained=True).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # channels last here, not there: other sums, the same but for rounding
        torch.testing.assert_close(model.head(model.encoder(image)), whole(image), rtol=1e-5, atol=1e-4)


def test_starts_a_classifier_for_other_classes() -> None:
    model = SupervisedSPD(num_classes=7, backbone="efficientnet_lite0_in1k", pretrained=True)
    assert model.head.weight.shape == (7, 1280)


def test_loss_is_the_cross_entropy_of_the_view() -> None:
    model = SupervisedSPD(num_classes=5, backbone="test_efficientnet", pretrained=False)
    features, labels = torch.randn(4, model.encoder.num_features), torch.tensor([0, 1, 4, 2])
    expected = -F.log_softmax(features @ model.head.weight.T + model.head.bias, 1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(model.method_loss([features], torch.zeros(4, 3, 8, 8), labels), expected)


def test_views_have_the_asked_size() -> None:
    model = SupervisedSPD(num_classes=5, backbone="test_efficientnet", pretrained=False, image_size=24)
    assert [view.shape for view in model.method_views(torch.rand(2, 3, 40, 40))] == [(2, 3, 24, 24)]


def test_the_difference_is_a_cosine_unless_it_is_asked_for() -> None:
    z_a, z_p, z_n = torch.randn(3, 4, small().encoder.num_features)
    plain = small()
    assert plain.difference_head is None
    torch.testing.assert_close(plain.difference_loss(z_a, z_p, z_n), spd_loss(z_a, z_p, z_n))
    with pytest.raises(ValueError, match=r"`difference` is cosine or classification. Got 'dense'"):
        small(difference="dense")


def test_the_second_classifier_tells_negatives_from_positives() -> None:
    model = small(difference="classification", eta=0.3)
    assert model.difference_head.weight.shape == (2, model.encoder.num_features)
    z_a, z_p, z_n = torch.randn(3, 4, model.encoder.num_features)
    model.log = lambda *_, **__: None
    loss, sim_ap, sim_an = model.difference_loss(z_a, z_p, z_n)
    torch.testing.assert_close(loss, two_way_loss(model.difference_head(z_p), model.difference_head(z_n)))
    torch.testing.assert_close((sim_ap, sim_an), spd_loss(z_a, z_p, z_n)[1:])

    loss, logged = step(model)
    assert loss.item() == pytest.approx(logged["loss_supervised"] + 0.3 * logged["loss_spd"], abs=1e-6)
    loss.backward()
    assert model.difference_head.weight.grad.abs().sum() > 0


def test_the_share_that_is_told_right_is_logged() -> None:
    model, logged = small(difference="classification"), {}
    model.log = lambda name, value, **_: logged.update({name: value.item()})
    model.difference_head = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.difference_head.weight.copy_(torch.eye(2))
        model.difference_head.bias.zero_()
    unperturbed, perturbed = [1.0, 0.0], [0.0, 1.0]
    z_p, z_n = torch.tensor([unperturbed, unperturbed]), torch.tensor([perturbed, unperturbed])
    model.difference_loss(z_p, z_p, z_n)
    assert logged["accuracy_spd"] == 0.75


def test_its_gradient_separates_them() -> None:
    model = small(difference="classification", eta=1.0)
    model.method_loss = lambda z, images, labels: z[0].sum() * 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(25):  # on the same draws every time
        loss, _ = step(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_the_command_takes_the_form(labelled_images: Path, tmp_path: Path) -> None:
    form = ("--model.init_args.difference", "classification", "--trainer.max_epochs", "1")
    assert main(["pretrain", *recipe("supervised_spd"), *_small(labelled_images, tmp_path, *form)]) == 0
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["difference_head.weight"].shape[0] == 2
    assert "accuracy_spd" in (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("layout", ["folder", "list", "shards"])
def test_a_class_beyond_their_number_is_named_with_its_file(
    layout: str, labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = labelled_images
    if layout == "list":
        images = tmp_path / "list.txt"
        lines = [f"{path}\t{number % 7}" for number, path in enumerate(sorted(labelled_images.iterdir()))]
        images.write_text("\n".join(lines))
    data = [f"--data.init_args.root={images}"]
    if layout == "shards":
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for number, path in enumerate(sorted(labelled_images.iterdir())):
                tar.add(path, f"{number}.jpg")
                label = tarfile.TarInfo(f"{number}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(b"2"))
        shards = {"urls": tmp_path / "0.tar", "epoch_images": 12, "batch_size": 4, "num_workers": 0, "image_size": 40}
        data = [
            "--data=anomalib_spd.data.ImageShards",
            *(f"--data.init_args.{key}={value}" for key, value in shards.items()),
        ]
    command = [
        "pretrain",
        *recipe("supervised_spd"),
        *_small(labelled_images, tmp_path / "run", "--trainer.max_epochs", "1"),
    ]
    assert main([*command, *data, "--model.init_args.num_classes", "2"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    number, file = (6, "n00000_6.jpg") if layout == "list" else (2, "n00002_11.jpg")
    expected = {
        "folder": f"error: {labelled_images / file} has the class number 2, ",
        "list": " has the class number 2, ",
        "shards": "error: An image of the batch has the class number 2, ",
    }[layout]
    assert expected in error
    classes = 7 if layout == "list" else 3
    assert f"num_classes=2, numbers from 0: give --model.init_args.num_classes {classes}, or images of so many" in error
    assert not list((tmp_path / "run").rglob("*.ckpt"))

"""The picture at the start of a run."""

from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from anomalib_spd.pretraining import SimSiamSPD
from anomalib_spd.training.views_callback import ViewsPicture


def test_a_column_is_an_image_a_row_a_view_and_no_draw_is_used_up(tmp_path: Path) -> None:
    model = SimSiamSPD(16, 8, backbone="test_efficientnet", pretrained=False, image_size=32)
    trainer = SimpleNamespace(
        global_step=0,
        is_global_zero=True,
        loggers=[None],
        fast_dev_run=False,
        default_root_dir=str(tmp_path / "run"),
    )
    images = torch.rand(10, 3, 40, 40)
    state = torch.get_rng_state()
    ViewsPicture().on_train_batch_start(trainer, model, (images, None), 0)
    assert torch.equal(torch.get_rng_state(), state)
    with Image.open(tmp_path / "run" / "views.png") as picture:
        # 8 columns and 5 rows of 32 pixels, 2 between them
        assert picture.size == (8 * 34 + 2, 5 * 34 + 2)


def test_only_the_first_step_of_the_first_process_is_shown_and_only_where_there_is_a_log(tmp_path: Path) -> None:
    unlike = ({"global_step": 3}, {"is_global_zero": False}, {"loggers": []}, {"fast_dev_run": True})
    for change in unlike:
        as_shown = {"global_step": 0, "is_global_zero": True, "loggers": [None], "fast_dev_run": False}
        trainer = SimpleNamespace(default_root_dir=str(tmp_path), **as_shown | change)
        ViewsPicture().on_train_batch_start(trainer, None, None, 0)
    assert not list(tmp_path.iterdir())

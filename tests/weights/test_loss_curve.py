"""The loss curve of the model card."""

import matplotlib.image
import numpy as np
import pytest

from hear_msm_mae.pretrain import scalars
from hear_msm_mae.pretrain.parsing import load_recipe
from weights import loss_curve


@pytest.fixture
def run_dir(tmp_path):
    with scalars.writer(tmp_path, 0) as writer:
        for step in range(0, 100, 10):
            writer.add_scalar("loss", 1 / (1 + step), step)
        writer.add_scalar("held_out/loss", 0.5, 100)
    (tmp_path / "settings.yaml").write_text(load_recipe("tiny-smoke").to_yaml())
    return tmp_path


def test_curve_of_a_run_is_drawn(run_dir):
    steps, values = loss_curve.curve(run_dir, "loss")
    np.testing.assert_allclose(values, 1 / (1 + steps), rtol=1e-6)
    picture = run_dir / "loss.png"
    loss_curve.main([str(picture), f"{run_dir}", f"{run_dir}=3200"])
    pixels = matplotlib.image.imread(picture)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_folder_without_a_run_is_refused(run_dir):
    (run_dir / "settings.yaml").unlink()
    with pytest.raises(SystemExit, match=r"settings\.yaml"):
        loss_curve.main([str(run_dir / "loss.png"), str(run_dir)])
    assert not (run_dir / "loss.png").exists()


def test_smoothing_keeps_a_constant_and_the_mean_of_neighbours():
    np.testing.assert_allclose(loss_curve.smoothed(np.full(7, 2.0), 5), 2)
    np.testing.assert_allclose(loss_curve.smoothed(np.array([0.0, 3, 0, 0]), 3), [1.5, 1, 1, 0])

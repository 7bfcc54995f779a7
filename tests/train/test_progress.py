import time

from jaxmed.train.progress import Chrono


def test_the_speed_is_that_of_finished_steps_and_none_is_shown_before_the_first(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    chrono = Chrono(total=8, images=4, interval=15.0)
    for step in (1, 2, 3):
        chrono.step(step, "epoch 1/2")
        now[0] += 10.0
    assert "step 3/8  epoch 1/2  0.4 images/s" in capsys.readouterr().err  # 2 steps of 4 images in 20 s
    now[0] += 60.0  # validation
    chrono.reset_epoch()
    chrono.step(4, "epoch 2/2")
    assert capsys.readouterr().err == ""
    now[0] += 20.0
    chrono.step(5, "epoch 2/2")
    assert "step 5/8  epoch 2/2  0.2 images/s" in capsys.readouterr().err
    now[0] += 20.0
    assert chrono.epoch()["images_per_second"] == 0.2  # 2 steps of 4 images in 40 s

"""The order in which rows are drawn, and what a draw costs on a mix of the size of Tülu 3's."""

import time

import numpy

from tests.samples import make_stage
from tulu.train.fit import draw
from tulu.train.optimizer import total_steps


def test_an_epoch_draws_every_row_once() -> None:
    stage = make_stage(batch=8, epochs=2.0, steps=None)
    drawn = [row for index in range(total_steps(stage, 20)) for row in draw(20, stage, index)]
    assert len(drawn) == 40
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == list(range(20))
    assert drawn[:20] != drawn[20:]


def test_the_order_is_that_of_numpys_frozen_generator() -> None:
    stage = make_stage(batch=20, epochs=2.0, steps=None, seed=7)
    assert draw(20, stage, 1) == numpy.random.RandomState([7, 1]).permutation(20).tolist()


def test_the_draw_is_a_function_of_seed_and_step() -> None:
    first, again, other = (draw(20, make_stage(seed=seed), 3) for seed in (1, 1, 2))
    assert first == again != other


def test_a_step_of_tulu_3s_mix_is_drawn_in_under_20_ms() -> None:
    stage = make_stage(batch=128)
    # The permutation of an epoch is made once; the two steps here lie on either side of a change of epoch.
    last = 939_343 // 128
    for step in (0, last):
        draw(939_343, stage, step)
    # Seconds of this thread, whoever else wants the core.
    began = time.thread_time()
    for step in (1, 2, last, last - 1, 0):
        assert len(set(draw(939_343, stage, step))) == 128
    assert (time.thread_time() - began) / 5 < 0.02

"""Worker processes: the death of one costs one item."""

import contextlib
import os
import time

import pytest

from hear_msm_mae.corpus.parallel import ordered_map


def work(item):
    if item == "die":
        os._exit(9)
    if item == "sleep":
        time.sleep(600)
    return item * 2


def test_in_this_process():
    assert list(ordered_map(work, [1, 2], 0)) == [(1, 2), (2, 4)]


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_item():
    items = [*range(5), "die", *range(5)]
    expected = [(item, None if item == "die" else 2 * item) for item in items]
    assert list(ordered_map(work, items, 2)) == expected


@pytest.mark.slow
def test_closing_stops_workers_in_the_middle_of_an_item():
    begin = time.monotonic()
    with contextlib.closing(ordered_map(work, [1, "sleep"], 1)) as results:
        assert next(results) == (1, 2)
    assert time.monotonic() - begin < 300

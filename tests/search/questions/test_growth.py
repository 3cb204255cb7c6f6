from __future__ import annotations

import math

import pytest

from search.questions.growth import growth


def test_growth_is_the_exponent_of_the_last_half() -> None:
    early = [(step, 100.0 / step) for step in (10, 20, 40)]
    late = [(step, 3.0 * step**0.4) for step in (50, 60, 80, 100)]
    assert growth([*late, *early]) == pytest.approx(0.4)


def test_what_has_no_slope_has_none() -> None:
    assert math.isnan(growth([]))
    assert math.isnan(growth([(10, 1.0), (100, 2.0)]))
    assert math.isnan(growth([(60, 1.0), (100, 0.0)]))
    assert math.isnan(growth([(60, 1.0), (100, math.nan)]))

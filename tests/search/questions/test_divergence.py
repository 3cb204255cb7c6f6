from __future__ import annotations

import numpy as np
import pytest
from planted_blocks import as_runs, question
from scipy import stats

from search.questions.contrasts import contrasts_of
from search.questions.divergence import divergences_of, mcnemar_p, signed_rank_p


def test_mcnemar_s_test_is_exact() -> None:
    assert mcnemar_p(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar_p(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar_p(0, 0) == 1.0


def test_signed_ranks_agree_with_scipy_and_take_ties_and_infinities() -> None:
    contrasts = np.random.default_rng(0).normal(0.3, size=14)
    assert signed_rank_p(contrasts) == pytest.approx(stats.wilcoxon(contrasts, method="exact").pvalue)
    assert signed_rank_p(np.array([np.inf, np.inf, np.inf, 0.1, 0.2])) == pytest.approx(2 / 2**5)
    assert signed_rank_p(np.array([1.0, -1.0, 0.0])) == 1.0
    assert signed_rank_p(np.zeros(3)) == 1.0


def test_divergences_are_counted_by_blocks() -> None:
    gone = np.inf
    blocks = np.array([[0, 0.1], [0, gone], [0, gone], [0, gone], [gone, 0], [gone, gone], [0, 0.2]])
    found = divergences_of(contrasts_of(question(), as_runs("norm", blocks)), 1, worse=1.0)
    assert (found.neither, found.reference, found.level, found.both) == (2, 1, 3, 1)
    assert found.p == pytest.approx(mcnemar_p(1, 3))
    assert found.worst_p == pytest.approx(signed_rank_p(np.array([0.1, gone, gone, gone, -gone, 0.2])))


def test_nothing_is_worst_where_nothing_diverged_or_neither_is_better() -> None:
    contrasts = contrasts_of(question(), as_runs("norm", np.array([[0.0, 0.1], [0.0, 0.2]])))
    assert divergences_of(contrasts, 1, worse=1.0).worst_p is None
    gone = contrasts_of(question(), as_runs("norm", np.array([[0.0, np.inf], [0.0, 0.2]])))
    assert divergences_of(gone, 1, worse=0.0).worst_p is None

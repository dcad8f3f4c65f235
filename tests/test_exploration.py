"""The queue: what scores highest, and a share that shows what is missed."""

import numpy as np
import pytest

from detector.errors import SettingError, ShapeError
from detector.exploration import fill_queue

SCORE = np.arange(1_000)[::-1].astype(float)


def test_queue_is_mostly_the_top():
    """Nine in ten are the highest scores; nobody is asked twice."""
    queue = fill_queue(SCORE, size=50, exploration=0.1)
    assert queue.rows[:45].tolist() == list(range(45))
    assert queue.explored.sum() == 5
    assert len(set(queue.rows.tolist())) == 50


def test_missed_is_right_on_average():
    """Over many draws the estimate is the number of anomalies outside of the top."""
    truth = np.zeros(1_000)
    truth[::20] = 1
    estimates = []
    for seed in range(300):
        queue = fill_queue(SCORE, size=100, exploration=0.5, random_state=seed)
        estimates.append(queue.missed(truth[queue.rows]))
    assert np.mean(estimates) == pytest.approx(truth[50:].sum(), rel=0.05)


def test_exploration_by_risk_takes_the_riskiest_others():
    """What the unsupervised risk finds strange is asked about, whatever the score says; its chance is not known."""
    queue = fill_queue(SCORE, size=10, exploration=0.2, by="risk", risk=-SCORE)
    assert queue.rows[-2:].tolist() == [999, 998]
    assert queue.missed(np.ones(10)) == 0


@pytest.mark.parametrize(
    "setting", [{"size": 0}, {"size": 5, "exploration": 1.0}, {"size": 5, "by": "risk"}, {"size": 5, "by": "luck"}]
)
def test_settings_without_meaning_are_refused(setting):
    """A queue of nothing, or only of exploration, is an error."""
    with pytest.raises(SettingError):
        fill_queue(SCORE, **setting)


def test_verdicts_must_fit():
    """One verdict a row."""
    with pytest.raises(ShapeError, match="each of 5 rows"):
        fill_queue(SCORE, size=5).missed(np.ones(4))

"""What a count of rare events says of their rate: the interval of Clopper and Pearson."""

import math

from scipy.stats import beta


def clopper_pearson(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate.

    Source: Clopper & Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial* (1934).

    Args:
        events: that were seen.
        trials: in which they could have been seen, at least 1.
        confidence: that the interval covers the rate, at least.

    Returns:
        Both ends, in ``[0, 1]``.

    Raises:
        ValueError: for counts or a confidence out of range.
    """
    if not 0 <= events <= trials or trials < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"`events` is 0 to `trials`, these 1 or more, `confidence` within (0, 1). Got {events}, {trials}, {confidence}."
        )
    outside = (1 - confidence) / 2
    low = float(beta.ppf(outside, events, trials - events + 1)) if events else 0.0
    high = float(beta.ppf(1 - outside, events + 1, trials - events)) if events < trials else 1.0
    return low, high


def trials_needed(rate: float, confidence: float = 0.95) -> int:
    """Return how many trials without an event show that the rate is not larger, one-sided: about 3 divided by the rate.

    Args:
        rate: that is promised, within ``(0, 1)``.
        confidence: of the promise.

    Raises:
        ValueError: for a rate or a confidence out of range.
    """
    if not (0 < rate < 1 and 0 < confidence < 1):
        raise ValueError(f"`rate` and `confidence` lie within (0, 1). Got {rate} and {confidence}.")
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))

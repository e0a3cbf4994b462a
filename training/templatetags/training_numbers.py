"""Estimates in words: a value with its interval, in the unit that people read."""

from django import template

from training.win_rates import Estimate

register = template.Library()


@register.filter
def percent(value: float | None) -> float | None:
    """A share of [0, 1] in percent."""
    return None if value is None else round(100 * value, 2)


@register.filter
def share(estimate: Estimate | None) -> str:
    """ "61% [56, 66]"."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.0f}%{_interval(estimate, 100, 0)}"


@register.filter
def score(estimate: Estimate | None) -> str:
    """ "31.42 [30.90, 31.95]"."""
    return "–" if estimate is None else f"{estimate.value:.2f}{_interval(estimate, 1, 2)}"


@register.filter
def signed(estimate: Estimate | None) -> str:
    """ "+0.41 [-0.10, +0.92]", with a true minus."""
    if estimate is None:
        return "–"
    low_high = "" if not estimate.has_interval else f" [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{estimate.value:+.2f}{low_high}".replace("-", "−")


def _interval(estimate: Estimate, scale: float, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"

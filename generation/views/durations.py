"""Durations for a person."""


def say_duration(seconds: float) -> str:
    """A duration as people say it, rounded: “about 40 s”, “about 3 min”, “about 2.5 h”."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"

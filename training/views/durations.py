"""Durations for a person."""


def in_words(seconds: float) -> str:
    """A duration for a person: "40 s", "about 3 min", "about 2 h"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"

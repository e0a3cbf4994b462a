"""What stops Atelier from starting, in words for a person."""


class Problem(Exception):
    """Something on this machine is missing or wrong; the message is a sentence that says what to do about it."""

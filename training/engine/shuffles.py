"""Orders of many things that need no list: which thing comes at a place is reckoned from the place alone."""

_WORD = 2**64 - 1
# Luby and Rackoff (1988) need four for what no test of that kind can tell from chance; small domains like more.
_ROUNDS = 6


def shuffled(place: int, size: int, key: int) -> int:
    """The thing, in [0, size), at a place, in [0, size), of the order that `key` (64 bits) names: a permutation.

    A Feistel network over the smallest domain of 4**n places that holds them, walked on until it ends among them (Black and
    Rogaway 2002): four walks on average at most.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mixed(key ^ (turn << half | right)) & mask)
        place = left << half | right
        if place < size:
            return place


def _mixed(word: int) -> int:
    """64 bits that each depend on all of the word's (splitmix64's finish: Steele, Lea and Flood 2014)."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)

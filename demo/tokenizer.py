"""The tokenizer of the demo models: an ordinary CLIP byte-pair tokenizer, learned from the words of the demo world."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END = "</w>"
MAX_LENGTH = 32


def build_tokenizer(words: Iterable[str], *, max_length: int = MAX_LENGTH) -> CLIPTokenizer:
    """A CLIPTokenizer in which each of `words` is one token, and any other text falls apart into bytes and pieces.

    `words` are lower-case words without spaces. `max_length` is in tokens and includes the two special ones. The same
    words give the same ids in every process.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(words)
    # The last byte of an unknown word carries the suffix, so each byte exists with it too.
    pieces = [BOS, EOS, *alphabet, *(symbol + END for symbol in alphabet), *(left + right for left, right in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """The merges of byte-pair encoding in their order, learned until every word is one piece.

    The trainer of the tokenizers library breaks ties by the order of a hash map, so that its ids differ from process
    to process and weights no longer fit after a restart. Here the commonest pair wins, and of equals the first by name.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelled = sorted({byte_level.pre_tokenize_str(word)[0][0] for word in words})
    split = [[*word[:-1], word[-1] + END] for word in spelled]
    merges = []
    while split := [word for word in split if len(word) > 1]:
        counts = Counter(pair for word in split for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        split = [_merge(word, best) for word in split]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged

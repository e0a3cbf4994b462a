"""The tokenizer of the demo models: an ordinary CLIP byte-pair tokenizer, learned from the words of the demo world."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 32


def build_tokenizer(words: Iterable[str], *, max_length: int = MAX_LENGTH) -> CLIPTokenizer:
    """A CLIPTokenizer in which each of `words` is one token, and any other text falls apart into bytes and pieces.

    `words` are lower-case words without spaces. `max_length` is in tokens and includes the two special ones.
    """
    trainer = trainers.BpeTrainer(
        # Large enough that merging ends only when every word is one token.
        vocab_size=100_000,
        min_frequency=1,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(sorted(set(words)), trainer)
    vocabulary = learner.get_vocab()
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        # The last byte of an unknown word carries the suffix, so each byte must exist with it too.
        vocabulary.setdefault(f"{symbol}</w>", len(vocabulary))
    merges = [tuple(merge) for merge in _learned_merges(learner)]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)


def _learned_merges(learner: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return merges

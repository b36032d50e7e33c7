"""The text half of `sprites-t2i`: a CLIP tokenizer whose words are the captions', and a small CLIP encoder.

Both are of stock classes. The tokenizer splits like CLIP's, by byte pairs, and its merges are chosen so that
every word of a caption becomes one token; any other word falls into letters, as a stranger's would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
MAX_TOKENS = 16  # the longest caption has 9 words, and two tokens mark its ends


def build_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """A tokenizer that knows all bytes, and each of `words` (lower-case letters only) as one token."""
    merges: list[Any] = list(_merges(words))  # pairs, which the class takes but does not announce
    letters = [*_byte_letters()]
    pieces = [*letters, *(f"{letter}{WORD_END}" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*dict.fromkeys(pieces), START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """The untrained encoder for the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _merges(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Byte-pair merges, learned greedily from the words until each is one piece."""
    split = {word: [*word[:-1], word[-1] + WORD_END] for word in sorted(set(words))}
    while pairs := [pair for pieces in split.values() for pair in pairwise(pieces)]:
        best = max(sorted(set(pairs)), key=pairs.count)  # the most frequent, the first of equals
        yield best
        split = {word: _merged(pieces, best) for word, pieces in split.items()}


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _byte_letters() -> Iterator[str]:
    """The printable letter that byte-level tokenizers write for each of the 256 bytes."""
    spare = 256
    for byte in range(256):
        if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD):
            yield chr(byte)
        else:
            yield chr(spare)
            spare += 1

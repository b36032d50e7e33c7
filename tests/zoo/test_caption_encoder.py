import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from mpqdm_core.zoo.caption_encoder import MAX_TOKENS, build_text_encoder, build_tokenizer
from mpqdm_core.zoo.captions import vocabulary
from mpqdm_core.zoo.sprites import attributes


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(vocabulary())


def test_every_word_of_the_captions_is_one_token_of_its_own(tokenizer):
    ids = [tokenizer(word).input_ids for word in vocabulary()]
    assert {(first, last) for first, _, last in ids} == {(tokenizer.bos_token_id, tokenizer.eos_token_id)}
    assert len({middle for _, middle, _ in ids}) == len(vocabulary())


def test_other_words_fall_into_pieces_and_none_is_unknown(tokenizer):
    ids = tokenizer("rocketry ümläut 7").input_ids[1:-1]
    assert len(ids) > 3
    assert tokenizer.unk_token_id not in ids


def test_its_letters_are_those_of_byte_level_tokenizers(tokenizer):
    known = tokenizer.get_vocab()
    assert all(letter in known and f"{letter}</w>" in known for letter in ByteLevel.alphabet())


def test_a_caption_fits_and_a_longer_text_is_cut(tokenizer):
    caption = attributes(1, 0).caption
    assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2 <= MAX_TOKENS
    assert len(tokenizer(caption * 4, truncation=True).input_ids) == MAX_TOKENS


def test_a_saved_tokenizer_reads_as_before(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    text = "A small RED star on a light blue background, please"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.model_max_length == MAX_TOKENS


def test_the_encoder_reads_every_token(tokenizer):
    encoder = build_text_encoder(tokenizer, width=16, layers=1, heads=2)
    read = tokenizer(["star", "a red star"], padding="max_length", return_tensors="pt")
    assert encoder(read.input_ids)[0].shape == (2, MAX_TOKENS, 16)
    assert encoder.config.vocab_size == max(tokenizer.get_vocab().values()) + 1

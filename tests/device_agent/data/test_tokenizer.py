import numpy as np
import pytest

from device_agent.data.tokenizer import BadTokenizer, TextStream, Tokenizer
from tests.tiny import tiny_tokenizer

TEXTS = [
    "The lamp in the harbour office.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "你好世界 👩‍👩‍👧‍👦 ok",
    "  two  spaces\n\tand a tab\n\n",
    "",
]


@pytest.fixture(scope="module")
def reference():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def path(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    reference.save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.fixture
def tokenizer(path):
    return Tokenizer.load(path)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(tokenizer, reference, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == reference(text)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_from_its_ids(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_marks_of_special_tokens_become_those_tokens(tokenizer):
    assert tokenizer.encode("<|im_start|>", special=False).tolist() == [1]


def test_special_tokens_have_no_text(tokenizer):
    ids = tokenizer.encode("<|im_start|>yes<|im_end|>")
    assert tokenizer.decode(ids) == "yes"


def test_padding_and_cutting_in_the_file_are_not_followed(path, tmp_path):
    import tokenizers

    core = tokenizers.Tokenizer.from_file(str(path))
    core.enable_padding(length=64)
    core.enable_truncation(max_length=4)
    core.save(str(tmp_path / "tokenizer.json"))
    text = "The lamp burns until the last boat is in."
    ids = Tokenizer.load(tmp_path / "tokenizer.json").encode(text)
    assert ids.tolist() == Tokenizer.load(path).encode(text).tolist()


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"model": {"type": "Magic"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadTokenizer, match=r"tokenizer\.json"):
        Tokenizer.load(path)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_gives_the_whole_text_and_never_half_a_character(tokenizer, text):
    stream = TextStream(tokenizer)
    pieces = [stream.push(int(token)) for token in tokenizer.encode(text)]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.close() == text


def test_a_character_appears_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("👧").tolist()
    assert len(ids) > 1
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in ids] == [""] * (len(ids) - 1) + ["👧"]


def test_an_unfinished_character_shows_when_the_stream_closes(tokenizer):
    stream = TextStream(tokenizer)
    stream.push(tokenizer.encode("👧").tolist()[0])
    assert stream.close() == "\ufffd"
    assert stream.close() == ""


def test_a_decoder_that_drops_the_first_space_still_streams_the_spaces(tmp_path):
    import tokenizers
    from tokenizers import decoders, models

    words = {"\u2581the": 0, "\u2581lamp": 1, "s": 2, "\u2581burn": 3}
    core = tokenizers.Tokenizer(models.WordLevel(words, unk_token="s"))
    core.decoder = decoders.Metaspace()
    core.save(str(tmp_path / "tokenizer.json"))
    stream = TextStream(Tokenizer.load(tmp_path / "tokenizer.json"))
    assert [stream.push(token) for token in (0, 1, 2, 3)] == ["the", " lamp", "s", " burn"]

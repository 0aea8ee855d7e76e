import pytest

from device_agent.data.documents import BadDocument, read_documents
from device_agent.data.examples import Example

GOOD_CHAT = (
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
)


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.md", "A.TXT"])
def test_a_text_file_is_one_document(tmp_path, name):
    path = written(tmp_path, name, "\ufeffOne.\r\n\r\nTwo, ä.\n")
    assert read_documents(path) == [Example(text="One.\n\nTwo, ä.")]


def test_each_line_of_jsonl_is_an_example(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "One\u2028and"}\r\n\n' + GOOD_CHAT)
    assert read_documents(path) == [
        Example(text="One\u2028and"),
        Example(messages=(("user", "a"), ("assistant", "b"))),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "nested"),
        ("7", "not an object"),
        ("{}", "needs either"),
        ('{"text": "a", "messages": []}', "needs either"),
        ('{"text": 7}', '"text" must be a text'),
        ('{"text": "  "}', "not empty"),
        ('{"text": "\\ud800"}', "half a character"),
        ('{"messages": []}', "list of turns"),
        ('{"messages": ["a"]}', '"role"'),
        ('{"messages": [{"role": "tool", "content": "a"}]}', '"role"'),
        ('{"messages": [{"role": "assistant"}]}', '"content"'),
        ('{"messages": [{"role": "user", "content": "a"}]}', "assistant"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, reason):
    path = written(tmp_path, "a.jsonl", GOOD_CHAT + "\n\n" + line + "\n")
    with pytest.raises(BadDocument, match=reason) as caught:
        read_documents(path)
    assert caught.value.line == 3
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b" \n", "empty"),
        ("a.jsonl", b"", "empty"),
        ("a.txt", b"ok \xff", "byte 3 is not UTF-8"),
        ("a.pdf", b"%PDF", "'.pdf'"),
        ("notes", b"text", "'nothing'"),
    ],
)
def test_a_bad_file_says_why(tmp_path, name, content, reason):
    with pytest.raises(BadDocument, match=reason):
        read_documents(written(tmp_path, name, content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "folder.md").mkdir()
    for name in ("none.txt", "folder.md"):
        with pytest.raises(BadDocument, match=name):
            read_documents(tmp_path / name)

from pathlib import Path

import pytest

from device_agent.settings import BadSetting, Settings, load


def test_flags_beat_variables_beat_the_file_beat_the_defaults(tmp_path):
    (tmp_path / "config.toml").write_text(
        'recipe = "file"\ncodec = "f32"\ncloud = "http://file:1"\npatience = 7\n'
    )
    environ = {
        "SIDEPLUG_HOME": str(tmp_path),
        "SIDEPLUG_RECIPE": "variable",
        "SIDEPLUG_CODEC": "bf16",
    }
    settings = load({"recipe": "flag", "codec": None, "threads": "3"}, environ)
    assert settings == Settings(
        home=tmp_path, recipe="flag", codec="bf16", cloud="http://file:1", patience=7.0, threads=3
    )


def test_without_anything_the_cloud_is_on_this_machine(tmp_path):
    settings = load({"home": tmp_path}, {})
    assert settings.cloud == "http://127.0.0.1:8471"
    assert 1 <= settings.threads <= 4


@pytest.mark.parametrize(("line", "drafts"), [("drafts = 8", "8"), ("drafts = 'off'", "off"), ("", "auto")])  # fmt: skip
def test_drafts_are_a_word_or_a_number(tmp_path, line, drafts):
    (tmp_path / "config.toml").write_text(line)
    assert load({"home": tmp_path}, {}).drafts == drafts
    assert load({"home": tmp_path}, {"SIDEPLUG_DRAFTS": "12"}).drafts == "12"


@pytest.mark.parametrize(("line", "threshold"), [("gate = 0.3", 0.3), ("gate = '0.5'", 0.5), ("gate = 1", 1.0), ("gate = 'off'", None), ("", None)])  # fmt: skip
def test_a_gate_is_a_threshold_or_off(tmp_path, line, threshold):
    (tmp_path / "config.toml").write_text(line)
    assert load({"home": tmp_path}, {}).gate_threshold == threshold
    assert load({"home": tmp_path}, {"SIDEPLUG_GATE": "0.25"}).gate_threshold == 0.25


@pytest.mark.parametrize("gate", ["on", "1.5", "-0.1", "nan", ""])
def test_a_gate_that_is_neither_is_refused(tmp_path, gate):
    with pytest.raises(BadSetting, match="threshold from 0 to 1"):
        Settings(home=tmp_path, gate=gate)


def test_an_empty_variable_is_no_variable(tmp_path):
    assert load({"home": tmp_path}, {"SIDEPLUG_RECIPE": ""}).recipe == "ladder"


def test_home_is_absolute_and_knows_the_tilde():
    assert load({"home": "~/x"}, {}).home == Path.home() / "x"
    assert load({"home": "x"}, {}).home == Path.cwd() / "x"


def test_a_slash_behind_the_address_does_not_matter(tmp_path):
    assert Settings(home=tmp_path, cloud="https://there:1/").cloud == "https://there:1"


def test_several_addresses_are_tidied_up(tmp_path):
    settings = Settings(home=tmp_path, cloud="https://there:1/, http://here ")
    assert settings.cloud == "https://there:1,http://here"


def test_the_key_is_in_no_text_about_the_settings(tmp_path):
    settings = load({"home": tmp_path}, {"SIDEPLUG_KEY": "sideplug_1_secret"})
    assert settings.key == "sideplug_1_secret"
    assert "secret" not in repr(settings)


def test_a_key_in_a_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('key = "sideplug_1_secret"')
    file.chmod(0o640)
    with pytest.raises(BadSetting, match="chmod 600") as refused:
        load({"home": tmp_path}, {})
    assert "secret" not in str(refused.value)
    file.chmod(0o600)
    assert load({"home": tmp_path}, {}).key == "sideplug_1_secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cloud", "http://here,there:8471"),
        ("cloud", "http://here,"),
        ("key", "a\nb"),
        ("key", "ä"),
        ("cloud", "there:8471"),
        ("cloud", "ftp://there"),
        ("cloud", "http://"),
        ("recipe", ""),
        ("threads", -1),
        ("threads", 5000),
        ("codec", "f8"),
        ("prefix", -1),
        ("drafts", "on"),
        ("drafts", ""),
        ("drafts", "0"),
        ("drafts", "65"),
        ("drafts", "-3"),
        ("patience", 0.0),
        ("patience", float("nan")),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(tmp_path, name, value):
    with pytest.raises(BadSetting, match=name):
        Settings(home=tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("colour = 'blue'", "known are"),
        ("home = '/elsewhere'", "unknown"),
        ("threads = 'many'", "number"),
        ("threads = 1.5", "int"),
        ("threads = true", "int"),
        ("cloud = ['a']", "str"),
        ("drafts = true", "str"),
        ("drafts = 0", "1 to 64"),
        ("threads =", "config.toml"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused(tmp_path, line, reason):
    (tmp_path / "config.toml").write_text(line)
    with pytest.raises(BadSetting, match=reason):
        load({"home": tmp_path}, {})


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match=r"config\.toml"):
        load({"home": tmp_path}, {})


def test_a_number_of_the_wrong_kind_in_a_variable_is_refused(tmp_path):
    with pytest.raises(BadSetting, match="threads"):
        load({"home": tmp_path}, {"SIDEPLUG_THREADS": "two"})

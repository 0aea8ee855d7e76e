from dataclasses import fields
from pathlib import Path

import pytest

from cloud_service.errors import BadSetting
from cloud_service.settings import Settings, default_file, load


@pytest.fixture(autouse=True)
def no_file_of_the_person(monkeypatch, tmp_path):
    monkeypatch.setattr("cloud_service.settings.user_config_dir", lambda *_, **__: str(tmp_path))


def test_without_a_word_the_default_backbone_is_served_on_loopback():
    settings = load({}, {})
    assert (settings.backbone, settings.host, settings.port) == (
        "smollm2-135m-instruct",
        "127.0.0.1",
        8471,
    )
    assert settings.recipe == ("ladder",)
    assert settings.model_threads >= 1
    assert settings.cache.is_absolute()


def test_a_flag_overrules_the_environment_which_overrules_the_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('port = 1\nhost = "::1"\nidle = 30')
    environ = {"SIDEPLUG_CLOUD_PORT": "2", "SIDEPLUG_CLOUD_IDLE": "40"}
    settings = load({"port": 3, "idle": None, "host": None}, environ, file)
    assert (settings.port, settings.idle, settings.host) == (3, 40.0, "::1")


VALUES = {
    "cache": ("/tmp/somewhere", Path("/tmp/somewhere")),
    "recipe": ("spa, ladder", ("spa", "ladder")),
    "insecure": ("yes", True),
    "engine": ("general", "general"),
    "weights": ("int8", "int8"),
    "idle": ("2.5", 2.5),
    "backbone": ("mine", "mine"),
    "host": ("localhost", "localhost"),
    "body_bytes": ("70000", 70000),
    "log_level": ("debug", "debug"),
}
ALONE = {"tls_cert", "tls_key"}
"""Refused without the other."""


@pytest.mark.parametrize("name", [item.name for item in fields(Settings) if item.name not in ALONE])
def test_every_setting_can_come_from_flag_environment_and_file(name, tmp_path):
    text, value = VALUES.get(name, ("7", 7))
    variable = "SIDEPLUG_CACHE" if name == "cache" else f"SIDEPLUG_CLOUD_{name.upper()}"
    assert getattr(load({}, {variable: text}), name) == value
    assert getattr(load({name: text}, {}), name) == value
    default_file().write_text(f'{name} = "{text}"')
    assert getattr(load({}, {}), name) == value


def test_a_list_in_the_file_is_a_list():
    default_file().write_text('recipe = ["spa", "ladder"]\ninsecure = false')
    assert load({}, {}).recipe == ("spa", "ladder")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": -1}, "port must be at least 0, but is -1"),
        ({"port": 65536}, "port must be at most 65535, but is 65536"),
        ({"port": "http"}, "port cannot be 'http'"),
        ({"sessions": 0}, "sessions must be at least 1, but is 0"),
        ({"idle": 0.5}, "idle must be at least 1 second, but is 0.5"),
        ({"idle": "nan"}, "idle must be at least 1 second, but is nan"),
        ({"body_bytes": 10}, "body_bytes must be at least 4096, but is 10"),
        ({"log_level": "loud"}, "log_level must be one of debug, info, warning, but is loud"),
        ({"tls_cert": "mine.pem"}, "tls_cert and tls_key need each other"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas must be at least replicas, 3"),
        ({"context": -1}, "context must be at least 0, but is -1"),
        ({"weights": "f16"}, "weights must be one of auto, f32, bf16, int8, int4, but is f16"),
        ({"engine": "fast"}, "engine must be one of auto, general, lean, but is fast"),
        ({"insecure": "perhaps"}, "insecure cannot be 'perhaps'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(flags, words):
    with pytest.raises(BadSetting, match=words):
        load(flags, {})


@pytest.mark.parametrize(
    ("text", "words"), [("prot = 1", "prot"), ("port =", "cannot be read"), (b"\xff", "cannot")]
)
def test_a_file_that_makes_no_sense_is_refused(text, words, tmp_path):
    file = tmp_path / "my.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadSetting, match=words):
        load({}, {}, file)


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(BadSetting, match=r"absent\.toml"):
        load({}, {}, tmp_path / "absent.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_safe(host):
    load({"host": host}, {}).require_safe_address(has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
@pytest.mark.parametrize(
    ("keys", "tls", "words"),
    [(False, False, "no keys and no TLS"), (True, False, "no TLS"), (False, True, "no keys")],
)
def test_the_network_is_refused_without_keys_and_tls_unless_it_is_asked_for(host, keys, tls, words):
    files = {"tls_cert": "cert.pem", "tls_key": "key.pem"} if tls else {}
    with pytest.raises(BadSetting, match=f"there is {words}$") as refused:
        load({"host": host, **files}, {}).require_safe_address(keys)
    assert "--insecure" in refused.value.hint
    load({"host": host, "insecure": True, **files}, {}).require_safe_address(keys)


def test_the_network_is_served_with_keys_and_tls():
    both = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
    load({"host": "0.0.0.0", **both}, {}).require_safe_address(has_keys=True)

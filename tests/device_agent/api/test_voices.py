import asyncio
from contextlib import aclosing

from device_agent.api.metrics import Metrics
from device_agent.api.voices import VOICES, Voices
from device_agent.plugins import PluginStore
from tests.device_agent.home import add_plugin, toy_home


def naming(_link, speaker):
    """Work that tells which speaker did it."""
    yield speaker


async def speaker_of(voices, version=None, beginning=""):
    async with aclosing(voices.run(version, beginning, naming)) as found:
        return [speaker async for speaker in found][0]  # noqa: RUF015 - it has to end


def with_voices(folder, check):
    """Run ``check(cloud, settings, voices)`` on an event loop."""

    async def run():
        with toy_home(folder) as (cloud, settings):
            voices = Voices(settings, Metrics())
            try:
                await check(cloud, settings, voices)
            finally:
                voices.close()

    asyncio.run(run())


def test_voices_that_rest_hold_nothing_and_answer_again(tmp_path):
    async def check(cloud, _settings, voices):
        await speaker_of(voices)
        assert len(cloud.backbone.sessions) == 1
        await voices.rest()
        assert not cloud.backbone.sessions
        assert all(voice.speaker is None for voice in voices._all)
        await asyncio.gather(*(speaker_of(voices) for _ in range(2 * VOICES)))
        assert 1 <= len(cloud.backbone.sessions) <= VOICES

    with_voices(tmp_path, check)


def test_a_conversation_comes_back_to_the_voice_that_knows_it(tmp_path):
    async def check(_cloud, _settings, voices):
        first = await speaker_of(voices, beginning="one")
        second = await speaker_of(voices, beginning="two")
        assert first is not second
        assert await speaker_of(voices, beginning="one and more") is first
        assert await speaker_of(voices, beginning="two and more") is second

    with_voices(tmp_path, check)


def test_voices_share_what_is_large(tmp_path):
    async def check(cloud, settings, voices):
        base = await speaker_of(voices, beginning="a")
        other = await speaker_of(voices, beginning="b")
        add_plugin(settings, cloud.manifest, token=20)
        mine = await speaker_of(voices, PluginStore(settings.home).current(), "c")
        assert len({id(one) for one in (base, other, mine)}) == 3
        assert base._head is other._head is mine._head
        assert base.tokenizer is other.tokenizer is mine.tokenizer

    with_voices(tmp_path, check)


def test_silence_is_counted_from_the_last_answer(tmp_path):
    async def check(_cloud, _settings, voices):
        now = 100.0
        voices._clock = lambda: now
        await speaker_of(voices)
        now = 130.0
        assert voices.quiet_seconds == 30.0
        async with aclosing(voices.run(None, "", naming)) as found:
            await anext(found)
            assert voices.quiet_seconds <= 30.0

    with_voices(tmp_path, check)

"""How the page looks and reads: wide and narrow, light and dark, and by the rules of axe for screen readers."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.plugins import PluginStore
from device_agent.training.lock import training_lock
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.page.browser import NARROW, WIDE, needs_chromium, visit
from tests.device_agent.serving import served

pytestmark = [pytest.mark.slow, needs_chromium]

PLACES = ("chat", "teach", "train", "versions", "egress")
PNG = b"\x89PNG\r\n\x1a\n"

PARTS = {"base": 3.61, "prefix": 3.42, "memory": 3.31, "plugin": 3.27, "whole": 3.12}
PARTS |= {"unprefixed": 3.35}


def evaluation(shift=0.0):
    told = {name: {"nll": nll + shift, "perplexity": 2.7**nll} for name, nll in PARTS.items()}
    return {"tokens": 4096, **told}


CARD = {
    "evaluation": evaluation(),
    "general": evaluation(0.4),
    "requests": evaluation(-1.9),
    "harm": 0.004,
    "better": True,
    "speaks": "whole",
    "reason": "your plugin with the memory has 3.1200 nats a token, the frozen backbone 3.6100",
    "training": {"epochs": 2, "steps": 118, "tokens": 20_480, "seconds": 184.0},
}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """An agent with something in every place."""
    with toy_home(tmp_path_factory.mktemp("looks"), limit=4000) as (cloud, settings):
        for token in (3, 20):
            add_plugin(settings, cloud.manifest, token, speaks="plugin", card=CARD)
        assert len(PluginStore(settings.home).versions()) == 2
        with Store(settings.home / "store.sqlite") as store:
            store.add_examples([Example(text="The lamp in the harbour office. " * 9)], "notes.md")
            turns = (("user", "What is my dog called?"), ("assistant", "Rex."))
            store.add_examples([Example(messages=turns)], "feedback")
            job = store.begin_job("ladder")
            curve = [[n, 3.2 + 1.1 * 0.97**n + 0.04 * (n * 7919 % 13) / 13, 1] for n in range(90)]
            store.update_job(
                job,
                "running",
                {
                    **{"epoch": 2, "epochs": 3, "step": 90, "steps": 150, "loss": 3.4},
                    **{"validation": None, "seconds_left": 83.0, "memory": 141e6},
                    **{"peak_memory": 152e6, "curve": curve[1:]},
                    "held_out": [[30, 3.9, 1], [60, 3.6, 1], [89, 3.5, 1]],
                },
            )
        # Whoever trains holds it; without it the agent would take the job for a dead one.
        with training_lock(settings.home), served(settings) as agent:
            yield agent


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_place_fits_and_is_readable(browser, furnished, tmp_path, scheme, size):
    how = {"color_scheme": scheme, "viewport": size, "device_scale_factor": 1}
    with visit(browser, furnished, **how) as page:
        expect(page.locator("#state-speaks")).to_have_text("version 2")
        page.get_by_label("Side by side with base").check()
        page.get_by_text("Options", exact=True).click()
        page.get_by_label("Longest answer").fill("60")
        page.get_by_text("Options", exact=True).click()
        page.get_by_label("Your message").fill("abc")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Correct")).to_have_count(2)
        for place in PLACES:
            page.goto(f"{furnished.url}/#{place}")
            expect(page.locator(f"#{place} h1")).to_be_visible()
            page.wait_for_load_state("networkidle")
            picture = tmp_path / f"{place}-{scheme}-{size['width']}.png"
            assert page.screenshot(path=picture, full_page=True).startswith(PNG)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()


def test_the_locked_door_is_readable(browser, furnished, tmp_path):
    with visit(browser, furnished, furnished.url, color_scheme="dark") as page:
        expect(page.get_by_role("dialog")).to_be_visible()
        page.screenshot(path=tmp_path / "locked.png")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

"""Who comes in, who does not, and what is said when something is away."""

import socket

import pytest
from playwright.sync_api import expect

from benchmarks.services import cloud
from device_agent.cli.open import DOOR
from tests.device_agent.page.browser import needs_chromium, visit
from tests.device_agent.page.conftest import settings_at
from tests.device_agent.serving import served, start

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """An agent whose cloud is away."""
    home = tmp_path_factory.mktemp("alone") / "home"
    with served(settings_at(home, "http://127.0.0.1:9")) as agent:
        yield agent


def test_without_the_token_nothing_is_shown_and_a_wrong_one_is_told(browser, alone):
    with visit(browser, alone, alone.url) as page:
        dialog = page.get_by_role("dialog", name="This page needs your home's token")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        page.get_by_label("Token", exact=True).fill("wrong")
        page.get_by_role("button", name="Unlock").click()
        expect(dialog.get_by_role("alert")).to_have_text("That is not the token of this home.")
        page.get_by_label("Token", exact=True).fill(alone.token)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")


def test_a_token_in_the_address_is_taken_out_of_it_and_kept_for_this_tab_alone(browser, alone):
    with visit(browser, alone) as page:
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")
        assert page.url == f"{alone.url}/#chat"
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")
        other = page.context.new_page()
        other.goto(alone.url)
        expect(other.get_by_role("dialog")).to_be_visible()


def test_the_command_leads_a_browser_in(browser, alone, tmp_path, monkeypatch):
    note, program = tmp_path / "named", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$*" > {note}\n')
    program.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    _, problem = start(alone.settings, "open").communicate(timeout=60)
    assert problem == ""
    door = alone.settings.home / DOOR
    assert alone.token not in note.read_text(), "everybody can read a command line"
    assert note.read_text() == door.as_uri()
    with visit(browser, alone, door.as_uri()) as page:
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")


def test_it_is_all_done_with_the_keyboard(browser, alone):
    with visit(browser, alone) as page:
        expect(page.get_by_label("Your message")).to_be_focused()
        page.goto(f"{alone.url}/#versions")
        page.reload()
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        places = page.get_by_role("navigation")
        expect(places.get_by_role("link", name="Teach")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Teach")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_label("Choose files")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.type("A text by hand.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#kept")).to_contain_text("1 example kept")


def test_a_training_that_has_failed_or_waits_says_why(browser, tmp_path):
    settings = settings_at(tmp_path / "home", "http://127.0.0.1:9")
    with served(settings) as agent, visit(browser, agent) as page, agent.http() as http:
        page.goto(f"{agent.url}/#train")
        page.get_by_role("button", name="Start training").click()
        expect(page.locator("#job-problem")).to_contain_text(
            "Training failed: there is nothing to learn from yet"
        )
        assert http.post("/v1/examples", json={"text": "abc " * 200}).status_code == 201
        page.get_by_role("button", name="Start training").click()
        expect(page.locator("#job-words")).to_contain_text("It waits: no answer from")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#job-title")).to_contain_text("cancelled")


def test_a_cloud_that_goes_away_is_told_in_words_and_comes_back(browser, backbone, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    settings = settings_at(tmp_path / "home", f"http://127.0.0.1:{port}")
    with served(settings) as agent, visit(browser, agent) as page:
        message, answers = page.get_by_label("Your message"), page.locator(".answer")
        page.get_by_text("Options", exact=True).click()
        page.get_by_label("Longest answer").fill("4")
        expect(page.locator("#cloud-notice")).to_be_visible()
        with cloud(backbone, "f32", 1, ("--port", port)):
            expect(page.locator("#cloud-notice")).to_be_hidden()
            message.fill("Who is there?")
            message.press("Enter")
            expect(answers.last.get_by_role("button", name="Correct")).to_be_visible()
        message.fill("And now?")
        message.press("Enter")
        alert = answers.last.get_by_role("alert")
        expect(alert).to_contain_text("no answer from http://127.0.0.1")
        expect(page.locator("#cloud-notice")).to_contain_text("The cloud does not answer.")
        expect(page.locator("#state-cloud")).to_have_text("does not answer")
        with cloud(backbone, "f32", 1, ("--port", port)):
            expect(page.locator("#cloud-notice")).to_be_hidden()
            alert.get_by_role("button", name="Try again").click()
            expect(page.get_by_role("button", name="Correct")).to_have_count(2)


def test_an_agent_that_ends_is_told_and_one_that_comes_back_is_found(browser, tmp_path):
    settings = settings_at(tmp_path / "home", "http://127.0.0.1:9")
    with served(settings) as agent, visit(browser, agent) as page:
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")
        agent.process.terminate()
        agent.process.wait(30)
        expect(page.locator("#agent-notice")).to_contain_text("The agent does not answer.")

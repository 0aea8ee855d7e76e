"""A person's way through the page: teach, train, ask, correct, roll back."""

import json

import pytest
from playwright.sync_api import expect

from tests.device_agent.page.browser import needs_chromium, visit
from tests.tiny import TRAINING_TEXT

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.timeout(900)]

NOTES = " ".join(TRAINING_TEXT[:3] * 40)
QUESTION = "Lamp number 3?"
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"Lamp number {number}?"},
            {"role": "assistant", "content": "It burns until the last boat is in."},
        ]
    }
    for number in range(12)
]


def files(tmp_path):
    notes, chats, bad = (tmp_path / name for name in ("notes.md", "chats.jsonl", "photo.png"))
    notes.write_text(NOTES, encoding="utf-8")
    chats.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS), encoding="utf-8")
    bad.write_bytes(b"\x89PNG")
    return notes, chats, bad


def go(page, place):
    page.get_by_role("navigation").get_by_role("link", name=place).click()
    first = page.get_by_label("Your message") if place == "Chat" else page.locator("h1:visible")
    expect(first).to_be_focused()


def ask(page, text):
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".turn").last.locator(".answer .acts")).to_have_count(
        page.locator(".turn").last.locator(".answer").count()
    )
    return page.locator(".turn").last.locator(".answer")


def said_by_api(http, model, text, tokens):
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
    answer = http.post("/v1/chat/completions", json={**body, "max_tokens": tokens})
    return answer.json()["choices"][0]["message"]["content"]


def test_teach_train_ask_correct_and_roll_back(browser, agent, tmp_path):
    with visit(browser, agent) as page, agent.http() as http:
        expect(page.locator("#state-speaks")).to_have_text("the frozen backbone")
        teach(page, http, *files(tmp_path))
        train(page, http)
        versions(page, http)
        ask_both(page, http)
        correct(page, http)
        roll_back(page, http)
        egress(page, http)


def teach(page, http, notes, chats, bad):
    go(page, "Teach")
    page.get_by_label("Choose files").set_input_files([notes, bad])
    kept = page.locator("#kept p")
    expect(kept.filter(has_text="notes.md: 1 example kept")).to_be_visible()
    expect(kept.filter(has_text="'.png' cannot be read")).to_be_visible()
    drop(page, chats)
    expect(kept.filter(has_text="chats.jsonl: 12 examples kept")).to_be_visible()
    page.get_by_label("Paste or write").fill("I live in the harbour office.")
    page.get_by_role("button", name="Keep this text").click()
    expect(page.locator("#known-count")).to_contain_text("2 texts and 12 conversations")
    page.get_by_role("button", name="Forget: I live in the harbour office.").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.locator("#known-count")).to_contain_text("1 text and 12 conversations")
    assert http.get("/v1/examples").json()["examples"] == {"text": 1, "chat": 12}


def drop(page, file):
    """As a file manager does it."""
    given = [file.name, file.read_text()]
    carried = page.evaluate_handle(
        """([name, text]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([text], name));
            return carried;
        }""",
        given,
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": carried})
    expect(page.locator("#drop.over")).to_be_visible()
    page.dispatch_event("#drop", "drop", {"dataTransfer": carried})


def train(page, http):
    go(page, "Train")
    page.get_by_text("Options of the next training").click()
    page.get_by_label("Times to read everything").fill("40")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("#job-step")).to_be_visible()
    expect(page.locator("#job-chart svg")).to_be_visible()
    expect(page.locator("#job-memory")).to_contain_text("MB")
    expect(page.locator("#job-left")).to_contain_text("s")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#job-title")).to_have_text("Training 1: paused")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    assert http.get("/v1/jobs/1").json()["state"] == "paused"
    before = http.get("/v1/jobs/1").json()["progress"]["step"]
    page.keyboard.press("Enter")
    expect(page.locator("#job-title")).to_have_text("Training 1: done", timeout=300_000)
    progress = http.get("/v1/jobs/1").json()["progress"]
    assert progress["step"] > before
    curve = progress["curve"]
    assert curve[-1][1] < curve[0][1], "it has learned something"
    told = page.get_by_role("img", name="Loss in nats a token").get_attribute("aria-label")
    assert f"from {curve[0][1]:.3f} to {curve[-1][1]:.3f}" in told
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-title")).to_have_text("Training 2: cancelled")
    expect(page.locator("#earlier")).to_contain_text("Training 1: done")


def versions(page, http):
    go(page, "Versions")
    version = page.get_by_role("article", name="Version 1")
    expect(version.locator(".chip")).to_have_text("speaks now")
    card = http.get("/v1/plugins").json()["data"][0]["card"]
    for part, words in {"base": "Frozen backbone", "plugin": "+ prefix and plugin"}.items():
        row = version.get_by_role("row").filter(has_text=words)
        expect(row).to_contain_text(f"{card['evaluation'][part]['nll']:.3f}")
        expect(row).to_contain_text(f"{card['general'][part]['nll']:.3f}")
        expect(row).to_contain_text(f"{card['requests'][part]['nll']:.3f}")


def ask_both(page, http):
    go(page, "Chat")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Longest answer").fill("8")
    page.keyboard.press("Escape")
    page.get_by_label("Side by side with base").check()
    mine, base = ask(page, QUESTION).all()
    expect(mine.locator(".who")).to_have_text("me, version 1")
    expect(base.locator(".who")).to_have_text("base")
    assert mine.locator(".said").text_content() == said_by_api(http, "me", QUESTION, 8)
    assert base.locator(".said").text_content() == said_by_api(http, "base", QUESTION, 8)


def correct(page, http):
    mine = page.get_by_role("article", name="Answer of me")
    mine.get_by_role("button", name="Good answer").click()
    expect(mine.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    mine.get_by_role("button", name="Correct").click()
    better = mine.get_by_label("The better answer")
    expect(better).to_be_focused()
    better.fill("It burns all night.")
    mine.get_by_role("button", name="Keep as an example").click()
    expect(mine.get_by_role("status")).to_have_text("Kept: the next training learns it.")
    told = http.get("/v1/examples").json()
    assert told["feedback"] == {"up": 1, "down": 1, "corrections": 1}
    assert told["data"][0]["preview"] == f"user: {QUESTION}\nassistant: It burns all night."


def roll_back(page, http):
    go(page, "Versions")
    page.get_by_role("button", name="Go back to the one before").click()
    expect(page.locator("#versions-said")).to_have_text("The frozen backbone speaks now.")
    assert http.get("/v1/plugins").json()["current"] is None
    page.get_by_role("button", name="Go back to the one before").click()
    expect(page.locator("#versions-problem")).to_contain_text("no earlier version")
    go(page, "Chat")
    page.get_by_role("button", name="New conversation").click()
    mine, base = ask(page, QUESTION).all()
    expect(mine.locator(".who")).to_have_text("me, without a plugin yet")
    assert mine.locator(".said").text_content() == base.locator(".said").text_content()
    go(page, "Versions")
    page.get_by_role("button", name="Let version 1 speak").click()
    expect(page.locator("#state-speaks")).to_have_text("version 1")


def egress(page, http):
    go(page, "What left")
    page.get_by_text("Ever", exact=True).click()
    rows = http.get("/v1/egress").json()["data"]
    table = page.locator("#egress-table")
    for kind in {row["kind"] for row in rows}:
        expect(table.get_by_role("rowheader").filter(has_text=kind).first).to_be_visible()
    assert {"features", "session"} <= {row["kind"] for row in rows}
    expect(page.locator("#egress-totals")).to_contain_text("Sent")

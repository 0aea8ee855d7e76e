/** The conversation: who answers, one alone or two side by side; what a person thinks of an answer. */

import { ask, events } from "./api.js";
import { find, icon, make, say } from "./dom.js";

const ME = "me";
const BASE = "base";

/** What was said so far, by voice: with two of them each remembers its own answers. */
let spoken = { [ME]: [], [BASE]: [] };
let answering = null;
let known = "";

export function begin() {
  const question = find("question");
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send(question.value.trim());
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(question.value.trim());
    }
  });
  find("stop").addEventListener("click", () => answering?.abort());
  find("chat").addEventListener("keydown", (event) => {
    if (event.key === "Escape") answering?.abort();
  });
  find("new-conversation").addEventListener("click", forget);
}

export async function show() {
  if (matchMedia("(hover: hover)").matches) find("question").focus();
}

export async function refresh() {}

/** Offer who is there. */
export function voices({ current, data }) {
  const seen = JSON.stringify([current, data.map((row) => row.version)]);
  if (seen === known) return;
  known = seen;
  const select = find("voice");
  const chosen = select.value || ME;
  const me = current ? `me (version ${current})` : "me (no plugin speaks yet)";
  select.replaceChildren(
    make("option", { value: ME }, me),
    ...data.map(({ version }) => make("option", { value: `me:${version}` }, `version ${version}`)),
    make("option", { value: BASE }, "base, the frozen backbone"),
  );
  select.value = chosen;
  if (select.value !== chosen) select.value = ME;
  const words = current
    ? `Version ${current} of your plugin speaks.`
    : "It answers as the frozen backbone until it has learned from you.";
  say(find("welcome-words"), words);
}

function forget() {
  answering?.abort();
  spoken = { [ME]: [], [BASE]: [] };
  find("turns").replaceChildren();
  find("welcome").hidden = false;
  find("question").focus();
}

async function send(text) {
  if (!text || answering) return;
  const first = find("voice").value || ME;
  const asked = find("compare").checked && first !== BASE ? [first, BASE] : [first];
  find("question").value = "";
  find("welcome").hidden = true;
  const answers = make("div", { class: asked.length > 1 ? "answers two" : "answers" });
  const turn = make("li", { class: "turn" }, make("p", { class: "asked" }, text), answers);
  find("turns").append(turn);
  turn.scrollIntoView({ block: "end" });
  answering = new AbortController();
  busy(true);
  await Promise.all(asked.map((voice) => answer(voice, text, answers, answering.signal)));
  answering = null;
  busy(false);
  find("question").focus({ preventScroll: true });
}

function busy(now) {
  find("send").hidden = now;
  find("stop").hidden = !now;
}

/** One voice's answer; a question that could not be answered may be asked again. */
async function answer(voice, text, place, signal) {
  // Two voices have a memory each; whoever speaks alone goes on with the person's own.
  const memory = spoken[voice === BASE ? BASE : ME];
  const messages = [...memory, { role: "user", content: text }];
  const said = make("div", { class: "said" });
  const who = make("p", { class: "who" }, voice);
  const kind = voice === BASE ? "answer of-base" : "answer";
  const whole = make("article", { class: kind, "aria-label": `Answer of ${voice}`, "aria-busy": "true" }, who, said);
  place.append(whole);
  let model = voice;
  try {
    for await (const piece of events("/v1/chat/completions", body(voice, messages), signal)) {
      // Which version it was: "me" may be another one when the person says what they think of it.
      model = piece.system_fingerprint.replace(/-.*$/, "");
      say(who, voice !== BASE && model === BASE ? "me, without a plugin yet" : model.replace(":", ", version "));
      said.append(piece.choices[0]?.delta.content ?? "");
      follow(whole);
    }
  } catch (error) {
    if (error.name !== "AbortError") return failed(whole, error, () => again(voice, text, place, whole));
    said.append(" … (stopped)");
  } finally {
    whole.setAttribute("aria-busy", "false");
  }
  const content = said.textContent;
  memory.push({ role: "user", content: text }, { role: "assistant", content });
  find("chat-said").textContent = `${who.textContent}: ${content}`;
  if (content) whole.append(opinions({ model, messages, answer: content }));
}

async function again(voice, text, place, whole) {
  whole.remove();
  answering = new AbortController();
  busy(true);
  await answer(voice, text, place, answering.signal);
  answering = null;
  busy(false);
}

function body(voice, messages) {
  const [temperature, longest] = ["temperature", "longest"].map((name) => find(name).valueAsNumber);
  return { model: voice, messages, temperature: temperature || 0, max_tokens: longest || 512 };
}

function failed(whole, error, retry) {
  const long = error.code === "context_length_exceeded";
  const words = long ? "This conversation is longer than the model can read. Begin a new one." : error.message;
  whole.append(
    make(
      "div",
      { class: "notice bad", role: "alert" },
      make("p", {}, words),
      make("button", { type: "button", class: "small", onclick: long ? forget : retry }, long ? "New conversation" : "Try again"),
    ),
  );
  follow(whole);
}

/** Keep the end of an answer in sight, unless the person reads further up. */
function follow(element) {
  const below = document.documentElement.scrollHeight - innerHeight - scrollY;
  if (below < 220) scrollTo(0, document.documentElement.scrollHeight);
  else if (below < 0) element.scrollIntoView({ block: "end" });
}

/** Thumbs, and the better answer. */
function opinions(meant) {
  const told = make("span", { class: "fine", role: "status" });
  const thumbs = [["up", "Good answer"], ["down", "Bad answer"]].map(([rating, label]) => {
    const thumb = make("button", { type: "button", class: "quiet small", "aria-label": label, title: label, "aria-pressed": "false" }, icon(rating));
    thumb.addEventListener("click", async () => {
      if (!(await tell(told, { ...meant, rating }, "Noted."))) return;
      for (const one of thumbs) one.setAttribute("aria-pressed", String(one === thumb));
    });
    return thumb;
  });
  const correct = make("button", { type: "button", class: "quiet small", "aria-expanded": "false" }, icon("correct"), "Correct");
  const acts = make("div", { class: "acts" }, ...thumbs, correct, told);
  correct.addEventListener("click", () => {
    if (acts.nextSibling) return;
    correct.setAttribute("aria-expanded", "true");
    acts.after(correction(meant, told, () => {
      correct.setAttribute("aria-expanded", "false");
      correct.focus();
    }));
    acts.nextSibling.querySelector("textarea").focus();
  });
  const whole = document.createDocumentFragment();
  whole.append(acts);
  return whole;
}

function correction(meant, told, closed) {
  const better = make("textarea", { rows: "4", required: true });
  better.value = meant.answer;
  const close = () => {
    form.remove();
    closed();
  };
  const form = make(
    "form",
    { class: "correction" },
    make("label", {}, "The better answer", better),
    make(
      "div",
      { class: "buttons" },
      make("button", { type: "submit", class: "main small" }, "Keep as an example"),
      make("button", { type: "button", class: "quiet small", onclick: close }, "Never mind"),
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const sent = { ...meant, rating: "down", correction: better.value };
    if (await tell(told, sent, "Kept: the next training learns it.")) close();
  });
  return form;
}

async function tell(place, sent, thanks) {
  try {
    const { rolled_back: reason } = await ask("POST", "/v1/feedback", sent);
    say(place, reason ? `${thanks} What spoke before speaks again: ${reason}.` : thanks);
    return true;
  } catch (error) {
    say(place, error.message);
    return false;
  }
}

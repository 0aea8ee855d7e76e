/** What left the device: how much, of which kind, to whom, when and why. */

import { ask } from "./api.js";
import { find, make } from "./dom.js";
import { bytes, count, moment } from "./words.js";

const KINDS = {
  features: "texts to be read: what you teach, what you have embedded",
  prefix: "your prefix: your newest text",
  prompt: "what you ask",
  answer: "answers, token by token, and guesses at how they go on",
  replay: "a conversation once more, lost by the cloud",
  session: "opening and closing sessions; no text",
  gate: "your plugin's classifier, to open a session with; no text",
  federated: "what training added to weights shared with others; no text",
  facts: "asking which backbone is hosted; no text",
  tokenizer: "fetching the tokenizer; no text",
  kit: "fetching what training runs on; no text",
};

const PURPOSES = {
  api: "this page, or programs that use the agent",
  chat: "a chat in a terminal",
  run: "a question in a terminal",
  train: "training",
  evaluate: "an evaluation",
  migrate: "moving to another backbone",
  forget: "forgetting",
  status: "seeing whether the cloud is there",
};

const SUMS = { up: ["Sent", bytes], down: ["Received", bytes], tokens: ["Tokens of text", count], exchanges: ["Exchanges", count] };

const DAY = 24 * 3600;

let shown = "";

export function begin() {
  find("period").addEventListener("change", show);
}

export async function show() {
  const period = document.querySelector("[name=period]:checked").value;
  const { data } = await ask("GET", `/v1/egress?since=${since(period)}&by=day,host,kind,purpose`);
  const seen = JSON.stringify([period, data]);
  if (seen === shown) return;
  shown = seen;
  find("egress-totals").replaceChildren(...sums(data).map(([name, [words, told]]) => figure(words, told(total(data, name)))));
  const empty = make("p", {}, "Nothing has left this device in that time.");
  find("egress-table").replaceChildren(data.length ? table(data) : empty);
}

export const refresh = show;

function since(period) {
  if (period === "ever") return 0;
  const midnight = new Date().setHours(0, 0, 0, 0) / 1000;
  return period === "day" ? midnight : midnight - 6 * DAY;
}

const total = (rows, name) => rows.reduce((sum, row) => sum + row[name], 0);

/** The sums that the ledger knows. */
const sums = (rows) => Object.entries(SUMS).filter(([name]) => rows.length === 0 || name in rows[0]);

function figure(name, value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value));
}

function table(rows) {
  const numbers = sums(rows);
  const timed = "last" in rows[0];
  const newest = timed ? rows.toSorted((one, other) => other.last - one.last) : rows;
  const heads = [...(timed ? [["Last", ""]] : []), ["What", ""], ["To whom", ""], ...numbers.map(([, [words]]) => [words, "number"])];
  const body = newest.map((row) =>
    make(
      "tr",
      {},
      timed ? make("td", { "data-head": "Last" }, moment(row.last)) : null,
      make("th", { scope: "row" }, row.kind, make("span", { class: "why" }, why(row))),
      make("td", { "data-head": "To whom" }, row.host),
      ...numbers.map(([name, [words, told]]) => make("td", { class: "number", "data-head": words }, told(row[name]))),
    ),
  );
  return make(
    "table",
    { class: "ledger" },
    make("caption", { class: "unseen" }, "What left and what came, by kind and address"),
    make("thead", {}, make("tr", {}, ...heads.map(([words, kind]) => make("th", { scope: "col", class: kind }, words)))),
    make("tbody", {}, ...body),
  );
}

function why({ kind, purpose }) {
  const words = KINDS[kind] ?? "";
  return purpose ? `${words}; for ${PURPOSES[purpose] ?? purpose}` : words;
}

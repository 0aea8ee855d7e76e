/** The versions of the plugin: what each part of them brought, and which one speaks. */

import { ask } from "./api.js";
import { find, make, say } from "./dom.js";
import { bytes, change, many, moment, nats, span } from "./words.js";

const PARTS = {
  base: "Frozen backbone",
  prefix: "+ your prefix",
  memory: "+ prefix and memory",
  plugin: "+ prefix and plugin",
  whole: "Everything",
  unprefixed: "Prefix off",
};

/** What the parts are measured on besides the person's own text. */
const FOREIGN = { general: "General text", requests: "General requests" };

let shown = "";

export function begin() {
  find("roll-back").addEventListener("click", () => act("/v1/plugins/rollback", {}));
}

export async function show() {
  const found = await ask("GET", "/v1/plugins");
  const seen = JSON.stringify(found);
  if (seen === shown) return;
  shown = seen;
  const cards = found.data.map((row) => card(row, found.current));
  if (found.reason) say(find("versions-said"), `Rolled back: ${found.reason}.`);
  find("version-list").replaceChildren(...cards, backbone(found.current));
}

export const refresh = show;

async function act(path, body) {
  say(find("versions-problem"), "");
  try {
    const { current } = await ask("POST", path, body);
    await show();
    say(find("versions-said"), current ? `Version ${current} speaks now.` : "The frozen backbone speaks now.");
    find("versions-said").scrollIntoView({ block: "nearest" });
  } catch (error) {
    say(find("versions-problem"), error.message);
  }
  find("versions-problem").hidden = !find("versions-problem").textContent;
  if (document.activeElement === document.body) find("versions-title").focus();
}

function card({ version, card: told, created, bytes: size, recipe }, current) {
  const speaks = version === current;
  const title = `version-${version}`;
  return make(
    "article",
    { class: `card version${speaks ? " speaks" : ""}`, "aria-labelledby": title },
    head(title, `Version ${version}`, speaks, speaks ? null : use(version, `Let version ${version} speak`)),
    told.evaluation ? make("p", {}, verdict(told)) : null,
    told.evaluation ? scrolled(`What the parts of version ${version} bring`, parts(told)) : null,
    make("p", { class: "fine" }, about(told.training, created, size, recipe)),
  );
}

/** What is too wide for a narrow screen is scrolled, by keyboard as well. */
const scrolled = (label, table) =>
  make("div", { class: "table", tabindex: "0", role: "region", "aria-label": label }, table);

function backbone(current) {
  const speaks = current === null;
  return make(
    "article",
    { class: `card version${speaks ? " speaks" : ""}`, "aria-labelledby": "version-base" },
    head("version-base", "The frozen backbone", speaks, speaks ? null : use("base", "Let it speak")),
    make("p", { class: "fine" }, "As it is for everybody: without prefix, plugin and memory."),
  );
}

function head(id, title, speaks, button) {
  const named = make("div", { class: "named" }, make("h2", { id }, title), speaks ? make("span", { class: "chip" }, "speaks now") : null);
  return make("div", { class: "line" }, named, button);
}

function use(version, label) {
  return make("button", { type: "button", onclick: () => act("/v1/plugins/use", { version }) }, label);
}

function verdict({ better, reason, harm }) {
  const found = better ? "It was better than what spoke before" : "It was not better than what spoke before, so it did not speak by itself";
  const cost = typeof harm === "number" ? ` Text that is nobody's own costs it ${change(harm)}.` : "";
  return `${found}: ${reason}.${cost}`;
}

/** What each part gives, on text held out from training and on general text. */
function parts(told) {
  const { evaluation, speaks } = told;
  const foreign = Object.keys(FOREIGN).filter((name) => told[name]);
  const found = Object.keys(PARTS).filter((part) => evaluation[part]);
  const gains = found.map((part) => Math.max(0, evaluation.base.nll - evaluation[part].nll));
  const most = Math.max(...gains) || 1;
  const heads = [["Part", ""], ["Your text", "number"], ["Change", "number"], ...foreign.map((name) => [FOREIGN[name], "number"])];
  const rows = found.map((part, place) => {
    const { nll } = evaluation[part];
    const bar = make("span", { class: "bar" });
    bar.style.setProperty("width", `${(gains[place] / most) * 100}%`);
    return make(
      "tr",
      { class: part === speaks ? "part-speaks" : "" },
      make("th", { scope: "row" }, PARTS[part] + (part === speaks ? " (speaks)" : "")),
      make("td", { class: "number" }, nats(nll)),
      make("td", { class: "number" }, part === "base" ? "" : change(nll / evaluation.base.nll - 1)),
      ...foreign.map((name) => make("td", { class: "number" }, told[name][part] ? nats(told[name][part].nll) : "–")),
      make("td", { class: "bars", "aria-hidden": "true" }, bar),
    );
  });
  return make(
    "table",
    {},
    make("caption", {}, `How hard the next token is to foresee, in nats a token over ${many(evaluation.tokens, "token")} held out; lower is better`),
    make("thead", {}, make("tr", {}, ...heads.map(([words, kind]) => make("th", { scope: "col", class: kind }, words)), make("td", { class: "bars", "aria-hidden": "true" }))),
    make("tbody", {}, ...rows),
  );
}

function about(training, created, size, recipe) {
  const course = training ? [`${many(training.epochs, "epoch")}, ${many(training.steps, "step")}`, `${many(training.tokens, "token")} in ${span(training.seconds)}`] : [];
  return [moment(created), recipe, bytes(size), ...course].filter(Boolean).join(" · ");
}

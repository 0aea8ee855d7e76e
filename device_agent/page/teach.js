/** What the model may learn from: given as files or as text, shown, and forgotten. */

import { ask } from "./api.js";
import { find, make, say, sure } from "./dom.js";
import { many, moment } from "./words.js";

const ROWS = 25;

let rows = ROWS;
let shown = "";

export function begin() {
  const drop = find("drop");
  const view = find("teach");
  // All of the place takes files: a browser would open one that falls beside the box.
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  view.addEventListener("dragleave", (event) => {
    if (!view.contains(event.relatedTarget)) drop.classList.remove("over");
  });
  view.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    keepFiles(event.dataTransfer.files);
  });
  find("files").addEventListener("change", async (event) => {
    await keepFiles(event.target.files);
    event.target.value = "";
  });
  find("paste").addEventListener("submit", async (event) => {
    event.preventDefault();
    const pasted = find("pasted");
    const text = pasted.value.trim();
    const kept = await keep("Your text", () => ask("POST", "/v1/examples", { text, source: "page" }));
    if (kept) pasted.value = "";
  });
  find("known-more").addEventListener("click", () => {
    rows += ROWS;
    shown = "";
    show();
  });
}

export async function show() {
  const found = await ask("GET", "/v1/examples");
  const seen = JSON.stringify(found);
  if (seen === shown) return;
  shown = seen;
  const { text, chat } = found.examples;
  const corrections = found.feedback?.corrections ?? 0;
  const words = `${many(text, "text")} and ${many(chat, "conversation")}`;
  const corrected = corrections ? `, with ${many(corrections, "correction")} of answers` : "";
  say(find("known-count"), text + chat ? `${words}${corrected}.` : "Nothing yet.");
  find("known").replaceChildren(...found.data.slice(0, rows).map(row));
  find("known-more").hidden = found.data.length <= rows;
}

export const refresh = show;

function row(example) {
  const forget = () => forgetExample(example);
  return make(
    "li",
    {},
    make("p", { class: "preview" }, example.preview),
    make("p", { class: "fine" }, `${example.source} · ${moment(example.created)}`),
    make("button", { type: "button", class: "quiet small", "aria-label": `Forget: ${example.preview.slice(0, 60)}`, onclick: forget }, "Forget"),
  );
}

async function keepFiles(files) {
  for (const file of files) {
    const path = `/v1/examples/file?name=${encodeURIComponent(file.name)}`;
    await keep(file.name, () => ask("POST", path, file));
  }
}

/** Have something kept, and say what became of it. */
async function keep(name, send) {
  try {
    const { added, known } = await send();
    const already = known ? `, ${known} known already` : "";
    told(`${name}: ${many(added, "example")} kept${already}`);
    await show();
    return true;
  } catch (error) {
    told(`${name}: ${error.message}`, "bad");
    return false;
  }
}

async function forgetExample(example) {
  const words = `“${example.preview.slice(0, 120)}” goes for good, with what your model remembers of it and every version trained on it.`;
  if (!(await sure("Forget this example?", words, "Forget it"))) return;
  try {
    const { versions, job } = await ask("DELETE", `/v1/examples/${example.id}`);
    const gone = versions.length ? ` Gone with it: version ${versions.join(", ")}.` : "";
    told(`Forgotten.${gone}${job ? " A new one is being trained." : ""}`);
  } catch (error) {
    told(error.message, "bad");
  }
  await show();
  find("known-title").scrollIntoView({ block: "nearest" });
}

function told(words, kind = "") {
  const kept = find("kept");
  kept.prepend(make("p", { class: kind }, words));
  while (kept.children.length > 6) kept.lastChild.remove();
}

/** The page put together: its five places, the token, what is going on, and who is away. */

import { Trouble, ask, keepToken, news } from "./api.js";
import * as chat from "./chat.js";
import { find, say } from "./dom.js";
import * as egress from "./egress.js";
import * as teach from "./teach.js";
import * as train from "./train.js";
import * as versions from "./versions.js";
import { span } from "./words.js";

/** By id of their section. Each has `show`, called on arrival, and `refresh`, called every BEAT. */
const PLACES = { chat, teach, train, versions, egress };
const BEAT = 1500;

let place = null;
let unlocked = false;
let cloudAway = false;

/** Take the token out of the address, where `sideplug open` has put it. */
function takeToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    keepToken(decodeURIComponent(given[1]));
    history.replaceState(null, "", "#chat");
  }
}

function go(focus) {
  const wanted = location.hash.slice(1);
  if (wanted in PLACES) place = wanted;
  else if (place) return;
  else place = "chat";
  for (const name of Object.keys(PLACES)) find(name).hidden = name !== place;
  for (const link of document.querySelectorAll(".places a")) {
    if (link.hash === `#${place}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = find(`${place}-title`);
  document.title = `${title.textContent} · Sideplug`;
  scrollTo(0, 0);
  if (focus) title.focus({ preventScroll: true });
  if (unlocked) quietly(PLACES[place].show);
}

/** What goes wrong without being asked for is told by the notices, or at the next question. */
async function quietly(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
  }
}

async function showState() {
  const [plugins, jobs] = await Promise.all([ask("GET", "/v1/plugins"), ask("GET", "/v1/jobs")]);
  say(find("state-speaks"), plugins.current ? `version ${plugins.current}` : "the frozen backbone");
  const job = jobs.data[0];
  say(find("state-training"), job ? jobInWords(job) : "none yet");
  chat.voices(plugins);
}

function jobInWords({ state, progress }) {
  if (state !== "running" || !progress.step) return state === "running" ? "getting ready" : state;
  return `step ${progress.step} of ${progress.steps}, ${span(progress.seconds_left)} left`;
}

async function askCloud() {
  const cloud = await ask("GET", "/v1/cloud");
  cloudAway = !cloud.reachable;
  const shown = find("state-cloud");
  shown.classList.add("dot");
  shown.classList.toggle("away", cloudAway);
  say(shown, cloudAway ? "does not answer" : cloud.backbone);
  shown.title = cloud.url;
  say(find("cloud-problem"), cloud.problem ?? "");
  find("cloud-notice").hidden = !cloudAway;
}

async function beat() {
  if (document.hidden || !unlocked) return;
  await quietly(showState);
  await quietly(PLACES[place].refresh);
}

/** A cloud that is there is not asked again and again: asking, too, is something that leaves. */
async function lookForCloud() {
  if (!document.hidden && unlocked && cloudAway) await quietly(askCloud);
}

async function unlock() {
  try {
    await ask("GET", "/v1/models");
  } catch (error) {
    if (error.status === 401) return false;
  }
  unlocked = true;
  find("locked").close();
  await Promise.all([quietly(askCloud), quietly(showState), quietly(PLACES[place].show)]);
  return true;
}

function lock() {
  unlocked = false;
  if (!find("locked").open) find("locked").showModal();
}

news.addEventListener("locked", lock);
news.addEventListener("agent", ({ detail: there }) => {
  find("agent-notice").hidden = there;
});
news.addEventListener("cloud-away", () => {
  if (!cloudAway) quietly(askCloud);
});

find("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepToken(find("token").value.trim());
  const open = await unlock();
  say(find("locked-problem"), open ? "" : "That is not the token of this home.");
  find("token").value = "";
});
// Without the token there is nothing behind it.
find("locked").addEventListener("cancel", (event) => event.preventDefault());
find("locked").addEventListener("close", () => unlocked || lock());

find("cloud-again").addEventListener("click", () => quietly(askCloud));
addEventListener("hashchange", () => {
  const before = location.hash;
  takeToken();
  if (before !== location.hash) unlock();
  go(true);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main-content").focus();
});
document.addEventListener("visibilitychange", beat);
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof Trouble) event.preventDefault();
});

takeToken();
go(false);
for (const one of Object.values(PLACES)) one.begin();
await unlock();
setInterval(beat, BEAT);
setInterval(lookForCloud, 5000);

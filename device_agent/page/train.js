/** Training: started, watched live, paused, resumed and cancelled. */

import { ask } from "./api.js";
import { lineChart } from "./chart.js";
import { find, make, say } from "./dom.js";
import { bytes, count, moment, nats, span } from "./words.js";

const STATES = {
  queued: "Waiting",
  running: "Training",
  paused: "Paused",
  stopped: "Stopped",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};
const OPEN = ["queued", "running", "paused"];
const ACTIONS = { pause: ["queued", "running"], resume: ["paused"], cancel: OPEN };

/** After so long without a step a training seems to hold: steps are noted every two seconds. */
const STILL_SECONDS = 15;

let newest = null;
let shownEarlier = "";

export function begin() {
  find("job-start").addEventListener("click", () => act("/v1/jobs", { options: options() }));
  for (const action of Object.keys(ACTIONS)) {
    find(`job-${action}`).addEventListener("click", () => act(`/v1/jobs/${newest.id}/${action}`, {}));
  }
  new ResizeObserver(() => newest && chart(newest.progress)).observe(find("job-chart"));
}

export async function show() {
  const { data } = await ask("GET", "/v1/jobs");
  newest = data.length ? await ask("GET", `/v1/jobs/${data[0].id}`) : null;
  if (newest) showJob(newest);
  showEarlier(data.slice(1));
}

export const refresh = show;

async function act(path, body) {
  problem("");
  try {
    await ask("POST", path, body);
    await show();
  } catch (error) {
    problem(error.message);
  }
  // The button that was pressed is gone, perhaps: whoever uses the keyboard must not be lost.
  const left = document.querySelector("#train .line .buttons button:not([hidden])");
  if (document.activeElement === document.body) left?.focus();
}

function options() {
  const [epochs, minutes] = ["epochs", "minutes"].map((name) => find(name).valueAsNumber);
  return {
    ...(epochs ? { epochs } : {}),
    ...(minutes ? { max_seconds: minutes * 60 } : {}),
  };
}

function showJob(job) {
  const { progress, state } = job;
  say(find("job-title"), `Training ${job.id}: ${STATES[state].toLowerCase()}`);
  say(find("job-words"), words(job));
  problem(state === "failed" ? `Training failed: ${job.problem ?? "it ended unforeseen."}` : "");
  const ours = job.options !== null;
  for (const [action, states] of Object.entries(ACTIONS)) {
    find(`job-${action}`).hidden = !(ours && states.includes(state));
  }
  find("job-start").hidden = OPEN.includes(state);
  const begun = Boolean(progress.steps);
  find("job-progress").hidden = find("job-figures").hidden = !begun;
  find("job-progress").value = begun ? progress.step / progress.steps : 0;
  if (begun) figures(progress, state);
  chart(progress);
}

function words({ state, progress, problem: why, options: chosen, updated }) {
  const terminal = chosen === null ? " It was started in a terminal, where Ctrl-C stops it." : "";
  if (state === "queued") return why ? `It waits: ${why}` : "It begins as soon as your settings let it; by default when nobody has chatted for some seconds.";
  if (state === "running" && !progress.steps) return "Getting ready: the cloud reads what is new once; after that everything happens on this device.";
  if (state === "running" && progress.step >= progress.steps) return "Finding out what it has learned.";
  const still = Date.now() / 1000 - updated > STILL_SECONDS;
  if (state === "running" && still && !terminal) return "No step was done for a while: training holds while somebody chats.";
  if (state === "running") return `Learning.${terminal}`;
  if (state === "paused") return "It goes on where it was when you resume it.";
  if (state === "done") return "There is a new version: see Versions for what it brought.";
  if (state === "stopped") return "What was learned until then is a version.";
  return "";
}

function figures(progress, state) {
  const open = OPEN.includes(state);
  say(find("job-left"), open ? span(progress.seconds_left) : "–");
  say(find("job-epoch"), `${progress.epoch} of ${count(progress.epochs)}`);
  say(find("job-step"), `${count(progress.step)} of ${count(progress.steps)}`);
  say(find("job-loss"), nats(progress.curve?.at(-1)?.[1] ?? progress.loss));
  const heldOut = progress.held_out?.at(-1)?.[1];
  say(find("job-held-out"), heldOut === undefined ? "after an epoch" : nats(heldOut));
  const { memory, peak_memory: most } = progress;
  say(find("job-memory"), memory ? (open ? bytes(memory) : `${bytes(most)} at most`) : "–");
}

function chart({ curve = [], held_out: heldOut = [] }) {
  const figure = find("job-chart");
  figure.hidden = curve.length < 2;
  if (!figure.hidden) lineChart(figure, { curve, "held-out": heldOut });
}

function problem(text) {
  say(find("job-problem"), text);
  find("job-problem").hidden = !text;
}

function showEarlier(jobs) {
  const seen = JSON.stringify(jobs.map((job) => [job.id, job.state]));
  if (seen === shownEarlier) return;
  shownEarlier = seen;
  const rows = jobs.map((job) =>
    make(
      "li",
      {},
      make("p", {}, `Training ${job.id}: ${STATES[job.state].toLowerCase()}`),
      make("p", { class: "fine" }, [job.recipe, moment(job.created), job.problem].filter(Boolean).join(" · ")),
    ),
  );
  find("earlier").replaceChildren(...(rows.length ? rows : [make("li", { class: "fine" }, "None.")]));
}

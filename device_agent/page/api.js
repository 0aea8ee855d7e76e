/** What the page asks of the agent: with the home's token, and with every failure told in words. */

const KEY = "sideplug-token";

/** Something that the person should read. */
export class Trouble extends Error {
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const AWAY = "The agent does not answer. Start it with `sideplug up`.";
const CUT = "The answer was cut off: the agent has ended. Start it with `sideplug up`.";

/** Told of what every request shows: `locked` when the token is wrong, `agent` whether it answers. */
export const news = new EventTarget();

function tell(kind, detail) {
  news.dispatchEvent(new CustomEvent(kind, { detail }));
}

/** Keep the token for this tab alone. */
export const keepToken = (token) => sessionStorage.setItem(KEY, token);

/**
 * A request; gives the JSON of its answer.
 *
 * @param {string|Blob|object|undefined} body An object is sent as JSON, a file as it is.
 * @throws {Trouble}
 */
export async function ask(method, path, body) {
  return (await send(method, path, body)).json();
}

/**
 * The events of an answer that comes piece by piece.
 *
 * @throws {Trouble} Also in the middle.
 */
export async function* events(path, body, signal) {
  const answer = await send("POST", path, { ...body, stream: true }, signal);
  let rest = "";
  for await (const piece of texts(answer.body)) {
    const whole = (rest + piece).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const told = JSON.parse(data);
      if (told.error) throw new Trouble(told.error.message, told.error.code, 200);
      yield told;
    }
  }
  throw new Trouble(CUT, "cut", 0);
}

async function* texts(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reading(reader);
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function reading(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(CUT, "cut", 0);
  }
}

async function send(method, path, body, signal) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` };
  const raw = body === undefined || body instanceof Blob;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: raw ? body : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tell("agent", false);
    throw new Trouble(AWAY, "agent_away", 0);
  }
  tell("agent", true);
  if (answer.ok) return answer;
  const trouble = await troubleOf(answer);
  if (trouble.status === 401) tell("locked");
  if (trouble.code === "cloud_unreachable") tell("cloud-away", trouble.message);
  throw trouble;
}

async function troubleOf(answer) {
  try {
    const { message, code } = (await answer.json()).error;
    return new Trouble(message, code, answer.status);
  } catch {
    return new Trouble(`The agent has failed (${answer.status}).`, "unknown", answer.status);
  }
}

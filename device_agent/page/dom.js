/** Elements, made and found. Text stays text: nothing here makes markup of it. */

/** The element of that id. */
export const find = (id) => document.getElementById(id);

/**
 * A new element.
 *
 * @param {string} name Its tag.
 * @param {object} traits Attributes; `on…` are listeners, true and false switch an attribute on and off.
 * @param {...(Node|string|null)} inside Its children; null is left out.
 */
export function make(name, traits = {}, ...inside) {
  const element = document.createElement(name);
  for (const [trait, value] of Object.entries(traits)) {
    if (trait.startsWith("on")) element.addEventListener(trait.slice(2), value);
    else if (value === true) element.setAttribute(trait, "");
    else if (value !== false && value != null) element.setAttribute(trait, value);
  }
  element.append(...inside.filter((one) => one != null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A new element of a drawing. */
export function draw(name, traits = {}, ...inside) {
  const element = document.createElementNS(SVG, name);
  for (const [trait, value] of Object.entries(traits)) element.setAttribute(trait, value);
  element.append(...inside);
  return element;
}

/** One of the pictures of index.html, for the eye alone. */
export const icon = (name) =>
  draw("svg", { "aria-hidden": "true" }, draw("use", { href: `#icon-${name}` }));

/** Set a text only when it is another one: what is read aloud should not be read again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Ask whether something that cannot be undone is wanted. */
export function sure(title, words, yes) {
  const dialog = find("sure");
  say(find("sure-title"), title);
  say(find("sure-words"), words);
  say(find("sure-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

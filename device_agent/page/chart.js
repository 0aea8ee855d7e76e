/** Lines over steps, drawn to the size at hand, and told in a sentence for whoever does not see them. */

import { draw } from "./dom.js";
import { nats } from "./words.js";

const MARGIN = { left: 44, right: 12, top: 10, bottom: 24 };
const HEIGHT = 240;
const NAMES = { curve: "while training", "held-out": "on text held out" };

/**
 * Draw into a figure, in place of what was drawn there before.
 *
 * @param {Object<string, number[][]>} lines Points `[step, loss, …]` by class.
 */
export function lineChart(figure, lines) {
  const width = Math.max(figure.clientWidth, 240);
  const points = Object.values(lines).flat();
  const [left, right] = [0, Math.max(...points.map(([step]) => step))];
  const ticks = ticksFor(points.map(([, loss]) => loss));
  const x = (step) => MARGIN.left + ((step - left) / (right - left || 1)) * (width - MARGIN.left - MARGIN.right);
  const [low, high] = [ticks[0], ticks.at(-1)];
  const y = (loss) => HEIGHT - MARGIN.bottom - ((loss - low) / (high - low || 1)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const picture = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": inWords(lines) });
  for (const tick of ticks) {
    picture.append(
      draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      draw("text", { x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)),
    );
  }
  for (const step of [left, Math.round(right / 2), right]) {
    const anchor = step === left ? "start" : step === right ? "end" : "middle";
    picture.append(draw("text", { x: x(step), y: HEIGHT - 4, "text-anchor": anchor }, String(step)));
  }
  for (const [name, line] of Object.entries(lines)) {
    const path = line.map(([step, loss], place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`);
    picture.append(draw("path", { class: name, d: path.join("") }));
    if (name === "held-out" && line.length <= 20) {
      picture.append(...line.map(([step, loss]) => draw("circle", { class: name, cx: x(step), cy: y(loss), r: 3 })));
    }
  }
  figure.querySelector("svg")?.remove();
  figure.append(picture);
}

/** Some round numbers around all values. */
function ticksFor(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const rough = (high - low || 0.1) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((one) => one >= rough);
  const ticks = [];
  for (let place = Math.floor(low / step); place * step < high + step; place++) ticks.push(place * step);
  return ticks;
}

const short = (value) => String(Number(value.toPrecision(3)));

function inWords(lines) {
  const told = Object.entries(lines)
    .filter(([, line]) => line.length)
    .map(([name, line]) => `${NAMES[name]} from ${nats(line[0][1])} to ${nats(line.at(-1)[1])}`);
  return `Loss in nats a token: ${told.join("; ")}, up to step ${Object.values(lines)[0].at(-1)[0]}.`;
}

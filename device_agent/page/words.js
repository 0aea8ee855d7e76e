/** Numbers as a person reads them. */

const SMALL = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const WHOLE = new Intl.NumberFormat();
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** 3,200,000 → "3.2 MB". */
export function bytes(count) {
  let value = count;
  for (const unit of ["B", "KB", "MB"]) {
    if (value < 1000) return `${unit === "B" ? WHOLE.format(value) : SMALL.format(value)} ${unit}`;
    value /= 1000;
  }
  return `${SMALL.format(value)} GB`;
}

/** 125 → "2 min 5 s". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${WHOLE.format(Math.floor(whole / 3600))} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Seconds since 1970 → a day and a time. */
export const moment = (seconds) => MOMENT.format(new Date(seconds * 1000));

export const count = (number) => WHOLE.format(number);

/** "1 text", "2 texts". */
export const many = (number, one, more = `${one}s`) =>
  `${WHOLE.format(number)} ${number === 1 ? one : more}`;

/** Nats a token. */
export const nats = (value) => value.toFixed(3);

/** A change as a share: -0.034 → "−3.4 %". */
export const change = (share) =>
  `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share * 100).toFixed(1)} %`;

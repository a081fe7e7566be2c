// One signal: what was observed, what is forecast with its interval, and when something was wrong. SVG, no library.
import { moment, number, t } from "./words.js";

const NS = "http://www.w3.org/2000/svg";
const [W, H, LEFT, BOTTOM] = [560, 150, 46, 18];

export function svg(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function chart(signal) {
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": signal.signal });
  const f = signal.forecast, points = signal.points;
  if (!points.length) return drawing;
  const ahead = f ? f.mean.map((_, i) => f.start_ms + (i + 0.5) * f.step_ms) : [];
  const from = points[0][0], to = Math.max(points.at(-1)[0], ahead.at(-1) ?? 0) || from + 1;
  const values = points.map((p) => p[1]).concat(f ? f.low : [], f ? f.high : [], f?.low95 ?? [], f?.high95 ?? []);
  let low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  low -= pad; high += pad;
  const x = (ms) => LEFT + ((ms - from) / (to - from || 1)) * (W - LEFT - 4);
  const y = (v) => 4 + (1 - (v - low) / (high - low)) * (H - BOTTOM - 8);
  const path = (rows) => "M" + rows.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L");
  for (const share of [0, 0.5, 1]) {
    const v = low + pad + share * (high - low - 2 * pad);
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: W, y1: y(v), y2: y(v) }), svg("text", { class: "axis", x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, number(v)));
  }
  for (const e of signal.events) {
    const a = Math.max(e.start_ms, from), b = Math.min(e.end_ms ?? to, to);
    if (b > a) drawing.append(svg("rect", { class: "event", x: x(a), width: Math.max(x(b) - x(a), 2), y: 2, height: H - BOTTOM - 4 }));
  }
  if (f && ahead.at(-1) >= from) {
    const fan = (lower, upper) => path(ahead.map((ms, i) => [ms, upper[i]]).concat(ahead.map((ms, i) => [ms, lower[i]]).reverse())) + "Z";
    if (f.low95 && f.high95) drawing.append(svg("path", { class: "band wide", d: fan(f.low95, f.high95) }));
    drawing.append(svg("path", { class: "band", d: fan(f.low, f.high) }), svg("path", { class: "mean", d: path(ahead.map((ms, i) => [ms, f.mean[i]])) }));
    drawing.append(svg("line", { class: "now", x1: x(f.start_ms), x2: x(f.start_ms), y1: 2, y2: H - BOTTOM }));
  }
  drawing.append(svg("path", { class: "observed", d: path(points) }));
  drawing.append(svg("text", { class: "axis", x: LEFT, y: H - 3 }, moment(from)), svg("text", { class: "axis", x: W - 2, y: H - 3, "text-anchor": "end" }, moment(to)));
  drawing.append(svg("title", {}, `${signal.signal}: ${t("observed")}, ${t("forecast")}`));
  return drawing;
}

export function bar(share) {
  const drawing = svg("svg", { viewBox: "0 0 90 8", "aria-hidden": "true" });
  drawing.append(svg("rect", { class: "rail", width: 90, height: 8, rx: 4 }), svg("rect", { class: "bar", width: Math.max(2, 90 * Math.min(1, share)), height: 8, rx: 4 }));
  return drawing;
}

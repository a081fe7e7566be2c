// A report whose every claim can be opened: what the number is, where it was measured, and the samples around it.
import { svg } from "./chart.js";
import { lang, moment, number } from "./words.js";

const WORDS = {
  en: { of: "{0} of {1} observations", from: "measured on {0}, {1}", expected: "expected {0} to {1}", model: "by {0}, version {1}, {2}", reference: "by the simple reference", said: "said by {0}", derived: "from the event itself", none: "No samples of this span were shared with the server; the raw observations are on the gateway.", means: "shared means of {0} min; the marked span is what was measured", strict: "words chosen by the language model", free: "prose of the language model, read back and found true", template: "first wording of the catalogue", read: "what it stands on" },
  zh: { of: "{1} 个观测值的{0}", from: "测量于 {0}，{1}", expected: "预期 {0} 至 {1}", model: "由 {0} 第 {1} 版给出，{2}", reference: "由简单基准给出", said: "来自 {0}", derived: "来自事件本身", none: "该时段的样本未共享给服务器；原始观测值保存在网关上。", means: "共享的 {0} 分钟均值；标记区间为测量时段", strict: "措辞由语言模型选择", free: "语言模型的行文，已回读核实", template: "采用词条库的首选措辞", read: "出处" },
};
const STATISTICS = { max: ["maximum", "最大值"], min: ["minimum", "最小值"], mean: ["mean", "平均值"], last: ["last", "最后值"] };
const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
export const modeWords = (mode) => t(mode ?? "template");

// A section's text as nodes: words, and a button for each claim. Places count characters, not UTF-16 halves.
export function said(section, open) {
  const zh = lang() === "zh", letters = [...(zh ? section.text_zh : section.text_en)], spans = [...((zh ? section.spans_zh : section.spans_en) ?? [])].sort((a, b) => span(a)[0] - span(b)[0]);
  const nodes = [];
  let at = 0;
  for (const one of spans) {
    const [start, end, fact] = span(one);
    if (start < at || end > letters.length) continue;
    nodes.push(letters.slice(at, start).join(""));
    const button = document.createElement("button");
    button.type = "button";
    button.className = "claim";
    button.textContent = letters.slice(start, end).join("");
    button.addEventListener("click", () => open(fact));
    nodes.push(button);
    at = end;
  }
  nodes.push(letters.slice(at).join(""));
  return nodes;
}
// The values of facts that a section shows, as they stand in its sentences.
export function values(section) {
  const zh = lang() === "zh", letters = [...(zh ? section.text_zh : section.text_en)];
  return ((zh ? section.spans_zh : section.spans_en) ?? []).map((one) => letters.slice(...span(one).slice(0, 2)).join(""));
}
const span = (s) => (Array.isArray(s) ? s : [s.start, s.end, s.fact]);

// Where a fact comes from, as lines.
export function origin(fact, report) {
  const e = fact.evidence === null || fact.evidence === undefined ? null : report.evidence[fact.evidence];
  if (!e) return [fact.source ? t("said", fact.source) : t("derived")];
  const statistic = (STATISTICS[e.statistic] ?? [e.statistic, e.statistic])[lang() === "zh" ? 1 : 0];
  const lines = [`${number(e.value)} ${e.unit} · ${t("of", statistic, e.samples)}`, t("from", `${e.machine} / ${e.signal}`, `${moment(e.start_ms)} – ${moment(e.end_ms)}`)];
  if (e.expected_low !== null) lines.push(t("expected", number(e.expected_low), `${number(e.expected_high)} ${e.unit}`));
  if (e.model) lines.push(e.model.version ? t("model", e.model.algorithm, e.model.version, e.model.digest.slice(0, 12)) : t("reference"));
  return lines;
}

// The samples around an evidence: the span that was measured, the value, and what was expected.
export function samplesChart(e, shared) {
  const [W, H, LEFT, BOTTOM] = [560, 120, 46, 16], drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": e.signal, class: "samples" });
  const points = shared.points, from = points[0][0], to = points.at(-1)[0] || from + 1;
  const levels = [e.value, e.expected_low, e.expected_high].filter((v) => v !== null && v !== undefined), values = points.map((p) => p[1]).concat(levels);
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low || 1) * 0.08;
  const x = (ms) => LEFT + ((ms - from) / (to - from || 1)) * (W - LEFT - 4), y = (v) => 4 + (1 - (v - low + pad) / (high - low + 2 * pad)) * (H - BOTTOM - 8);
  const a = Math.max(x(e.start_ms), LEFT), b = Math.min(x(Math.max(e.end_ms, e.start_ms + shared.step_ms)), W - 4);
  drawing.append(svg("rect", { class: "event", x: a, width: Math.max(b - a, 2), y: 2, height: H - BOTTOM - 4 }));
  if (e.expected_low !== null && e.expected_low !== undefined) drawing.append(svg("rect", { class: "band", x: LEFT, width: W - LEFT - 4, y: y(e.expected_high), height: Math.max(y(e.expected_low) - y(e.expected_high), 1) }));
  for (const v of [low, high]) drawing.append(svg("text", { class: "axis", x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, number(v)));
  drawing.append(svg("path", { class: "observed", d: "M" + points.map(([ms, v]) => `${x(ms).toFixed(1)} ${y(v).toFixed(1)}`).join("L") }), svg("line", { class: "mean", x1: LEFT, x2: W - 4, y1: y(e.value), y2: y(e.value) }));
  drawing.append(svg("text", { class: "axis", x: LEFT, y: H - 3 }, moment(from)), svg("text", { class: "axis", x: W - 2, y: H - 3, "text-anchor": "end" }, moment(to)));
  return drawing;
}
export const samplesTitle = (shared) => (shared.points.length > 1 ? t("means", number(shared.step_ms / 60000)) : t("none"));
export const claimTitle = () => t("read");

// Why a forecast is what it is: what each part of its input adds, from base to total. SVG, no library; every text is set as
// text. `why` is a ForecastExplanation, or {blocks: [{label, label_zh, amount, error}], base, total}.
import { svg } from "./chart.js";
import { lang, moment, number } from "./words.js";

const WORDS = {
  en: { because: "Why this forecast", total: "forecast, on average", exact: "exact", sampled: "sampled; the line is one standard error", cases: "Similar past stretches", then: "then", like: "alike" },
  zh: { because: "为何如此预测", total: "预测均值", exact: "精确值", sampled: "抽样估计；线段为一个标准误", cases: "相似的历史片段", then: "其后", like: "相似度" },
};
const [W, ROW, MIDDLE, REACH] = [560, 24, 350, 130];
const word = (key) => WORDS[lang()][key];
const signed = (v) => (v < 0 ? "−" : "+") + number(Math.abs(v));

// Both shapes of input as one list of {label, amount, error}.
export function blocks(why) {
  const zh = lang() === "zh";
  return (why.shares ?? why.blocks ?? []).map((b) => ({ label: zh ? (b.label_zh ?? b.label) : (b.label_en ?? b.label), amount: b.amount, error: b.error ?? 0 }));
}

// The bars: one row a part, the base above and the total below.
export function because(why) {
  const rows = blocks(why), zh = lang() === "zh";
  const height = ROW * (rows.length + 2) + 8;
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${height}`, role: "img", class: "because", "aria-label": word("because") });
  const largest = Math.max(...rows.map((r) => Math.abs(r.amount) + r.error), 0) || 1;
  const line = (i, label, value) => drawing.append(svg("text", { class: "axis", x: 4, y: ROW * i + 16 }, label), svg("text", { class: "axis", x: W - 4, y: ROW * i + 16, "text-anchor": "end" }, value));
  line(0, (zh ? why.baseline_zh : why.baseline_en) ?? "", number(why.base));
  drawing.append(svg("line", { class: "grid", x1: MIDDLE, x2: MIDDLE, y1: ROW, y2: ROW * (rows.length + 1) }));
  rows.forEach((row, i) => {
    const width = (REACH * Math.abs(row.amount)) / largest, y = ROW * (i + 1);
    line(i + 1, row.label, signed(row.amount));
    drawing.append(svg("rect", { class: row.amount < 0 ? "less" : "more", x: row.amount < 0 ? MIDDLE - width : MIDDLE, y: y + 4, width, height: ROW - 9, rx: 2 }));
    if (!row.error) return;
    const at = MIDDLE + (REACH * row.amount) / largest, spread = (REACH * row.error) / largest;
    drawing.append(svg("line", { class: "error", x1: at - spread, x2: at + spread, y1: y + ROW / 2, y2: y + ROW / 2 }));
  });
  line(rows.length + 1, word("total"), number(why.total));
  if (why.method) drawing.append(svg("title", {}, word(why.method)));
  return drawing;
}

// The nearest past cases as lines of text: when, how alike, and what followed on average.
export function cases(why) {
  return (why.cases ?? []).map((c) => {
    const seen = c.followed.filter((v) => v !== null);
    const mean = seen.length ? number(seen.reduce((a, b) => a + b, 0) / seen.length) : "–";
    return `${moment(c.start_ms)} – ${moment(c.end_ms)} · ${word("like")} ${c.similarity.toFixed(2)} · ${word("then")} ${mean}`;
  });
}

export const headings = () => ({ because: word("because"), cases: word("cases") });

// How long a machine will last: the distribution's median and 80 % bar, the chance of failing soon, and what moved it.
import { svg } from "./chart.js";
import { lang, moment, number } from "./words.js";

const WORDS = {
  en: { title: "Remaining life", median: "half fail before", atLeast: "at least", between: "fails in {a} – {b} with {p} %", beyond: "outlives {a} with {p} %", within: "fails within", age: "age", because: "because of", stale: "its newest readings are old", h: "h", cycles: "cycles", others: "other signals" },
  zh: { title: "剩余寿命", median: "半数在此之前失效", atLeast: "至少", between: "{p}% 概率在 {a} – {b} 内失效", beyond: "{p}% 概率寿命超过 {a}", within: "失效概率，", age: "已运行", because: "依据", stale: "最新读数已过时", h: "小时", cycles: "循环", others: "其他信号" },
};
const t = (key) => WORDS[lang()][key] ?? key;
const amount = (value, life) => `${number(value)} ${t(life.unit)}`;
const [W, H, LEFT] = [560, 96, 46];

export const lifeTitle = () => t("title");

export function lifeSentence(life) {
  const open = life.high >= life.cap, share = Math.round((open ? (1 + life.level) / 2 : life.level) * 100);
  const words = t(open ? "beyond" : "between").replace("{a}", amount(life.low, life)).replace("{b}", amount(life.high, life)).replace("{p}", share);
  return life.stale ? `${words} · ${t("stale")}` : words;
}

export function lifeRisks(life) {
  const risks = life.risks.map((r) => `${lang() === "zh" ? `${amount(r.within, life)} 内` : `${t("within")} ${amount(r.within, life)}`}: ${Math.round(r.probability * 100)} %`);
  return [...risks, `${t("age")} ${amount(life.age, life)}`, moment(life.issued_ms)].join(" · ");
}

export function lifeReasons(life) {
  const reasons = life.contributions.slice(0, 3).map((c) => `${c.because === "other signals" ? t("others") : c.because} (${c.amount >= 0 ? "+" : "−"}${amount(Math.abs(c.amount), life)})`);
  return reasons.length ? `${t("because")} ${reasons.join(", ")}` : "";
}

// A bar from low to high over the capped axis, thicker where the middle half lies, a line at the median.
export function lifeChart(life) {
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": `${t("title")}: ${lifeSentence(life)}` });
  const x = (v) => LEFT + (Math.min(v, life.cap) / life.cap) * (W - LEFT - 12), at = (level) => life.quantiles[life.levels.indexOf(level)];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const v = share * life.cap;
    drawing.append(svg("line", { class: "grid", x1: x(v), x2: x(v), y1: 18, y2: H - 20 }), svg("text", { class: "axis", x: x(v), y: H - 4, "text-anchor": share === 1 ? "end" : "middle" }, `${share === 1 ? "≥ " : ""}${number(v)} ${t(life.unit)}`));
  }
  drawing.append(svg("rect", { class: "band", x: x(life.low), width: Math.max(x(life.high) - x(life.low), 2), y: 32, height: 32, rx: 6 }));
  if (at(0.25) !== undefined && at(0.75) !== undefined) drawing.append(svg("rect", { class: "band", x: x(at(0.25)), width: Math.max(x(at(0.75)) - x(at(0.25)), 2), y: 32, height: 32, rx: 6 }));
  drawing.append(svg("line", { class: "mean", x1: x(life.median), x2: x(life.median), y1: 26, y2: 70 }));
  drawing.append(svg("text", { class: "axis", x: Math.min(x(life.median), W - 130), y: 16, "text-anchor": "middle" }, `${t("median")} ${life.median >= life.cap ? t("atLeast") + " " : ""}${amount(life.median, life)}`));
  drawing.append(svg("title", {}, lifeSentence(life)));
  return drawing;
}

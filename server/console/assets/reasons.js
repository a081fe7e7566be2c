// Why an item stands in a list: exact shares, who with the same fault chose it, what would take it out, what was left out.
import { item, lang, moment, number } from "./words.js";

const WORDS = {
  en: { because: "because of", similar: "chosen in like cases: {0}", flips: "would not stand here without {0}", share: "these reasons are {0} % of the score", rejected: "left out: {0}, rejected for this case {1}", excluded: "left out: {0}, excluded", other_type: "left out: {0}, not for this type of machine", unexplained: "left out: {0}", experiment: "shown to learn", popularity: "often right here", answer: "your answer", content: "what is known of {0}", and: " and " },
  zh: { because: "依据", similar: "类似情况下曾采用：{0}", flips: "若无 {0}，它不会在此列表中", share: "以上依据占得分的 {0}%", rejected: "未列出：{0}（{1} 对本情况已拒绝）", excluded: "未列出：{0}（已排除）", other_type: "未列出：{0}（不适用于此类设备）", unexplained: "未列出：{0}", experiment: "试探性展示", popularity: "此处常用", answer: "您的答复", content: "关于 {0} 的描述", and: "、" },
};
const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
const name = (because) => (because === "popularity" ? t("popularity") : because.startsWith("answer:") ? t("answer") : because.startsWith("content:") ? t("content", item(because.slice(8))) : because.startsWith("like:") ? past(because.slice(5)) : past(because));
const past = (who) => (who.startsWith("case:") ? who.replace(/^case:\d+:?/, "") || who : item(who)); // "case:000012:P-101": the machine of a past case
const list = (names) => names.map(name).join(t("and"));

// The sentences under one item, strongest first.
export function reasons(i) {
  const lines = [`${t("because")} ${i.contributions.slice(0, 3).map((c) => `${name(c.because)} (${c.amount >= 0 ? "+" : "−"}${number(Math.abs(c.amount))})`).join(", ")}`];
  if (i.shown_share < 0.995) lines[0] += ` · ${t("share", Math.round(100 * i.shown_share))}`;
  if (i.similar?.length) lines.push(t("similar", [...new Set(i.similar.map((s) => name(s.who)))].slice(0, 3).join(t("and"))));
  if (i.flips_without?.length) lines.push(t("flips", list(i.flips_without)));
  if (i.explored) lines.push(t("experiment"));
  return lines;
}
export const leftOut = (shown) => (shown.left_out ?? []).slice(0, 5).map((o) => t(["rejected", "excluded", "other_type"].includes(o.reason) ? o.reason : "unexplained", item(o.item), o.since_ms ? moment(o.since_ms) : ""));

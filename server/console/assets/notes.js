// A note and what was understood of it: the likeliest meaning with its chance, the words that decided, what it names, and how
// like notes were fixed.
import { item, lang } from "./words.js";

const WORDS = {
  en: { title: "Notes", write: "What did you see on {0}?", send: "Note it", waiting: "Waiting for the gateway to read it", none: "No note yet.", unsure: "I am not sure: ", failure: "failure", event: "event", urgency: "urgency", full: "in full: {0}", names: "names", like: "like “{0}” ({1})", fixed: "fixed by {0}", right: "Right", other: "Something else …", which: "What was it?", and: ", ", kept: "kept", noReader: "Stored; no model reads notes on this gateway yet." },
  zh: { title: "备注", write: "您在 {0} 上看到了什么？", send: "记录", waiting: "等待网关读取", none: "暂无备注。", unsure: "我不确定：", failure: "故障", event: "事件", urgency: "紧急程度", full: "完整写法：{0}", names: "提到", like: "类似“{0}”（{1}）", fixed: "处理：{0}", right: "正确", other: "其他……", which: "实际是什么？", and: "、", kept: "已保存", noReader: "已保存；此网关尚无读取备注的模型。" },
};
const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
export const noteWords = t;
const percent = (p) => `${Math.round(100 * p)} %`;

// The note's text with the words that decided: [{text, amount}], amount 0 where nothing was decided.
export function weighed(text, judged) {
  const letters = [...text], amounts = new Float64Array(letters.length);
  for (const word of judged?.words ?? []) {
    const [start, end] = word.because.split(":").map(Number);
    for (let i = start; i < Math.min(end, letters.length); i += 1) amounts[i] += word.amount;
  }
  const parts = [];
  letters.forEach((letter, i) => { if (parts.length && parts.at(-1).amount === amounts[i]) parts.at(-1).text += letter; else parts.push({ text: letter, amount: amounts[i] }); });
  return parts;
}

// What it is said to be, one line a question; the first is the failure mode.
export const meanings = (reading) => reading.judged.map((j) => ({ about: j.about, sure: j.sure, best: j.classes[0].name, text: `${t(j.about)}: ${j.sure ? "" : t("unsure")}${j.classes.slice(0, j.sure ? 1 : 3).map((c) => `${item(c.name)} ${percent(c.probability)}`).join(t("and"))}` }));

export function noteLines(reading, text) {
  const lines = [], letters = [...text];
  if (reading.normalised && reading.normalised !== text) lines.push(t("full", reading.normalised));
  if (reading.entities.length) lines.push(`${t("names")}: ${reading.entities.slice(0, 8).map((e) => `${letters.slice(e.start, e.end).join("")} (${e.kind})`).join(t("and"))}`);
  for (const l of reading.like.slice(0, 3)) lines.push(`${t("like", l.text, percent(Math.max(l.similarity, 0)))}${l.fixed_by.length ? " · " + t("fixed", l.fixed_by.map(item).join(t("and"))) : ""}`);
  return lines;
}

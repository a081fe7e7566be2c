// What runs a model on a gateway, and why that: as the gateway reports it, known reasons in the page's language.
import { el } from "./elements.js";
import { lang } from "./words.js";

const WORDS = {
  en: { runs: "runs on {0}", tables: "tables, answered without an engine" },
  zh: { runs: "由 {0} 运行", tables: "数值表，无需推理引擎" },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key]);

// Reasons that a gateway gives (edge_agent/runtimes/choice.py) and their Chinese; it joins several with "; ".
const REASONS = [
  [/^the fastest here \((.+) for the golden inputs\)$/, (m) => `此处最快（黄金向量耗时：${m[1].replaceAll(" us", " 微秒").replaceAll(", ", "，")}）`],
  [/^the only form that there is$/, () => "仅有这一种形式"],
  [/^the settings allow no other$/, () => "设置不允许其他引擎"],
  [/^the settings prefer it$/, () => "按设置优先选用"],
  [/^(\S+) does not serve: (.+)$/, (m) => `${m[1]} 未启用：${m[2]}`],
];
function inChinese(part) {
  const [pattern, words] = REASONS.find(([known]) => known.test(part)) ?? [];
  return pattern ? words(pattern.exec(part)) : part;
}

// What stands below a model's row: [] where it does not run, or where the gateway does not say.
export function engineOf(model) {
  if (model.engine === undefined || !["serving", "shadow"].includes(model.status)) return [];
  const told = model.engine_why ?? "", why = lang() === "zh" ? told.split("; ").map(inChinese).join("；") : told;
  const words = model.engine ? [t("runs", model.engine), why].filter(Boolean) : [t("tables")];
  return [el("div", { class: "engine" }, ...words.map((text) => el("span", { class: "muted small line" }, text)))];
}

// Plans of how to do it: the steps of the best alternative, every value of which can be opened, and the others beside it.
import { lang, number } from "./words.js";

const WORDS = {
  en: { title: "Plans", none: "No plan yet. One is made when something recommended has a remedy in the plant's catalogue.", alternatives: "Alternatives", steps: "steps", minutes: "min", score: "score", usual: "usual", thorough: "thorough", short: "quickest", small: "smallest", large: "largest", other: "another way", model: "chosen by the model", use: "Use this", not: "Not this", show: "Show" },
  zh: { title: "计划", none: "暂无计划。当推荐的措施在工厂目录中有对应维修方案时生成。", alternatives: "备选方案", steps: "步", minutes: "分钟", score: "得分", usual: "常规", thorough: "全面", short: "最省时", small: "最小", large: "最大", other: "其他做法", model: "由模型选择", use: "采用", not: "不采用", show: "查看" },
};
export const planWords = (key) => WORDS[lang()][key] ?? key;
export const planTitle = (plan) => (lang() === "zh" ? plan.passages[0]?.title_zh : plan.passages[0]?.title_en) ?? plan.item;
export const planLine = (plan) => `${planWords(plan.aim)} · ${plan.steps.length} ${planWords("steps")} · ${number(plan.minutes)} ${planWords("minutes")}${plan.score === null || plan.score === undefined ? "" : ` · ${planWords("score")} ${number(plan.score)}`}`;

// A plan's passages: about the whole, then one a step; each with the facts that its sections cite.
export const passages = (plan) => plan.passages.map((p, i) => ({ whole: i === 0, sections: p.sections, facts: p.facts, evidence: plan.evidence ?? [] }));

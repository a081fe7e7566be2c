// What the page says, English and Simplified Chinese.
const WORDS = {
  en: { machines: "Machines", reports: "Fault reports", models: "Models on the gateways", quality: "How good the forecasts are", rollouts: "Rollouts and training", events: "Events", gateways: "Gateways",
    loop: ["readings stored", "forecasts", "events", "reports", "answers", "models live"], signals: "signals", waiting: "Waiting for the first", calm: "as expected", accepted: "accepted", rejected: "rejected", corrected: "corrected", too_late: "too late",
    accept: "Accept", reject: "Reject", late: "Too late", correct: "Correct …", stored: "Answer stored", none: "Nothing yet", noMachine: "Waiting for the first signals …", noReport: "No fault report yet. One is written as soon as a signal is not as expected.", noModel: "No model yet: the simple reference answers. The first training starts when enough has been shared.",
    evidence: "Evidence", recommended: "Recommended", because: "because of", model: "model", slot: "slot", version: "version", role: "status", results: "results", size: "size", held: "held-out", live: "live", coverage: "80 % interval held", against: "error ÷ simple reference (below 1 is better)", reference: "simple reference", alive: "delivering", silent: "silent for", outbox: "waiting in the outbox", quarantine: "quarantined", observed: "observed", forecast: "forecast", updated: "updated", lost: "the server does not answer", live_now: "is live, learned from", expected: "expected", right: "What would have been right?", value: "value", samples: "observations", above_expected: "above expected", below_expected: "below expected", by: "by",
    bandHeld: "{0} % band held {1} % of {2}", combined: "combination", hybrid: "hybrid recommender", before: "Before it fails", ridge: "ridge", stale_inputs: "inputs are old, band widened", one_value: "one value only, wide band", constant: "has not moved yet", short_history: "short history", no_model_answer: "no model answers here", notice: "notice", warning: "warning", alarm: "alarm", stuck: "does not move", noValue: "no values come", machine_unusual: "signals unusual together" },
  zh: { machines: "设备", reports: "故障报告", models: "网关上的模型", quality: "预测质量", rollouts: "发布与训练", events: "事件", gateways: "网关",
    loop: ["已存储读数", "预测", "事件", "报告", "答复", "在用模型"], signals: "个信号", waiting: "等待首个", calm: "符合预期", accepted: "已接受", rejected: "已拒绝", corrected: "已更正", too_late: "太迟",
    accept: "接受", reject: "拒绝", late: "太迟", correct: "更正……", stored: "答复已保存", none: "暂无", noMachine: "正在等待首批信号……", noReport: "尚无故障报告。信号偏离预期时会立即生成。", noModel: "尚无模型：由简单基准作答。共享数据足够后开始首次训练。",
    evidence: "证据", recommended: "建议", because: "依据", model: "模型", slot: "用途", version: "版本", role: "状态", results: "结果数", size: "大小", held: "留出集", live: "现场", coverage: "80% 区间覆盖", against: "误差 ÷ 简单基准（低于 1 更好）", reference: "简单基准", alive: "正常上报", silent: "静默", outbox: "发件箱待发", quarantine: "已隔离", observed: "观测", forecast: "预测", updated: "更新于", lost: "服务器无响应", live_now: "已上线，训练依据", expected: "预期", right: "正确的做法是什么？", value: "数值", samples: "观测数", above_expected: "高于预期", below_expected: "低于预期", by: "来自",
    bandHeld: "{0}% 区间覆盖了 {2} 个值中的 {1}%", combined: "组合", hybrid: "混合推荐", before: "失效前建议", ridge: "岭回归", stale_inputs: "输入已过时，区间已放宽", one_value: "仅有一个值，区间较宽", constant: "尚无变化", short_history: "历史较短", no_model_answer: "此处无模型作答", notice: "提示", warning: "警告", alarm: "报警", stuck: "数值不变", noValue: "无数据到达", machine_unusual: "多信号联合异常" },
};
let language = new URLSearchParams(location.search).get("lang") || localStorage.getItem("language") || "en";
export const lang = () => (language === "zh" ? "zh" : "en");
export const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
export function setLanguage(to) { language = to; localStorage.setItem("language", to); document.documentElement.lang = to; }
export const moment = (ms) => new Date(ms).toISOString().slice(5, 16).replace("T", " ");
export const number = (v) => (v === null || v === undefined || !Number.isFinite(v) ? "–" : Math.abs(v) >= 1000 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toFixed(2));
// An item's name in words; a generated plan without the digest of its steps.
export function item(name) {
  const plan = /^plan:(.+)-[0-9a-f]{8}$/.exec(name);
  const words = (plan ? plan[1] : name).replace(/^(action|part|plan|design|document|symptom|failure|type|machine|case):/, "").replaceAll("-", " ");
  return plan ? `${lang() === "zh" ? "计划：" : "plan: "}${words}` : words;
}

// What left this gateway, as counted on it. Text from the plant goes in as text, never as markup.
const words = {
  en: {
    title: "What we sent", theme: "Light / dark", other: "中文", sent: "Left this gateway", kept: "Kept here, and why", lanes: "On the way",
    lanes_note: "What is counted above has entered the outbox; this is how far it came since the gateway was installed.",
    policy: "The declared policy", examples: "The last messages, as they were sent",
    examples_note: "The last two of each type, written down once an hour, cut to 2000 characters; size and sha256 are of the whole.",
    type: "type", lane: "class", count: "messages", bytes: "bytes", last: "last", reason: "reason", acked: "confirmed by the server",
    waiting: "waiting", shed: "given up", nothing: "nothing yet", trouble: "The gateway does not answer; the figures are old.",
    span: (from, to) => `Counted from ${from} to ${to} (UTC).`, none: "none", all: "all", of: "of",
    policy_rows: { signals: "signals", bucket_ms: "finest bucket (ms; 0: the gateway's own)", block_steps: "buckets in a message", events: "finer windows around events",
      notes: "notes, comments, words on orders", reports: "reports", remove: "taken out of what people write", pseudonyms: "pseudonyms for", noise: "noise" },
    reasons: { signal_not_shared: "the signal is not shared", noise_would_tell: "it would tell what noise hides", reports_not_shared: "reports are not shared",
      notes_not_shared: "notes are not shared", privacy_budget_spent: "the day's privacy budget is spent" },
  },
  zh: {
    title: "我们发送了什么", theme: "浅色 / 深色", other: "English", sent: "已离开本网关", kept: "留在本地及原因", lanes: "传输进度",
    lanes_note: "上面统计的是进入发件箱的消息；这里是自安装以来的传输进度。",
    policy: "声明的策略", examples: "最近发送的消息（原样）",
    examples_note: "每种类型保留最近两条，每小时写盘一次，最多 2000 个字符；大小和 sha256 为整条消息的值。",
    type: "类型", lane: "类别", count: "消息数", bytes: "字节", last: "最近一次", reason: "原因", acked: "服务器已确认",
    waiting: "等待中", shed: "已放弃", nothing: "暂无", trouble: "网关没有应答，数字可能已过时。",
    span: (from, to) => `统计区间：${from} 至 ${to}（UTC）。`, none: "无", all: "全部", of: "/",
    policy_rows: { signals: "信号", bucket_ms: "最细的时间桶（毫秒；0：网关自身）", block_steps: "每条消息的桶数", events: "事件前后的细粒度窗口",
      notes: "便条、评论、工单文字", reports: "报告", remove: "从文字中去除", pseudonyms: "使用化名", noise: "噪声" },
    reasons: { signal_not_shared: "该信号不共享", noise_would_tell: "会泄露噪声所掩盖的内容", reports_not_shared: "报告不共享",
      notes_not_shared: "便条不共享", privacy_budget_spent: "当日隐私预算已用完" },
  },
};
const query = new URLSearchParams(location.search);
let language = query.get("lang") === "zh" || (!query.get("lang") && navigator.language.startsWith("zh")) ? "zh" : "en";
const dark = query.get("theme") ? query.get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = dark ? "dark" : "light";
let told = null;
let shown = "";

const one = (id) => document.getElementById(id);
function element(name, text = "", ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}
const number = (n) => n.toLocaleString(language === "zh" ? "zh-CN" : "en-GB");
const short = (type) => type.replace(/^millwright\./, "").replace(/\.v1$/, "").replaceAll("_", " ");
const moment = (ms) => (ms ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–");

function table(into, columns, rows) {
  if (!rows.length) return into.replaceChildren(element("p", words[language].nothing));
  const cell = (name, text, kind) => Object.assign(element(name, text), { className: kind });
  const head = element("tr", "", ...columns.map(([word, , kind]) => cell("th", words[language][word], kind)));
  const body = rows.map((row) => element("tr", "", ...columns.map(([, read, kind]) => cell("td", read(row), kind))));
  into.replaceChildren(element("table", "", head, ...body));
}

function value(what) {
  const w = words[language];
  if (what === null || (Array.isArray(what) && !what.length)) return w.none;
  if (Array.isArray(what)) return what.map((each) => (each === "*" ? w.all : each)).join(", ");
  if (typeof what === "object") return Object.entries(what).map(([key, each]) => `${key}: ${typeof each === "object" ? JSON.stringify(each) : each}`).join("; ");
  return String(what);
}

function show() {
  const w = words[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = w[node.dataset.word];
  one("language").textContent = w.other;
  if (!told) return;
  one("where").textContent = `${told.site} · ${told.gateway}`;
  one("span").textContent = told.days.length ? w.span(told.days[0], told.days[told.days.length - 1]) : w.nothing;
  table(one("sent"), [["type", (r) => short(r.type), ""], ["lane", (r) => r.lane, "phone-off"], ["count", (r) => number(r.count), "n"],
    ["bytes", (r) => number(r.bytes), "n"], ["last", (r) => moment(r.last_ms), "n phone-off"]], told.sent);
  table(one("kept"), [["type", (r) => short(r.type), ""], ["reason", (r) => w.reasons[r.reason] ?? r.reason, ""], ["count", (r) => number(r.count), "n"]], told.kept);
  table(one("lanes"), [["lane", ([name]) => name, ""], ["acked", ([, l]) => number(l.acked), "n"], ["waiting", ([, l]) => number(l.waiting), "n"],
    ["shed", ([, l]) => number(l.shed), "n"]], Object.entries(told.lanes));
  const rows = Object.entries(w.policy_rows).filter(([key]) => key in told.policy);
  one("policy").replaceChildren(...rows.flatMap(([key, word]) => [element("dt", word), element("dd", value(told.policy[key]))]));
  const open = new Set([...document.querySelectorAll("#examples details[open]")].map((node) => node.dataset.type));
  one("examples").replaceChildren(...Object.entries(told.examples).sort().map(([type, examples]) => {
    const parts = examples.flatMap((e) => [element("p", `${moment(e.time_ms)} · ${number(e.bytes)} ${w.bytes} · sha256 ${e.sha256.slice(0, 16)}…`), element("pre", e.text)]);
    const details = element("details", "", element("summary", type), ...parts);
    details.dataset.type = type;
    details.open = open.has(type);
    return details;
  }));
}

async function poll() {
  try {
    const since = query.get("since");
    const answer = await fetch(`api/sent${since ? `?since=${encodeURIComponent(since)}` : ""}`);
    const text = await answer.text();
    told = JSON.parse(text);
    one("trouble").hidden = true;
    if (text !== shown) {
      shown = text;
      show();
    }
  } catch {
    one("trouble").textContent = words[language].trouble;
    one("trouble").hidden = false;
  }
  setTimeout(poll, 5000);
}

one("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  show();
});
one("theme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});
show();
poll();

// A production schedule: one row a machine, maintenance windows hatched, closed times grey, the critical path outlined.
import { svg } from "./chart.js";
import { lang, moment, number } from "./words.js";

const WORDS = {
  en: { title: "Production schedule", ends: "Ends {0}", bound: "no plan can end before {0}", late: "{0} late: {1}", window: "Maintenance of {1} at {2}: the plan ends {3} later for it; chance of failing before: {4} % ({0})", free: "Maintenance of {1} at {2} costs the plan no time; chance of failing before: {3} % ({0})", critical: "What the end waits for", mends: "mends the plan before it; {0} operations moved", job: "its own previous step", machine: "who was there before", closed: "the machine is closed", setup: "set-up", maintenance: "maintenance", release: "not released earlier", start: "the plan begins", after: "a job that must come first", because: "because of", none: "No schedule yet. One is made as soon as production orders are known.", gateway: "made on the gateway", cpsat: "made on the server", h: "h", min: "min" },
  zh: { title: "生产排程", ends: "结束于 {0}", bound: "任何方案都不会早于 {0}", late: "{0} 个订单延误：{1}", window: "{1} 的维护于 {2} 开始：总工期因此延后 {3}；此前失效概率 {4}%", free: "{1} 的维护于 {2} 开始，不延误工期；此前失效概率 {3}%", critical: "决定完工时间的链条", mends: "修复前一方案；移动了 {0} 道工序", job: "等待上一道工序", machine: "等待设备空闲", closed: "设备停用时段", setup: "换型", maintenance: "维护", release: "尚未下达", start: "计划开始", after: "等待前置订单", because: "原因", none: "尚无排程。收到生产订单后立即生成。", gateway: "由网关生成", cpsat: "由服务器生成", h: "小时", min: "分钟" },
};
const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
export const span = (ms) => (Math.abs(ms) >= 5_400_000 ? `${number(ms / 3_600_000)} ${t("h")}` : `${Math.round(ms / 60_000)} ${t("min")}`);
export const scheduleTitle = () => t("title");
export const noSchedule = () => t("none");
const [W, LEFT, ROW, TOP] = [1080, 84, 30, 20];

export function scheduleSentence(s) {
  const parts = [t("ends", moment(s.end_ms))];
  if (s.bound_ms) parts.push(t("bound", moment(s.bound_ms)));
  if (s.late_jobs.length) parts.push(t("late", s.late_jobs.length, s.late_jobs.slice(0, 4).join(", ")));
  if (s.repairs) parts.push(t("mends", s.moved));
  parts.push(t(s.solver.algorithm.includes("cp") ? "cpsat" : "gateway"));
  return parts.join(" · ");
}

export function windowSentences(s) {
  return s.maintenance.map((m) => m.cost_ms > 0 ? t("window", m.because || m.id, m.machine, moment(m.start_ms), span(m.cost_ms), (100 * m.risk_before).toFixed(1)) : t("free", m.because || m.id, m.machine, moment(m.start_ms), (100 * m.risk_before).toFixed(1)));
}

export function criticalSentence(s) {
  const links = [...s.critical].reverse().slice(-6).map((w) => `${w.maintenance || w.job} (${w.machine}; ${t(w.because)})`);
  return links.length ? `${t("critical")}: ${links.join(" → ")}` : "";
}

export function gantt(s) {
  const machines = [...new Set([...s.placed.map((p) => p.machine), ...s.maintenance.map((m) => m.machine)])].sort();
  const jobs = [...new Set(s.placed.map((p) => p.job))].sort(), H = TOP + machines.length * ROW + 22;
  const from = Math.min(s.start_ms, ...s.placed.map((p) => p.start_ms)), to = Math.max(s.end_ms, ...s.maintenance.map((m) => m.end_ms), from + 1);
  const drawing = svg("svg", { class: "gantt", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${t("title")}: ${scheduleSentence(s)}` });
  const x = (ms) => LEFT + ((Math.min(Math.max(ms, from), to) - from) / (to - from)) * (W - LEFT - 8), y = (machine) => TOP + machines.indexOf(machine) * ROW;
  const defs = svg("defs", {}), hatch = svg("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  hatch.append(svg("rect", { width: 7, height: 7, class: "hatchback" }), svg("line", { x1: 0, x2: 0, y1: 0, y2: 7, class: "hatchline" }));
  defs.append(hatch); drawing.append(defs);
  for (let i = 0; i <= 6; i++) {
    const ms = from + ((to - from) * i) / 6;
    drawing.append(svg("line", { class: "grid", x1: x(ms), x2: x(ms), y1: TOP - 6, y2: H - 20 }), svg("text", { class: "axis", x: x(ms), y: H - 5, "text-anchor": i === 0 ? "start" : i === 6 ? "end" : "middle" }, moment(ms)));
  }
  const block = (kind, machine, a, b, title, label, fill) => {
    const width = Math.max(x(b) - x(a), 1.5), made = svg("g", {});
    made.append(svg("rect", { class: kind, x: x(a), y: y(machine) + 3, width, height: ROW - 8, rx: 3, ...(fill ? { fill } : {}) }), svg("title", {}, title));
    if (label && width > 7 * label.length) made.append(svg("text", { class: "gantt-label", x: x(a) + width / 2, y: y(machine) + ROW / 2 + 3, "text-anchor": "middle" }, label));
    drawing.append(made);
  };
  const critical = new Set(s.critical.filter((w) => w.job).map((w) => `${w.job}/${w.operation}`));
  for (const machine of machines) drawing.append(svg("text", { class: "axis", x: LEFT - 8, y: y(machine) + ROW / 2 + 3, "text-anchor": "end" }, machine));
  for (const c of s.closed) if (machines.includes(c.machine) && c.end_ms > from && c.start_ms < to) block("shut", c.machine, c.start_ms, c.end_ms, `${c.machine}: ${c.because || t("closed")} ${moment(c.start_ms)} – ${moment(c.end_ms)}`);
  for (const p of s.placed) {
    if (p.setup_ms) block("setup", p.machine, p.start_ms - p.setup_ms, p.start_ms, `${t("setup")} ${span(p.setup_ms)}`);
    const hue = (jobs.indexOf(p.job) * 137.5) % 360, chain = critical.has(`${p.job}/${p.operation}`);
    block(`work${chain ? " critical" : ""}`, p.machine, p.start_ms, p.end_ms, `${p.job} · ${p.operation + 1}: ${p.machine}, ${moment(p.start_ms)} – ${moment(p.end_ms)}`, p.job, `hsl(${hue} 48% var(--gantt-light))`);
  }
  for (const m of s.maintenance) block("upkeep", m.machine, m.start_ms, m.end_ms, windowSentences({ maintenance: [m] })[0]);
  return drawing;
}

// What arrived from every gateway, to the message: one bar a class, from the first number to the highest that the server heard of.
import { svg } from "./chart.js";
import { el } from "./elements.js";
import { lang } from "./words.js";

const WORDS = {
  en: { title: "Delivery ledger", none: "Nothing was heard of any gateway yet.", complete: "complete from 1 to {0}", open: "{0} of {1} missing", from: "complete from 1 to {0}", not: "not complete from 1", stored: "stored", shed: "shed: given up by rule, disk full", dead: "dead: given up after many attempts", quarantined: "quarantined: received, kept with its reason", missing: "missing: the gateway still owes it", again: "{0} arrived again", more: "and {0} more", file: "Signed document", key: "Public key",
    lanes: { alarm: "Alarm", event: "Event", feedback: "Feedback", report: "Report", metric: "Metric", bulk: "Bulk" }, short: { shed: "shed", dead: "dead", quarantined: "quarantined", missing: "missing" } },
  zh: { title: "交付账本", none: "尚未收到任何网关的消息。", complete: "1 至 {0} 完整", open: "{1} 条中缺 {0} 条", from: "1 至 {0} 完整", not: "从 1 起即不完整", stored: "已存储", shed: "已舍弃：磁盘已满，按规则放弃", dead: "死信：多次尝试后放弃", quarantined: "已隔离：已收到，连同原因保存", missing: "缺失：网关尚未送达", again: "{0} 条重复到达", more: "另有 {0} 段", file: "签名文件", key: "公钥",
    lanes: { alarm: "报警", event: "事件", feedback: "反馈", report: "报告", metric: "指标", bulk: "批量" }, short: { shed: "已舍弃", dead: "死信", quarantined: "已隔离", missing: "缺失" } },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key] ?? key);
const KINDS = ["quarantined", "shed", "dead", "missing"]; // drawn in this order: what somebody must see comes last
const [W, H, THIN, MOST] = [600, 16, 3, 8];
const many = (n) => n.toLocaleString("en");
const count = (ranges) => ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);

export const ledgerTitle = () => t("title");

// The panel's parts: what each colour means, then a block a gateway.
export function ledgers(gateways) {
  if (!gateways.length) return [el("p", { class: "empty" }, t("none"))];
  const seen = new Set(gateways.flatMap((g) => g.lanes.flatMap((lane) => KINDS.filter((kind) => lane[kind].length))));
  return [el("ul", { class: "legend small" }, ...["stored", ...KINDS.filter((kind) => seen.has(kind))].map((kind) => el("li", {}, swatch(kind), t(kind)))),
    ...gateways.map((g) => el("article", { class: "report ledger", "data-gateway": g.gateway }, el("header", {}, el("h3", {}, g.gateway), el("span", { class: "muted small" }, g.site), el("span", { class: "spring" }),
      el("a", { class: "small", href: `/api/v1/ledger/${encodeURIComponent(g.gateway)}`, download: `ledger-${g.gateway}.json` }, t("file")), el("a", { class: "small", href: "/api/v1/seal.pub", download: "seal.pub" }, t("key"))),
      ...g.lanes.map(lane)))];
}

function lane(one) {
  const name = t("lanes")[one.message_class] ?? one.message_class, missing = count(one.missing);
  const verdict = missing ? `${one.complete_to ? t("from", many(one.complete_to)) : t("not")} · ${t("open", many(missing), many(one.through))}` : t("complete", many(one.complete_to));
  const lists = KINDS.filter((kind) => one[kind].length).map((kind) => el("span", { class: "small line" }, swatch(kind), `${t("short")[kind]} ${listed(one[kind])}`));
  return el("div", { class: "lane", "data-lane": one.message_class }, el("b", {}, name), picture(one, `${name}: ${verdict}`),
    el("div", {}, el("span", { class: `small${missing ? " missing" : ""}` }, verdict), one.duplicates ? el("span", { class: "muted small" }, ` · ${t("again", many(one.duplicates))}`) : null, ...lists));
}

// A range is at least so wide that it is seen. Kinds differ in lightness, and what is missing is hatched: no colour is needed.
function picture(one, said) {
  const x = (n) => (W * n) / Math.max(one.through, 1), drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": said });
  drawing.append(hatching(), svg("title", {}, said), svg("rect", { class: "range stored", width: W, height: H, rx: 3 }));
  for (const kind of KINDS) {
    for (const [first, last, reason] of one[kind].slice(0, 400)) {
      const wide = Math.max(x(last) - x(first - 1), THIN), at = Math.min(x(first - 1), W - wide), part = svg("rect", { class: `range ${kind}`, x: at, width: wide, height: H });
      part.append(svg("title", {}, `${t("short")[kind]} ${listed([[first, last, reason]])}`));
      drawing.append(part);
    }
  }
  return drawing;
}

function hatching() {
  const pattern = svg("pattern", { id: "owed", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }), defs = svg("defs", {});
  pattern.append(svg("rect", { class: "owedback", width: 6, height: 6 }), svg("rect", { class: "owedline", width: 3, height: 6 }));
  defs.append(pattern);
  return defs;
}

function swatch(kind) {
  const drawing = svg("svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" });
  drawing.append(hatching(), svg("rect", { class: `range ${kind}`, width: 12, height: 12, rx: 2 }));
  return drawing;
}

function listed(ranges) {
  const words = ranges.slice(0, MOST).map(([first, last, reason]) => `${first === last ? many(first) : `${many(first)}–${many(last)}`}${reason ? ` (${reason})` : ""}`);
  if (ranges.length > MOST) words.push(t("more", many(ranges.length - MOST)));
  return words.join(", ");
}

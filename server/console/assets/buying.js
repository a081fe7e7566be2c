// What to buy: how many, from whom, by when, and the parts of the demand that say so.
import { lang, moment, number } from "./words.js";

const WORDS = {
  en: { title: "Purchases", buy: "Buy {0} {1} from {2} by {3}", not: "Nothing to buy now", stock: "{0} on the shelf, {1} on the way, {2} expected in {3} days", enough: "up to {0} lasts with {1} %", short: "runs empty with {0} % without, {1} % with it", sources: "Demand from", history: "what was used so far", risk: "predicted failure of", options: "Suppliers", cost: "expected cost", arrives: "arrives", late: "late with", limits: "changed by", stale: "the stock level is old", minimum: "minimum order", pack: "pack size", budget: "budget", open_order_too_late: "an open order that comes too late", no_history: "no history of its own", no_shortage_cost: "no shortage cost in the catalogue", none: "No proposal yet: the store has told no stock levels.", price: "in all", part: "Part", propose: "Proposal" },
  zh: { title: "采购", buy: "向 {2} 购买 {0} {1}，最迟 {3} 下单", not: "暂不采购", stock: "库存 {0}，在途 {1}，未来 {3} 天预计用量 {2}", enough: "补至 {0} 可满足需求的概率为 {1}%", short: "缺货概率：不买 {0}%，购买后 {1}%", sources: "需求来源", history: "历史用量", risk: "预测失效：", options: "供应商", cost: "预期成本", arrives: "到货", late: "延误概率", limits: "受限于", stale: "库存数据已过时", minimum: "最小起订量", pack: "包装量", budget: "预算", open_order_too_late: "在途订单到货太晚", no_history: "无自身历史", no_shortage_cost: "目录未设缺货成本", none: "暂无建议：尚未收到库存数据。", price: "合计", part: "备件", propose: "建议" },
};
const t = (key, ...values) => values.reduce((text, v, i) => text.replace(`{${i}}`, v), WORDS[lang()][key] ?? key);
const percent = (share) => (100 * share).toFixed(share < 0.1 || (share > 0.99 && share < 1) ? 1 : 0);
export const buyingTitle = () => t("title");
export const noPurchase = () => t("none");

export const headline = (p) => (p.quantity ? t("buy", p.quantity, p.unit || "×", p.supplier, moment(p.order_by_ms)) + (p.total_price ? ` · ${number(p.total_price)} ${t("price")}` : "") : t("not"));

export function sentences(p) {
  const lines = [t("stock", p.on_hand, p.on_order, number(p.expected), number(p.cover_days)), `${t("enough", p.order_up_to, percent(p.service_level))} · ${t("short", percent(p.short_now), percent(p.short_then))}`];
  if (p.sources.length) lines.push(`${t("sources")}: ${p.sources.map((s) => `${source(s.because)} (${number(s.expected)})`).join(", ")}`);
  if (p.limits.length) lines.push(`${t("limits")}: ${p.limits.map((l) => t(l)).join(", ")}`);
  if (p.stale) lines.push(t("stale"));
  return lines;
}

export const options = (p) => p.options.map((o) => `${o.chosen ? "✓ " : ""}${o.supplier}: ${o.quantity} × ${number(o.unit_price)}, ${t("arrives")} ${moment(o.arrives_ms)}, ${t("late")} ${percent(o.late_probability)} %, ${t("cost")} ${number(o.cost)}`);
export const optionsTitle = () => t("options");
const source = (because) => (because === "history" ? t("history") : because.startsWith("risk:") ? `${t("risk")} ${because.slice(5)}` : because);

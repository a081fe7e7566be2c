// A model's card: what its passport says, as the server's card has it in the language that is shown.
import { ask, el } from "./elements.js";
import { lang } from "./words.js";

const WORDS = {
  en: { open: "Card of {0}", close: "Close", markdown: "as Markdown", all: "Newest models, refused ones too", lost: "the server does not answer" },
  zh: { open: "{0} 的模型卡", close: "关闭", markdown: "Markdown 格式", all: "最新模型（含被拒绝的）", lost: "服务器无响应" },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key]);

// A name that opens the model's card; plain text where the server does not know the model.
export function cardOf(number, text) {
  return number === undefined ? text : el("button", { type: "button", class: "claim", "data-card": number, "aria-haspopup": "dialog", "aria-label": t("open", text), onclick: () => open(number) }, text);
}

// The newest models of the registry, each with its state.
export function registered(models, tag) {
  return models.length ? el("details", { class: "registered" }, el("summary", {}, t("all")), ...models.map((m) => el("p", { class: "small" }, tag(m.status, m.status), " ", cardOf(m.number, `${m.slot} v${m.version}`)))) : null;
}

async function open(number) {
  const { body, refusal } = await ask(`/api/v1/models/${number}/card?lang=${lang()}`, t("lost"));
  const close = el("button", { type: "button", class: "close", autofocus: true, onclick: () => dialog.close() }, t("close"));
  const dialog = el("dialog", { class: "card", "aria-label": body?.title ?? "", onclose: () => dialog.remove() },
    el("header", {}, el("h2", {}, body?.title ?? ""), el("span", { class: "spring" }), body ? el("a", { class: "small", href: `/api/v1/models/${number}/card.md?lang=${lang()}`, download: `${body.title}.md` }, t("markdown")) : null, close),
    ...(refusal ? [el("p", { class: "refusal", role: "alert" }, [refusal.error, refusal.remedy].filter(Boolean).join(" – "))] : [...body.sections.map((s) => section(s, body)), el("p", { class: "muted small" }, body.note)]));
  document.body.append(dialog);
  dialog.showModal();
}

const section = (s, card) => el("section", { "data-section": s.name }, el("h3", {}, s.title, s.name === "verdict" ? el("span", { class: `tag ${card.eligible ? "done" : "refused"}` }, s.lines[0].text) : null),
  s.lines.length ? el("dl", {}, ...s.lines.slice(s.name === "verdict" ? 1 : 0).flatMap((line) => [el("dt", {}, line.what), el("dd", {}, line.text)])) : null,
  ...s.tables.map(table));

function table(of) {
  const cell = (name, text, i) => el(name, { class: of.numbers.includes(i) ? "n" : undefined }, text);
  return el("div", { class: "wrap", tabindex: 0, role: "region" }, el("table", {}, el("thead", {}, el("tr", {}, ...of.heads.map((h, i) => cell("th", h, i)))), el("tbody", {}, ...of.rows.map((r) => el("tr", {}, ...r.map((c, i) => cell("td", c, i)))))));
}

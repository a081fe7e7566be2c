// A person edits a report clause by clause: another wording of the catalogue, left out where that is allowed, or words of
// their own. What is half written survives polls, refusals and a change of language.
import { values } from "./claims.js";
import { ask, el } from "./elements.js";
import { lang, moment } from "./words.js";

const WORDS = {
  en: { edit: "Edit", editOf: "Edit the report on {0}, {1}", edited: "edited", by: "by {0}, {1}", issued: "As it was issued", loading: "Loading the wordings …", sentence: "Sentence {0} of {1}", wording: "Wording of sentence {0}", own: "In my own words", ownOf: "Sentence {0} in your own words", listed: "Use a listed wording", out: "Leave out", back: "Put back", isOut: "left out", keep: "Values that must stay:", add: "Put {0} in at the cursor", missing: "missing: {0}", save: "Save", saving: "Saving …", cancel: "Cancel", author: "Your name (may stay empty)", title: "Title", lost: "The server does not answer. Nothing was saved; your words are still here.", waits: "waits for somebody to accept it", other: "Your changes to the Chinese text are not saved yet: change the language to see them." },
  zh: { edit: "编辑", editOf: "编辑 {0} 的报告，{1}", edited: "已编辑", by: "{0}，{1}", issued: "原始发布内容", loading: "正在加载可用措辞……", sentence: "第 {0} 句，共 {1} 句", wording: "第 {0} 句的措辞", own: "用自己的话写", ownOf: "用自己的话写第 {0} 句", listed: "使用现有措辞", out: "省略", back: "恢复", isOut: "已省略", keep: "必须保留的数值：", add: "在光标处插入 {0}", missing: "缺少：{0}", save: "保存", saving: "正在保存……", cancel: "取消", author: "您的姓名（可留空）", title: "标题", lost: "服务器无响应。尚未保存，您写的内容仍在此处。", waits: "等待他人接受", other: "英文文本的更改尚未保存：切换语言即可查看。" },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key] ?? key);
const editors = new Map(); // a report's number -> {report, show, reload, offered, drafts: {en, zh}, refusal, sending, form}

export const editing = (report) => editors.has(report.number);
// Reports that are being edited stay on the page when newer ones push them off the list.
export const withOpen = (reports) => [...reports, ...[...editors.values()].map((e) => e.report).filter((r) => !reports.some((one) => one.number === r.number))];

// `show` draws the page anew, `reload` asks the server first. A report of an older agent has no clauses: no button.
export function editButton(report, show, reload) {
  return report.frames ? el("button", { type: "button", class: "edit", "data-edit": report.number, "aria-label": t("editOf", report.machine, moment(report.issued_ms)), onclick: () => open(report, show, reload) }, t("edit")) : null;
}
export const editedTag = (report) => report.edited && el("span", { class: "tag corrected", title: t("by", report.edited.author || "–", moment(report.edited.time_ms)) }, t("edited"));
export const issuedTitle = () => t("issued");

// The sections as people left them.
export function sectionsOf(report) {
  const edited = new Map((report.edited?.sections ?? []).map((s) => [s.section, s]));
  return report.sections.map((s) => (edited.has(s.section) ? { ...s, ...edited.get(s.section), edited: true } : s));
}
// Own words of this section that nobody has accepted yet.
export const waiting = (report, section, proposals) => proposals.filter((p) => p.report === report.number && p.section === section && p.language === lang()).map((p) => el("p", { class: "waits small" }, `“${p.example}” `, el("span", { class: "tag candidate" }, t("waits"))));

async function open(report, show, reload) {
  const editor = { report, show, reload, drafts: {} };
  editors.set(report.number, editor);
  show();
  editor.form.querySelector("button").focus();
  const answer = await ask(`/console/reports/${report.number}/wordings`, t("lost"));
  editor.offered = answer.body;
  editor.refusal = answer.refusal;
  if (editors.get(report.number) !== editor) return;
  fill(editor);
  editor.form.querySelector("select, .choices button, button")?.focus();
}

function close(editor) {
  editors.delete(editor.report.number);
  editor.show();
  document.querySelector(`[data-edit="${editor.report.number}"]`)?.focus();
}

// The editor of a report in the page's language, as its draft stands.
export function editorOf(report) {
  const editor = editors.get(report.number);
  editor.form = el("form", { class: "editor", "aria-label": t("editOf", report.machine, moment(report.issued_ms)), onsubmit: (e) => { e.preventDefault(); save(editor); } });
  fill(editor);
  return editor.form;
}

// What is to be said in one language: [{section, clause, wordings, start, choice, mine}]. A choice is {wording}, {text, from: the
// wording that it was made of} or {out: what stood before}; `mine` are the own words typed so far.
function draftOf(editor, language) {
  editor.drafts[language] ??= editor.offered.sections.flatMap((s) => s.clauses.map((c) => {
    const said = c[language], listed = { wording: said.said ?? 0 }, start = said.proposed ? { text: said.proposed, from: 0 } : said.said === null ? { out: listed } : listed;
    return { section: s, clause: c.clause, mayOmit: c.may_omit, wordings: said.wordings, start, choice: start };
  }));
  return editor.drafts[language];
}
const sent = (choice) => (choice.out ? null : choice.text === undefined ? { wording: choice.wording } : { text: choice.text.trim() });
const differs = (row) => JSON.stringify(sent(row.choice)) !== JSON.stringify(sent(row.start));

function fill(editor) {
  const rows = editor.offered ? draftOf(editor, lang()) : [], buttons = [el("button", { type: "button", onclick: () => close(editor) }, t("cancel"))];
  if (editor.offered) buttons.unshift(el("button", { type: "submit", class: "good", disabled: editor.sending }, t(editor.sending ? "saving" : "save")));
  const known = [...editor.report.sections, ...(editor.report.edited?.sections ?? [])].flatMap(values);
  const parts = rows.flatMap((row, n) => [row.section === rows[n - 1]?.section ? null : el("h4", {}, row.section[`title_${lang()}`] || t("title")), rowOf(row, n, rows.length, known)]);
  editor.form.inert = Boolean(editor.sending);
  editor.form.replaceChildren(...parts.filter(Boolean), ...(editor.offered || editor.refusal ? [] : [el("p", { class: "muted", role: "status" }, t("loading"))]), ...refused(editor.refusal),
    ...(editor.offered ? [el("label", { class: "small author" }, t("author"), authorField())] : []), el("div", { class: "answers" }, ...buttons));
}
const refused = (refusal) => (refusal ? [el("p", { class: "refusal", role: "alert" }, [refusal.error, refusal.remedy].filter(Boolean).join(" – "))] : []);

function authorField() {
  const field = el("input", { type: "text", maxlength: 128, autocomplete: "name", oninput: () => localStorage.setItem("author", field.value) });
  field.value = localStorage.getItem("author") ?? "";
  return field;
}

// One clause: its sentence, and what can be done with it. Draws itself anew when its choice changes.
function rowOf(row, n, total, known) {
  const node = el("div", { class: "clause", role: "group", "aria-label": t("sentence", n + 1, total), "data-clause": row.clause });
  const choose = (choice, focus) => { row.choice = choice; row.refusal = undefined; draw(); node.querySelector(focus)?.focus(); };
  const button = (name, text, choice, focus) => el("button", { type: "button", class: name, onclick: () => choose(choice(), focus) }, text);
  const draw = () => {
    const { out, text, wording } = row.choice, stood = out ?? row.choice, buttons = [];
    if (out) buttons.push(button("back", t("back"), () => out, "textarea, .out"));
    else if (text === undefined) buttons.push(button("own", t("own"), () => ({ text: row.mine ?? row.wordings[wording], from: wording }), "textarea"));
    else buttons.push(button("listed", t("listed"), () => ({ wording: row.choice.from }), ".own"));
    if (row.mayOmit && !out) buttons.push(button("out", t("out"), () => ({ out: row.choice }), ".back"));
    const sentence = el("p", { class: out ? "sentence gone" : "sentence" }, ...marked(stood.text ?? row.wordings[stood.wording], known), ...(out ? [" ", el("span", { class: "tag" }, t("isOut"))] : []));
    node.replaceChildren(...(text === undefined ? [sentence] : ownWords(row, n, known)), ...refused(row.refusal),
      el("div", { class: "choices" }, ...(wording !== undefined && row.wordings.length > 1 ? [wordingsOf(row, n, choose)] : []), ...buttons));
  };
  draw();
  return node;
}

function wordingsOf(row, n, choose) {
  const select = el("select", { "aria-label": t("wording", n + 1), onchange: () => choose({ wording: Number(select.value) }, "select") }, ...row.wordings.map((text, i) => el("option", { value: i, selected: i === row.choice.wording }, `${i + 1}/${row.wordings.length} · ${text}`)));
  return select;
}

// A field for own words, and the values that the sentence must keep as buttons which put them in at the cursor.
function ownWords(row, n, known) {
  const must = [...new Set(pieces(row.wordings[row.choice.from], known).filter((p) => p.value).map((p) => p.text))];
  const field = el("textarea", { rows: 3, maxlength: 2000, "aria-label": t("ownOf", n + 1), "aria-invalid": row.refusal ? "true" : undefined, oninput: () => { row.mine = field.value; row.choice = { ...row.choice, text: field.value }; tell(); } });
  field.value = row.choice.text;
  const add = (value) => { field.setRangeText(value, field.selectionStart, field.selectionEnd, "end"); field.focus(); field.dispatchEvent(new Event("input")); };
  const chips = must.map((value) => el("button", { type: "button", class: "chip", title: t("add", value), onclick: () => add(value) }));
  const tell = () => chips.forEach((chip, i) => { const there = field.value.includes(must[i]); chip.classList.toggle("missing", !there); chip.textContent = there ? must[i] : t("missing", must[i]); });
  tell();
  return [field, ...(chips.length ? [el("div", { class: "chips small" }, el("span", { class: "muted" }, t("keep")), ...chips)] : [])];
}

// A sentence in pieces {text, value}: values of facts and citations ("[1]") against words.
function pieces(text, known) {
  const escaped = [...new Set(known)].sort((a, b) => b.length - a.length).map((v) => v.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const found = new RegExp(`(\\[\\d+\\]${escaped.map((v) => `|${/^\w/.test(v) ? "(?<![A-Za-z0-9.])" : ""}${v}${/\w$/.test(v) ? "(?![A-Za-z0-9]|\\.\\d)" : ""}`).join("")})`);
  return text.split(found).map((piece, i) => ({ text: piece, value: i % 2 === 1 })).filter((p) => p.text);
}
const marked = (text, known) => pieces(text, known).map((p) => (p.value ? el("mark", { class: "value" }, p.text) : p.text));

// Saves the language that is shown. What is refused stays as it was written, with the server's words at its row.
async function save(editor) {
  const language = lang(), rows = draftOf(editor, language), other = editor.drafts[language === "en" ? "zh" : "en"] ?? [];
  for (const row of rows) row.refusal = undefined;
  if (rows.some(differs)) {
    const clauses = rows.filter((r) => !r.choice.out).map((r) => ({ clause: r.clause, ...sent(r.choice) }));
    Object.assign(editor, { sending: true, refusal: undefined });
    fill(editor);
    const { refusal } = await ask(`/console/reports/${editor.report.number}/edits`, t("lost"), { author: localStorage.getItem("author") ?? "", language, clauses });
    editor.sending = false;
    if (refusal) return refuse(editor, rows, refusal);
    for (const row of rows) row.start = row.choice;
    other.forEach((row, i) => follow(row, rows[i]));
    await editor.reload();
  }
  if (!other.some(differs)) return close(editor);
  editor.refusal = { error: t("other") };
  fill(editor);
}

// A clause stands in both languages or in neither: a draft in the other language follows what was saved.
function follow(row, saved) {
  if (Boolean(row.start.out) === Boolean(saved.choice.out)) return;
  row.start = row.choice = saved.choice.out ? { out: row.choice } : { wording: 0 };
}

function refuse(editor, rows, refusal) {
  const named = (r) => `clause '${r.clause}'`, row = rows.find((r) => refusal.error.includes(named(r)));
  if (row) row.refusal = { ...refusal, error: refusal.error.replace(named(row), "").replace(/^: /, "") }; else editor.refusal = refusal;
  fill(editor);
  (row ? editor.form.querySelector(`[data-clause="${row.clause}"]`).querySelector("textarea, select, button") : editor.form.querySelector("button[type=submit]")).focus();
}

// Wordings that people proposed by editing reports: what the clause says today, the new words, and who says yes or no.
import { ask, el, each } from "./elements.js";
import { lang } from "./words.js";

const WORDS = {
  en: { title: "New wordings", none: "No new wording waits. One is proposed when somebody edits a report in their own words.", today: "Today", proposed: "Proposed", example: "Reads", doubts: "Doubts", accept: "Accept", reject: "Reject", sure: "Accept it despite the doubts?", despite: "Accept all the same", not: "Not yet", by: "by {0}", en: "English", zh: "Chinese", lost: "The server does not answer; nothing was stored." },
  zh: { title: "新措辞", none: "没有待定的新措辞。有人用自己的话编辑报告时会提出新措辞。", today: "现有", proposed: "提议", example: "示例", doubts: "存疑", accept: "接受", reject: "拒绝", sure: "尽管存疑，仍要接受吗？", despite: "仍然接受", not: "暂不", by: "来自 {0}", en: "英文", zh: "中文", lost: "服务器无响应，未保存。" },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key] ?? key);
const asked = new Map(); // id -> {sure: asked once more, refusal, sending}
let again = () => {}; // draws the panel as it was last asked for

// Shows the open proposals; `changed` is called after an answer.
export function showWordings(heading, place, proposals, changed) {
  heading.textContent = proposals.length ? `${t("title")} (${proposals.length})` : t("title");
  again = () => showWordings(heading, place, proposals, changed);
  each(place, proposals.length ? proposals.map((p) => ({ key: p.id, content: [p, asked.get(p.id)], make: () => proposal(p, heading, changed) })) : [{ key: "", content: "", make: () => el("p", { class: "empty" }, t("none")) }]);
}

function proposal(p, heading, changed) {
  const mine = asked.get(p.id) ?? {}, written = lang() === p.language ? undefined : p.language === "zh" ? "zh-CN" : "en";
  const line = (label, ...words) => [el("dt", { class: "muted" }, t(label)), el("dd", { lang: written }, ...words)];
  const then = (next, focus) => { asked.set(p.id, next); again(); document.querySelector(`[data-wording="${p.id}"] ${focus}`)?.focus(); };
  const answer = async (sent) => {
    then({ ...mine, sending: true, refusal: undefined }, "button");
    const { refusal } = await ask(`/console/wordings/${p.id}/answer`, t("lost"), { ...sent, author: localStorage.getItem("author") ?? "" });
    if (refusal) return then({ ...mine, refusal }, "button");
    asked.delete(p.id);
    await changed();
    heading.focus();
  };
  const button = (name, text, act) => el("button", { type: "button", class: name, disabled: mine.sending, onclick: act }, text);
  const accept = () => (p.doubts.length ? then({ sure: true }, ".despite") : answer({ accept: true }));
  return el("article", { class: "report wording", "data-wording": p.id, "aria-label": `${t("proposed")}: ${p.example}` },
    el("header", {}, el("span", { class: "muted small" }, [t(p.language), p.clause, p.author && t("by", p.author)].filter(Boolean).join(" · "))),
    el("dl", { class: "small" }, ...line("today", ...chips(p.today)), ...line("proposed", ...chips(p.text)), ...line("example", p.example)),
    p.doubts.length ? el("div", { class: "doubts small", role: "note" }, el("b", {}, `⚠ ${t("doubts")}`), el("ul", {}, ...p.doubts.map((d) => el("li", {}, d)))) : null,
    mine.refusal ? el("p", { class: "refusal", role: "alert" }, [mine.refusal.error, mine.refusal.remedy].filter(Boolean).join(" – ")) : null,
    el("div", { class: "answers" }, ...(mine.sure ? [el("span", { role: "alert" }, t("sure")), button("despite", t("despite"), () => answer({ accept: true, despite_doubts: true })), button("not", t("not"), () => then({}, ".good"))]
      : [button("good", t("accept"), accept), button("no", t("reject"), () => answer({ accept: false }))])));
}

// A wording with its slots as chips: "since <since>" reads "since [since]".
const chips = (text) => text.split(/<([a-z][a-z0-9_]*)>/).map((part, i) => (i % 2 ? el("span", { class: "chip" }, part.replaceAll("_", " ")) : part));

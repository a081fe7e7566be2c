// Polls the state and shows it. Every value goes through textContent; nothing from a plant is ever markup.
import { because, cases, headings } from "./because.js";
import { buyingTitle, headline, noPurchase, options, optionsTitle, sentences } from "./buying.js";
import { cardOf, registered } from "./card.js";
import { bar, chart } from "./chart.js";
import { claimTitle, modeWords, origin, said, samplesChart, samplesTitle } from "./claims.js";
import { editButton, editedTag, editing, editorOf, issuedTitle, sectionsOf, waiting, withOpen } from "./edits.js";
import { each, el } from "./elements.js";
import { engineOf } from "./engines.js";
import { criticalSentence, gantt, noSchedule, scheduleSentence, scheduleTitle, windowSentences } from "./gantt.js";
import { showIdentities } from "./identities.js";
import { ledgerTitle, ledgers } from "./ledger.js";
import { lifeChart, lifeReasons, lifeRisks, lifeSentence, lifeTitle } from "./life.js";
import { meanings, noteLines, noteWords, weighed } from "./notes.js";
import { passages, planLine, planTitle, planWords } from "./plans.js";
import { leftOut, reasons } from "./reasons.js";
import { showWordings } from "./wordings.js";
import { item, lang, moment, number, setLanguage, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const answered = new Map(); // target -> verdict given on this page
let state = null, chosen = null;

const tag = (kind, text) => el("span", { class: `tag ${kind}` }, text ?? t(kind));
const empty = (text) => el("p", { class: "empty" }, text);

// Replaces a part of the page only when what it shows has changed, so that nothing jumps under a finger.
const shown = new Map();
function put(id, key, make) {
  const wanted = JSON.stringify([lang(), key]);
  if (shown.get(id) === wanted) return;
  shown.set(id, wanted);
  $(id).replaceChildren(...[make()].flat());
}

// rows: lists of cells; nodes instead go on below the row before, across the whole table.
function table(heads, rows) {
  const cell = (name, c, i) => el(name, { class: heads[i].n ? "n" : undefined }, c);
  const row = (r) => (Array.isArray(r) ? el("tr", {}, ...r.map((c, i) => cell("td", c, i))) : el("tr", { class: "below" }, el("td", { colspan: heads.length }, r)));
  return el("div", { class: "wrap" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h, i) => cell("th", h.text, i)))), el("tbody", {}, ...rows.map(row))));
}

function showLoop() {
  const c = state.counters, live = new Set(state.gateways.flatMap((g) => g.models.filter((m) => m.status === "serving").map((m) => `${m.slot} v${m.version}`)));
  const counts = [c.readings, c.forecast, c.fault_event, c.report, c.feedback, live.size];
  put("loop", counts, () => counts.map((n, i) => el("li", {}, el("b", {}, n.toLocaleString("en")), el("span", {}, t("loop")[i]))));
}

function showMachines() {
  if (!chosen && state.machines.length) chosen = state.machines[0];
  const key = [state.machines.map((m) => [m.gateway, m.machine, m.severity, m.signals]), chosen?.gateway, chosen?.machine];
  put("machines", key, () => state.machines.length ? state.machines.map((m) => el("button", { type: "button", class: `machine ${m.severity}`, "aria-pressed": String(m.machine === chosen.machine && m.gateway === chosen.gateway),
    onclick: () => { chosen = m; showMachines(); charts(); } }, el("b", {}, m.machine), el("span", { class: "muted small" }, `${m.gateway} · ${m.signals} ${t("signals")}`), el("span", { class: "small" }, m.severity ? t(m.severity) : t("calm")))) : empty(t("noMachine")));
}

async function charts() {
  if (!chosen) return;
  const mine = chosen;
  const answer = await fetch(`/console/machine/${encodeURIComponent(mine.gateway)}/${encodeURIComponent(mine.machine)}`);
  if (!answer.ok || mine !== chosen) return;
  const signals = await answer.json(), life = state?.lives.find((l) => l.gateway === mine.gateway && l.machine === mine.machine);
  $("chosen").textContent = `${mine.machine} · ${mine.gateway}`;
  put("charts", [mine.machine, signals, life?.id, life?.answers, [...answered]], () => [...(life ? [lifePanel(life)] : []), ...signals.map((s) => el("div", { class: "chart" }, el("header", {}, el("b", {}, s.unit ? `${s.signal} (${s.unit})` : s.signal),
    el("span", { class: "muted small" }, s.forecast ? answeredBy(s.forecast) : "")), chart(s), s.why ? whyPanel(mine, s) : null))]);
}
// Why the forecast is what it is; stays open or shut when the page is drawn anew.
const opened = new Set();
function whyPanel(machine, s) {
  const key = `${machine.gateway}/${machine.machine}/${s.signal}`, lines = cases(s.why);
  return el("details", { open: opened.has(key), ontoggle: (e) => { if (e.target.open) opened.add(key); else opened.delete(key); } }, el("summary", {}, `${headings().because} · ${moment(s.why.issued_ms)}`), because(s.why),
    ...(lines.length ? [el("b", { class: "small" }, headings().cases), ...lines.map((line) => el("p", { class: "muted small" }, line))] : []));
}
// Who answers, how often its band held here, and why it is a stopgap if it is one.
function answeredBy(f) {
  const version = f.model.version ? ` v${f.model.version}` : "", members = (f.members ?? []).map((m) => algorithm(m.model.algorithm)).join(" + ");
  const held = f.coverage === null || f.coverage === undefined ? `${Math.round(f.level * 100)} %` : t("bandHeld", Math.round(f.level * 100), Math.round(f.coverage * 100), f.coverage_n.toLocaleString("en"));
  return [algorithm(f.model.algorithm) + version + (members ? ` (${members})` : ""), held, f.fallback ? t(f.fallback) : ""].filter(Boolean).join(" · ");
}
const lifePanel = (life) => el("div", { class: "chart life" }, el("header", {}, el("b", {}, lifeTitle()), el("span", { class: "muted small" }, lifeSentence(life))), lifeChart(life), el("span", { class: "muted small" }, lifeRisks(life)), el("br"), el("span", { class: "muted small" }, lifeReasons(life)), ...(life.list?.items.length ? [el("h4", {}, t("before")), ...recommended(life).slice(0, 2)] : []));
const algorithm = (name) => ({ combined: t("combined"), ridge: t("ridge"), arima: "ARIMA", lstm: "LSTM", naive: t("reference"), item_neighbours: "item CF", hybrid: t("hybrid") })[name] ?? name;

async function send(key, body) {
  answered.set(key, body.verdict);
  show();
  const answer = await fetch("/console/feedback", { method: "POST", headers: { "Content-Type": "application/json", "X-Millwright": "console" }, body: JSON.stringify(body) });
  if (!answer.ok) { answered.delete(key); show(); alert((await answer.json()).error); } else poll();
}
const give = (report, verdict, chosenItem, correction) => send(`${report.id}/${chosenItem ?? ""}`, { target: report.list ? report.list.id : report.id, verdict, item: chosenItem ?? "", correction: correction ?? "", time_ms: String(report.issued_ms) });
const answersOf = (report, name) => report.answers.filter((a) => a.item === name).map((a) => tag(a.verdict, `${t(a.verdict)}${a.correction ? ": " + item(a.correction) : ""}`));
const pending = (key, given) => (answered.has(key) && !given.length ? [tag(answered.get(key)), el("span", { class: "muted small" }, t("stored"))] : given);
const judge = (yes, no) => [el("button", { type: "button", class: "good", onclick: yes }, t("accept")), el("button", { type: "button", onclick: no }, t("reject"))];

// Verdicts on the list or the report as a whole; those on an item stand beside it.
function answers(report) {
  const given = pending(`${report.id}/`, answersOf(report, "")), first = report.list?.items.find((i) => i.item.startsWith("action:"))?.item;
  if (given.length) return el("div", { class: "answers" }, ...given);
  const correct = () => { const right = prompt(t("right")); if (right) give(report, "corrected", first, "action:" + right.trim().toLowerCase().replaceAll(" ", "-").slice(0, 80)); };
  return el("div", { class: "answers" }, ...(report.list ? [] : judge(() => give(report, "accepted"), () => give(report, "rejected"))), el("button", { type: "button", onclick: correct }, t("correct")), el("button", { type: "button", onclick: () => give(report, "too_late") }, t("late")));
}

function recommended(report) {
  const list = report.list, top = Math.max(...list.items.map((i) => i.score), 0) || 1;
  return [...list.items.slice(0, 4).flatMap((i) => {
    const given = pending(`${report.id}/${i.item}`, answersOf(report, i.item));
    return [el("div", { class: "item" }, el("span", {}, el("b", {}, item(i.item)), ...reasons(i).map((line) => el("span", { class: "muted small line" }, line))), bar(i.score / top),
      el("div", { class: "answers" }, ...(given.length ? given : judge(() => give(report, "accepted", i.item), () => give(report, "rejected", i.item)))))];
  }), ...leftOut(list).map((line) => el("p", { class: "muted small" }, line))];
}

function showBuying() {
  put("buying", [state.purchases.map((p) => [p.id, p.answers.length, answered.get(p.id)])], () => state.purchases.length ? state.purchases.slice(0, 10).map((p) => {
    const given = pending(p.id, p.answers.map((a) => tag(a.verdict)));
    const body = (verdict) => send(p.id, { target: p.id, verdict, time_ms: String(p.issued_ms) });
    return el("article", { class: `report${p.quantity ? "" : " quiet"}` }, el("header", {}, el("h3", {}, item(p.part)), el("span", { class: "muted small" }, p.gateway)), el("p", {}, el("b", {}, headline(p))), ...sentences(p).map((line) => el("span", { class: "muted small line" }, line)),
      p.options.length ? el("details", {}, el("summary", {}, optionsTitle()), ...options(p).map((line) => el("span", { class: "small line" }, line))) : null,
      p.quantity ? el("div", { class: "answers" }, ...(given.length ? given : judge(() => body("accepted"), () => body("rejected")))) : null);
  }) : empty(noPurchase()));
}

function showSchedules() {
  put("schedules", [state.schedules.map((s) => [s.id, s.answers.length, answered.get(s.id)])], () => state.schedules.length ? state.schedules.map((s) => {
    const given = pending(s.id, s.answers.map((a) => tag(a.verdict)));
    const body = (verdict) => send(s.id, { target: s.id, verdict, time_ms: String(s.issued_ms) });
    return el("article", { class: "report" }, el("header", {}, el("h3", {}, s.gateway), el("span", { class: "muted small" }, scheduleSentence(s))), el("div", { class: "wrap" }, gantt(s)),
      ...windowSentences(s).map((line) => el("p", { class: "small" }, line)), criticalSentence(s) ? el("p", { class: "muted small" }, criticalSentence(s)) : null,
      el("div", { class: "answers" }, ...(given.length ? given : judge(() => body("accepted"), () => body("rejected")))));
  }) : empty(noSchedule()));
}

// A report is two parts, its text and what is answered to it: neither an answer nor a newer report disturbs an open editor.
function showReports() {
  const reports = withOpen(state.reports), proposed = (r) => state.wordings.filter((w) => w.report === r.number);
  const articles = each($("reports"), reports.length ? reports.map((r) => ({ key: r.id, content: "", make: () => el("article", { class: "report" }) })) : [{ key: "", content: "", make: () => empty(t("noReport")) }]);
  reports.forEach((r, i) => each(articles[i], [
    { key: "text", content: editing(r) ? "editing" : [r.edited, proposed(r), Boolean(r.list)], make: () => reportText(r) },
    { key: "answers", content: [r.list, r.answers, [...answered].filter(([key]) => key.startsWith(`${r.id}/`))], make: () => reportAnswers(r) },
  ]));
}

function reportText(r) {
  const zh = lang() === "zh", last = r.sections.length - 1, parts = sectionsOf(r), changed = (n) => parts[n][zh ? "text_zh" : "text_en"] !== r.sections[n][zh ? "text_zh" : "text_en"];
  return el("div", {}, el("header", {}, tag(r.severity), el("h3", {}, zh ? r.title_zh : r.title_en), editedTag(r), el("span", { class: "muted small" }, `${moment(r.issued_ms)} · ${r.gateway}`), el("span", { class: "spring" }), editing(r) ? null : editButton(r, show, poll)),
    ...(editing(r) ? [editorOf(r)] : told(r, r.list && !changed(last) ? parts.slice(0, last) : parts, state.wordings)),
    r.edited && !editing(r) ? el("details", { class: "issued" }, el("summary", {}, issuedTitle()), ...told(r, r.sections, [])) : null);
}

function told(r, sections, proposals) {
  const zh = lang() === "zh";
  return sections.flatMap((s) => {
    const claim = el("div", { class: "opened" });
    return [el("h4", { title: s.section && !s.edited ? modeWords(zh ? s.mode_zh : s.mode_en) : undefined }, zh ? s.title_zh : s.title_en), el("p", {}, ...said(s, (fact) => openClaim(claim, r, fact))), claim, ...waiting(r, s.section, proposals)];
  });
}

function reportAnswers(r) {
  return el("div", {}, r.list ? el("h4", {}, t("recommended")) : null, ...(r.list ? recommended(r) : []),
    el("details", {}, el("summary", {}, t("evidence")), table([{ text: "#" }, { text: t("value"), n: true }, { text: t("expected"), n: true }, { text: t("samples"), n: true }, { text: t("model") }],
      r.evidence.map((e, i) => [String(i + 1), `${e.statistic} ${number(e.value)} ${e.unit}`, e.expected_low === null ? "–" : `${number(e.expected_low)} – ${number(e.expected_high)}`, String(e.samples), e.model ? `${algorithm(e.model.algorithm)} v${e.model.version} ${e.model.digest.slice(0, 8)}` : "–"]))), answers(r));
}

// What a claim stands on, under its section; the same claim again closes it.
async function openClaim(place, report, number) {
  if (place.dataset.fact === String(number)) { place.replaceChildren(); delete place.dataset.fact; return; }
  place.dataset.fact = String(number);
  const fact = report.facts[number], e = report.evidence[fact.evidence ?? -1];
  place.replaceChildren(el("b", { class: "small" }, `${claimTitle()}: ${fact.key}`), ...origin(fact, report).map((line) => el("span", { class: "muted small line" }, line)));
  if (!e) return;
  const answer = await fetch(`/console/samples/${[report.gateway, e.machine, e.signal].map(encodeURIComponent).join("/")}?start_ms=${e.start_ms}&end_ms=${e.end_ms}`);
  if (!answer.ok || place.dataset.fact !== String(number)) return;
  const shared = await answer.json();
  place.append(...(shared.points.length > 1 ? [samplesChart(e, shared)] : []), el("span", { class: "muted small line" }, samplesTitle(shared)));
}

// The set of alternatives: the first one's steps, the others one line each until they are opened.
const seenPlans = new Map(); // ranking -> the alternative that is shown
function showPlans() {
  $("plans-title").textContent = planWords("title");
  put("plans", [state.plans.map((s) => [s.ranking, s.plans.map((p) => p.id), s.answers.length]), [...answered], [...seenPlans]], () => state.plans.length ? state.plans.map((set) => {
    const key = set.ranking || set.plans[0].id, shownPlan = set.plans.find((p) => p.item === seenPlans.get(key)) ?? set.plans[0];
    const answer = (verdict, plan) => send(`${key}/${plan.item}`, { target: set.ranking, verdict, item: plan.item, time_ms: String(plan.issued_ms) });
    const lines = passages(shownPlan).flatMap((p) => p.sections.map((s) => { const claim = el("div", { class: "opened" }); return el(p.whole ? "div" : "li", {}, el("p", {}, ...said(s, (fact) => openClaim(claim, { gateway: set.gateway, facts: p.facts, evidence: p.evidence }, fact))), claim); }));
    return el("details", { class: "report", open: seenPlans.has(key) || set === state.plans[0] }, el("summary", {}, el("b", {}, planTitle(shownPlan)), ` · ${set.gateway} · ${planLine(shownPlan)}`),
      el("div", { class: "plan" }, ...lines.filter((l) => l.tagName === "DIV"), el("ol", {}, ...lines.filter((l) => l.tagName === "LI"))),
      el("h4", {}, planWords("alternatives")), ...set.plans.map((p) => {
        const given = pending(`${key}/${p.item}`, set.answers.filter((a) => a.item === p.item).map((a) => tag(a.verdict)));
        return el("div", { class: "answers" }, el("span", { class: "small" }, p === shownPlan ? el("b", {}, planLine(p)) : planLine(p)), p === shownPlan ? null : el("button", { type: "button", onclick: () => { seenPlans.set(key, p.item); showPlans(); } }, planWords("show")),
          ...(given.length ? given : set.ranking ? [el("button", { type: "button", class: "good", onclick: () => answer("accepted", p) }, planWords("use")), el("button", { type: "button", onclick: () => answer("rejected", p) }, planWords("not"))] : []));
      }));
  }) : empty(planWords("none")));
}

function showNotes() {
  $("notes-title").textContent = noteWords("title");
  $("words").placeholder = noteWords("write", chosen?.machine ?? "…");
  $("send-note").textContent = noteWords("send");
  put("notes", [state.notes.map((n) => [n.note.id, n.reading?.id, n.answers.length, answered.get(n.reading?.id)])], () => state.notes.length ? state.notes.map((n) => {
    const r = n.reading, first = r?.judged.find((j) => j.about === "failure"), given = r ? pending(r.id, n.answers.map((a) => tag(a.verdict, `${t(a.verdict)}${a.correction ? ": " + item(a.correction) : ""}`))) : [];
    const answer = (verdict, correction) => send(r.id, { target: r.id, verdict, item: first ? "failure" : "", correction: correction ?? "", time_ms: String(r.issued_ms) });
    const correct = () => { const right = prompt(noteWords("which"), first?.classes[1]?.name ?? ""); if (right) answer("corrected", `failure:${right.trim().slice(0, 80)}`); };
    return el("article", { class: "report" }, el("header", {}, el("h3", {}, n.note.machine), el("span", { class: "muted small" }, `${moment(n.note.time_ms)} · ${n.gateway}`)),
      el("p", { class: "note" }, ...weighed(n.note.text, first).map((part) => part.amount ? el("mark", { class: part.amount > 0 ? "for" : "against", title: number(part.amount) }, part.text) : part.text)),
      ...(r ? [...meanings(r).map((m) => el("span", { class: "small line" }, m.text)), ...noteLines(r, n.note.text).map((line) => el("span", { class: "muted small line" }, line)),
        first ? el("div", { class: "answers" }, ...(given.length ? given : [el("button", { type: "button", class: "good", onclick: () => answer("accepted") }, noteWords("right")), ...first.classes.slice(1, 3).map((c) => el("button", { type: "button", onclick: () => answer("corrected", `failure:${c.name}`) }, item(c.name))), el("button", { type: "button", onclick: correct }, noteWords("other"))])) : null]
        : [el("span", { class: "muted small line" }, noteWords("waiting"))]));
  }) : empty(noteWords("none")));
}

async function writeNote(event) {
  event.preventDefault();
  const text = $("words").value.trim();
  if (!text || !chosen) return;
  const answer = await fetch("/console/note", { method: "POST", headers: { "Content-Type": "application/json", "X-Millwright": "console" }, body: JSON.stringify({ gateway: chosen.gateway, machine: chosen.machine, text }) });
  if (!answer.ok) return alert((await answer.json()).error);
  $("words").value = "";
  poll();
}

// Coverage of the near, the middle and the far third of the horizon.
function thirds(live) {
  const known = live.map(([, e]) => e.by_horizon ?? []).filter((h) => h.length === 3);
  return known.length ? ` (${[0, 1, 2].map((i) => Math.round((100 * known.reduce((s, h) => s + h[i], 0)) / known.length)).join(" / ")})` : "";
}

function showModels() {
  const running = state.gateways.flatMap((g) => g.models.map((m) => ({ gateway: g.id, card: state.cards[m.digest], ...m })));
  const heads = [{ text: t("gateways") }, { text: t("slot") }, { text: t("version") }, { text: t("role") }, { text: t("results"), n: true }];
  put("models", [running, state.models.map((m) => [m.number, m.status])], () => [running.length ? table(heads, running.flatMap((m) => [[m.gateway, cardOf(m.card, m.slot), `v${m.version}`, tag(m.status, m.status), String(m.results)], ...engineOf(m)])) : empty(t("noModel")), registered(state.models, tag)].filter(Boolean));
  const errors = state.gateways.flatMap((g) => g.live_errors.map((e) => [g.id, e]));
  const held = state.models.filter((m) => m.slot.startsWith("forecast."));
  put("quality", [held.map((m) => [m.slot, m.version, m.status]), errors], () => held.length || errors.length ? [el("p", { class: "muted small" }, t("against")), table([{ text: t("model") }, { text: t("role") }, { text: t("held"), n: true }, { text: t("live"), n: true }, { text: t("coverage"), n: true }],
    [...held.map((m) => ({ name: `${algorithm(m.algorithm)} v${m.version}`, algorithm: m.algorithm, status: m.status, q: m.quality[0] })), ...(errors.some(([, e]) => e.algorithm === "combined") ? [{ name: t("combined"), algorithm: "combined", status: null, q: { model: null } }] : []), { name: t("reference"), algorithm: "naive", status: null, q: { model: 1 } }].map((m) => {
      const live = errors.filter(([, e]) => e.algorithm === m.algorithm && e.n), mean = (f) => live.reduce((s, [, e]) => s + f(e), 0) / live.length;
      return [m.name, m.status ? tag(m.status, m.status) : "", number(m.q.model), live.length ? number(mean((e) => e.scaled_error)) : "–", live.length ? `${Math.round(100 * mean((e) => e.coverage))} %${thirds(live)}` : "–"];
    }))] : empty(t("none")));
}

function showRollouts() {
  const running = state.jobs.filter((j) => j.status === "running");
  put("rollouts", [state.rollouts, running], () => [...running.map((j) => el("p", { class: "small" }, tag("running", "running"), ` ${j.kind}: ${j.step} (${j.because})`, bar(j.progress))), ...(state.rollouts.length ? state.rollouts.map((r) => el("p", { class: "small" }, tag(r.status, r.status), ` ${r.slot} v${r.version} (${r.role}) – ${r.because}`)) : [empty(t("none"))])]);
  const learned = state.rollouts.find((r) => r.slot === "recommend.items" && r.status === "done" && r.version > 1 && /answers/.test(r.because));
  $("banner").hidden = !learned;
  if (learned) put("banner", learned, () => `${learned.slot} v${learned.version} ${t("live_now")} ${learned.because}.`);
}

function showRest() {
  put("events", state.events.map((e) => [e.id, e.end_ms]), () => state.events.length ? table([{ text: "" }, { text: t("machines") }, { text: t("events") }, { text: "UTC" }], state.events.slice(0, 12).map((e) => [tag(e.severity), e.machine, `${e.signal} ${t(e.kind === "silent" ? "noValue" : e.kind)}`, `${moment(e.start_ms)}${e.end_ms ? " – " + moment(e.end_ms).slice(6) : " …"}`])) : empty(t("none")));
  put("gateways", state.gateways.map((g) => [g.id, g.alive, g.rss_mib, g.outbox, g.quarantine]), () => state.gateways.length ? state.gateways.map((g) => el("p", { class: "small" }, el("b", {}, g.id), " ", g.alive ? tag("done", t("alive")) : tag("stopped", `${t("silent")} ${number(g.last_data_s)} s`), ` ${number(g.rss_mib)} MiB · ${g.outbox} ${t("outbox")}`, el("br"), el("span", { class: "muted" }, `${t("quarantine")}: ${Object.entries(g.quarantine).map(([why, n]) => `${why} ${n}`).join(", ") || "0"}`))) : empty(t("none")));
  put("ledger", state.ledger, () => ledgers(state.ledger));
  $("site").textContent = [...new Set(state.gateways.map((g) => g.site))].join(", ");
}

function show() {
  for (const heading of document.querySelectorAll("[data-t]")) heading.textContent = t(heading.dataset.t);
  $("buying-title").textContent = buyingTitle();
  $("schedules-title").textContent = scheduleTitle();
  $("ledger-title").textContent = ledgerTitle();
  $("language").textContent = lang() === "zh" ? "English" : "中文";
  if (!state) return;
  showLoop(); showMachines(); showSchedules(); showReports(); showPlans(); showNotes(); showWordings($("wordings-title"), $("wordings"), state.wordings, poll); showBuying(); showModels(); showRollouts(); showRest();
  showIdentities($("identities-title"), $("identities"), state.identities, state.now_ms, poll);
}

async function poll() {
  try {
    const answer = await fetch("/console/state.json");
    if (answer.status === 401) return location.reload();
    state = await answer.json();
    $("pulse").textContent = `${t("updated")} ${new Date().toLocaleTimeString("en-GB")}`;
    show();
    await charts();
  } catch { $("pulse").textContent = t("lost"); }
}

const theme = (to) => { document.documentElement.dataset.theme = to; localStorage.setItem("theme", to); };
theme(new URLSearchParams(location.search).get("theme") || localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
setLanguage(lang());
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("language").addEventListener("click", () => { setLanguage(lang() === "zh" ? "en" : "zh"); shown.clear(); show(); charts(); });
$("write").addEventListener("submit", writeNote);
show();
poll();
setInterval(poll, 2000);

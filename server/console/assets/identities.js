// Who the gateways are: every certificate and how it stands, one-time tokens, revocation, and who was not believed.
import { svg } from "./chart.js";
import { ask, each, el } from "./elements.js";
import { lang } from "./words.js";

const WORDS = {
  en: { title: "Gateways' identities", lost: "The server does not answer; whether it was done is not known. Look again in a moment.",
    none: "No gateway has a certificate yet. Issue a token below, and enrol the gateway with it.",
    authority: "This server has no authority yet, so gateways have no certificates and share one token. Make one with:",
    standing: { lost: "ended, enrol again", expired: "ended", due: "renewal due", valid: "valid", revoked: "revoked", without: "no certificate" },
    counts: { lost: "{0} to enrol again", expired: "{0} ended", due: "{0} due for renewal", valid: "{0} valid", revoked: "{0} revoked", without: "{0} without a certificate" }, more: "and {0} more that are in order",
    left: "{0} left", renews: "renews itself from {0} on", due: "due for renewal since {0}, not renewed yet", ended: "ended {0} ago", grace: "renews itself until {0}, when it reaches the server", gone: "too long ago to renew itself", back: "revoked on {0}", serial: "Serial {0}",
    revoke: "Revoke …", again: "Tell the broker again", enrol: "Enrol again …", first: "Enrol …", sure: "Revoke every certificate of {0}?", means: "The HTTP API refuses it at once, its session at the broker ends, and tokens that wait for it open nothing. What it does without the server goes on. It can be enrolled again with a new token.", because: "Why (for the books)", yes: "Revoke {0}", not: "Not now", done: "{0}: {1} certificate(s) revoked. Broker: {2}", close: "Close", busy: "Waiting for the broker …",
    tokens: "One-time tokens", waits: "for {0}", until: "until {0}", noToken: "No token waits.", withdraw: "Withdraw", gateway: "Gateway", valid: "Valid for", spans: { 3600: "1 hour", 86400: "1 day", 604800: "7 days" }, issue: "Issue a token",
    once: "The token file for {0}. It is shown once and kept nowhere: take it now.", carry: "Carry it to the gateway and enrol it there before {0}:", copy: "Copy", copied: "Copied", download: "Download", have: "I have it",
    refused: "Not believed", nobody: "Nobody was refused.", reason: "reason", times: "times", last: "last", detail: "the last one",
    reasons: { token_unknown: "unknown token", token_used: "token used before", token_expired: "token has run out", bad_request: "request asks for more or other than it may", bad_name: "name that no gateway may have", bad_certificate: "not our certificate", unsigned: "signature does not fit", expired: "ended beyond the grace", revoked: "revoked", too_often: "turned away, too many tries", malformed_json: "unreadable", too_large: "too large" },
    units: ["d", "h", "min"] },
  zh: { title: "网关身份", lost: "服务器无响应，操作是否完成未知。请稍后再看。",
    none: "尚无网关持有证书。请在下方签发令牌，并用它注册网关。",
    authority: "此服务器尚无证书颁发机构，网关没有证书，共用一个令牌。建立命令：",
    standing: { lost: "已到期，需重新注册", expired: "已到期", due: "待续期", valid: "有效", revoked: "已吊销", without: "无证书" },
    counts: { lost: "{0} 个需重新注册", expired: "{0} 个已到期", due: "{0} 个待续期", valid: "{0} 个有效", revoked: "{0} 个已吊销", without: "{0} 个无证书" }, more: "另有 {0} 个状态正常",
    left: "剩余 {0}", renews: "自 {0} 起自动续期", due: "自 {0} 起应续期，尚未续期", ended: "已到期 {0}", grace: "{0} 前连上服务器即可自动续期", gone: "到期过久，无法自动续期", back: "吊销于 {0}", serial: "序列号 {0}",
    revoke: "吊销……", again: "再次通知消息代理", enrol: "重新注册……", first: "注册……", sure: "吊销 {0} 的全部证书？", means: "HTTP 接口立即拒绝该网关，其消息代理会话结束，为它签发而未使用的令牌失效。不依赖服务器的功能照常运行。可用新令牌重新注册。", because: "原因（留档）", yes: "吊销 {0}", not: "暂不", done: "{0}：已吊销 {1} 张证书。消息代理：{2}", close: "关闭", busy: "正在等待消息代理……",
    tokens: "一次性令牌", waits: "供 {0} 使用", until: "{0} 前有效", noToken: "没有待用令牌。", withdraw: "撤回", gateway: "网关", valid: "有效期", spans: { 3600: "1 小时", 86400: "1 天", 604800: "7 天" }, issue: "签发令牌",
    once: "{0} 的令牌文件。仅显示一次，不作保存：请立即取走。", carry: "带到网关上，并在 {0} 前注册：", copy: "复制", copied: "已复制", download: "下载", have: "已取走",
    refused: "拒绝记录", nobody: "没有被拒绝的请求。", reason: "原因", times: "次数", last: "最近", detail: "最近一次",
    reasons: { token_unknown: "未知令牌", token_used: "令牌已被使用", token_expired: "令牌已过期", bad_request: "请求内容不合规定", bad_name: "网关不得使用的名称", bad_certificate: "非本机构证书", unsigned: "签名不符", expired: "超出宽限期", revoked: "已吊销", too_often: "尝试过多，未予受理", malformed_json: "无法读取", too_large: "过大" },
    units: ["天", "小时", "分钟"] },
};
const t = (key, ...filled) => filled.reduce((text, v, i) => text.replace(`{${i}}`, () => v), WORDS[lang()][key] ?? key);
const word = (key, name) => WORDS[lang()][key][name] ?? name;
const day = (ms) => new Date(ms).toISOString().slice(0, 10);
const minute = (ms) => `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
const TAGS = { lost: "alarm", expired: "alarm", due: "warning", valid: "done", revoked: "revoked", without: "revoked" };
const DAY = 86_400_000, HOUR = 3_600_000, MINUTE = 60_000;

const asked = new Map(); // gateway -> {because, sending, refusal, done}: a revocation on its way
const form = { gateway: "", valid: "3600", sending: false, refusal: null };
let issued = null; // {gateway, token_file, expires_ms, url} until a person says that he has it; nowhere else
let withdrawal = null; // the refusal of the last one
let again = () => {}; // draws the panel as it was last asked for

// Shows everything; `changed` is called after a change. now_ms: the server's clock.
export function showIdentities(heading, place, identities, now_ms, changed) {
  heading.textContent = t("title");
  again = () => showIdentities(heading, place, identities, now_ms, changed);
  const { certificates, standings, without, tokens, refusals, authority } = identities;
  const rows = certificates.flatMap((c) => [
    { key: `certificate/${c.gateway}`, content: [c, lines(c, now_ms), asked.has(c.gateway), authority], make: () => certificate(c, now_ms, authority, changed) },
    ...(asked.has(c.gateway) ? [{ key: `revoke/${c.gateway}`, content: { ...asked.get(c.gateway), because: null }, make: () => revocation(c.gateway, heading, changed) }] : [])]);
  const hidden = Object.values(standings).reduce((sum, n) => sum + n, 0) - certificates.length;
  each(place, [
    { key: "how many", content: [standings, without.length, authority], make: () => summary(standings, without.length, authority) },
    ...rows,
    ...(hidden > 0 ? [{ key: "more", content: hidden, make: () => el("p", { class: "muted small" }, t("more", hidden)) }] : []),
    ...without.map((gateway) => ({ key: `without/${gateway}`, content: authority, make: () => bare(gateway, authority) })),
    ...(authority ? [
      { key: "tokens", content: [tokens.length, withdrawal], make: () => el("div", {}, el("h3", {}, t("tokens")), tokens.length ? null : el("p", { class: "empty" }, t("noToken")), refusal(withdrawal)) },
      ...tokens.map((one) => ({ key: `token/${one.digest}`, content: one, make: () => token(one, heading, changed) })),
      { key: "form", content: [form.sending, form.refusal, form.filled], make: () => tokenForm(changed) },
      { key: "names", content: [certificates.map((c) => c.gateway), without], make: () => el("datalist", { id: "gateway-names" }, ...[...without, ...certificates.map((c) => c.gateway)].map((name) => el("option", { value: name }))) },
      ...(issued ? [{ key: "issued", content: issued.expires_ms, make: () => shownOnce(heading) }] : [])] : []),
    { key: "refusals", content: refusals, make: () => notBelieved(refusals) },
  ]);
}

function summary(standings, without, authority) {
  const counted = [...Object.keys(TAGS).filter((s) => standings[s]).map((s) => word("counts", s).replace("{0}", standings[s])), ...(without ? [word("counts", "without").replace("{0}", without)] : [])];
  if (!authority) return el("p", { class: "empty" }, t("authority"), " ", el("code", {}, "millwright server ca init --config server.toml"));
  return Object.keys(standings).length ? el("p", { class: "muted small" }, counted.join(" · ")) : el("p", { class: "empty" }, t("none"));
}

// certificates ---------------------------------------------------------------------------------------------------------

const standing = (name) => el("span", { class: `tag ${TAGS[name]}` }, word("standing", name));
const button = (text, act, how = {}) => el("button", { type: "button", onclick: act, ...how }, text);
const enrolling = (gateway, words) => button(t(words), () => { Object.assign(form, { gateway, refusal: null, filled: (form.filled ?? 0) + 1 }); again(); document.getElementById("token-gateway").focus(); }, { "data-enrol": gateway });

function certificate(c, now_ms, authority, changed) {
  const acts = [];
  if (c.standing === "revoked") acts.push(button(t("again"), () => revokeNow(c.gateway, "", changed), { disabled: asked.has(c.gateway) }));
  else acts.push(button(t("revoke"), () => { asked.set(c.gateway, { because: "" }); again(); document.querySelector(`[data-revoke="${c.gateway}"] input`).focus(); }, { class: "revoke", disabled: asked.has(c.gateway) }));
  if (["lost", "revoked"].includes(c.standing)) acts.push(enrolling(c.gateway, "enrol"));
  const said = lines(c, now_ms);
  return el("article", { class: "identity", "data-gateway": c.gateway, "data-standing": c.standing }, el("div", { class: "who" }, el("b", {}, c.gateway), standing(c.standing)),
    el("div", {}, lifetime(c, now_ms, `${c.gateway}: ${said.join(", ")}`), ...said.map((line, i) => el("span", { class: ["small line", "small line muted", "small line muted serial"][i] }, line))),
    authority ? el("div", { class: "answers" }, ...acts) : el("div", {}));
}

// What its dates mean today, the most urgent first.
function lines(c, now_ms) {
  const dates = `${minute(c.not_before_ms)} – ${minute(c.not_after_ms)}`, serial = t("serial", c.serial), ago = span(now_ms - c.not_after_ms);
  const first = { revoked: () => t("back", minute(c.revoked_ms)) + (c.revoked_because ? `: ${c.revoked_because}` : ""), lost: () => `${t("ended", ago)} · ${t("gone")}`, expired: () => `${t("ended", ago)} · ${t("grace", day(c.grace_ms))}`,
    due: () => `${t("left", span(c.not_after_ms - now_ms))} · ${t("due", minute(c.renewed_from_ms))}`, valid: () => `${t("left", span(c.not_after_ms - now_ms))} · ${t("renews", minute(c.renewed_from_ms))}` }[c.standing]();
  return [first, dates, serial];
}

function span(ms) {
  const [days, hours, minutes] = WORDS[lang()].units;
  return ms >= 2 * DAY ? `${Math.floor(ms / DAY)} ${days}` : ms >= 2 * HOUR ? `${Math.floor(ms / HOUR)} ${hours}` : `${Math.max(Math.floor(ms / MINUTE), 0)} ${minutes}`;
}

// From its first to its last moment: what is over, and the mark from which it is renewed.
function lifetime(c, now_ms, said) {
  const [W, H] = [600, 8], x = (ms) => (W * Math.min(Math.max(ms - c.not_before_ms, 0), c.not_after_ms - c.not_before_ms)) / (c.not_after_ms - c.not_before_ms);
  const drawing = svg("svg", { class: `lifetime ${c.standing}`, viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": said });
  drawing.append(svg("rect", { class: "rail", width: W, height: H, rx: 3 }), svg("rect", { class: "over", width: x(c.revoked_ms ?? now_ms), height: H, rx: 3 }), svg("rect", { class: "renewal", x: x(c.renewed_from_ms), width: 3, height: H }));
  return drawing;
}

const bare = (gateway, authority) => el("article", { class: "identity", "data-gateway": gateway, "data-standing": "without" }, el("div", { class: "who" }, el("b", {}, gateway), standing("without")), el("div", {}), authority ? el("div", { class: "answers" }, enrolling(gateway, "first")) : el("div", {}));

// A revocation: what it means and why, then what became of it, until a person has read that.
function revocation(gateway, heading, changed) {
  const mine = asked.get(gateway), leave = () => { asked.delete(gateway); again(); heading.focus(); };
  const around = (...children) => el("div", { class: "confirm", role: "group", "data-revoke": gateway, "aria-label": t("sure", gateway) }, ...children);
  if (mine.done || mine.refusal) {
    return around(mine.done ? el("p", { role: "status" }, t("done", gateway, mine.done.certificates, mine.done.broker)) : refusal(mine.refusal),
      el("div", { class: "answers" }, mine.refusal ? button(t("again"), () => revokeNow(gateway, mine.because, changed)) : null, button(t("close"), leave, { class: "close" })));
  }
  if (mine.sending) return around(el("p", { role: "status" }, t("busy")));
  const why = el("input", { id: `why-${gateway}`, maxlength: 200, value: mine.because, oninput: (e) => { mine.because = e.target.value; } });
  return around(el("b", {}, t("sure", gateway)), el("p", { class: "small" }, t("means")), el("label", { class: "small", for: why.id }, t("because")), why,
    el("div", { class: "answers" }, button(t("yes", gateway), () => revokeNow(gateway, mine.because, changed), { class: "danger" }), button(t("not"), leave, { class: "not" })));
}

async function revokeNow(gateway, because, changed) {
  asked.set(gateway, { because, sending: true });
  again();
  const { body, refusal: why } = await ask(`/console/gateways/${encodeURIComponent(gateway)}/revoke?because=${encodeURIComponent(because)}`, t("lost"), {});
  asked.set(gateway, { because, done: body, refusal: why });
  await changed();
  again();
  document.querySelector(`[data-revoke="${gateway}"] button`)?.focus();
}

// tokens ---------------------------------------------------------------------------------------------------------------

function token(one, heading, changed) {
  const withdraw = async (e) => {
    e.target.disabled = true;
    withdrawal = (await ask(`/console/enrol-tokens/${one.digest}/withdraw`, t("lost"), {})).refusal ?? null;
    await changed();
    again();
    heading.focus();
  };
  return el("article", { class: "identity token", "data-token": one.gateway }, el("div", { class: "who" }, el("b", {}, t("waits", one.gateway))), el("div", { class: "muted small" }, t("until", minute(one.expires_ms))), el("div", { class: "answers" }, button(t("withdraw"), withdraw)));
}

function tokenForm(changed) {
  const name = el("input", { id: "token-gateway", required: true, maxlength: 64, list: "gateway-names", autocomplete: "off", value: form.gateway, oninput: (e) => { form.gateway = e.target.value; } });
  const valid = el("select", { id: "token-valid", onchange: (e) => { form.valid = e.target.value; } }, ...Object.keys(WORDS.en.spans).map((s) => el("option", { value: s, selected: s === form.valid }, word("spans", s))));
  const send = async (e) => {
    e.preventDefault();
    Object.assign(form, { sending: true, refusal: null });
    again();
    const { body, refusal: why } = await ask(`/console/gateways/${encodeURIComponent(form.gateway.trim())}/enrol-token?valid_s=${form.valid}`, t("lost"), {});
    Object.assign(form, { sending: false, refusal: why ?? null }, body ? { gateway: "" } : {});
    if (body) { forget(); issued = { ...body, url: URL.createObjectURL(new Blob([body.token_file], { type: "text/plain" })) }; }
    await changed();
    again();
    (document.querySelector("#issued textarea") ?? document.getElementById("token-gateway")).focus();
  };
  return el("form", { class: "token-form", onsubmit: send }, el("label", { class: "small" }, t("gateway"), name), el("label", { class: "small" }, t("valid"), valid), el("button", { type: "submit", class: "good", disabled: form.sending }, t("issue")), refusal(form.refusal));
}

// The one time that anybody sees it.
function shownOnce(heading) {
  const text = el("textarea", { readonly: true, rows: 8, spellcheck: "false", "aria-label": t("once", issued.gateway), onfocus: (e) => { e.target.select(); e.target.scrollTop = 0; } });
  text.value = issued.token_file;
  const copy = async (e) => { text.select(); await navigator.clipboard.writeText(issued.token_file); e.target.textContent = t("copied"); };
  return el("article", { class: "confirm", id: "issued" }, el("b", {}, t("once", issued.gateway)), text,
    el("div", { class: "answers" }, navigator.clipboard ? button(t("copy"), copy) : null, el("a", { href: issued.url, download: `token-${issued.gateway}` }, t("download")), button(t("have"), () => { forget(); again(); heading.focus(); }, { class: "good have" })),
    el("p", { class: "small" }, t("carry", minute(issued.expires_ms))), el("code", { class: "small line" }, `millwright agent enrol --config agent.toml --server ${location.origin} --token-file token-${issued.gateway}`));
}

function forget() {
  if (issued) URL.revokeObjectURL(issued.url);
  issued = null;
}

// refusals -------------------------------------------------------------------------------------------------------------

const refusal = (why) => (why ? el("p", { class: "refusal", role: "alert" }, [why.error, why.remedy].filter(Boolean).join(" – ")) : null);

function notBelieved(refusals) {
  if (!refusals.length) return el("div", {}, el("h3", {}, t("refused")), el("p", { class: "empty" }, t("nobody")));
  const row = (r) => el("tr", { "data-reason": r.reason }, el("td", {}, word("reasons", r.reason)), el("td", { class: "n" }, r.times.toLocaleString("en")), el("td", {}, minute(r.last_ms)), el("td", { class: "muted" }, r.last_detail));
  return el("div", {}, el("h3", {}, t("refused")), el("div", { class: "wrap" }, el("table", { class: "refusals" }, el("thead", {}, el("tr", {}, el("th", {}, t("reason")), el("th", { class: "n" }, t("times")), el("th", {}, t("last")), el("th", {}, t("detail")))), el("tbody", {}, ...refusals.map(row)))));
}

"use strict";
(() => {
  const PAGE = 50;
  const index = JSON.parse(document.getElementById("index").textContent);
  const episodes = index.episodes;
  const chunks = new Map();
  const el = (id) => document.getElementById(id);
  const state = { filters: {}, shown: [], page: 0, at: -1, beside: -1, tokens: false };

  /* Text only ever becomes a text node: nothing of an episode is read as markup. */
  function h(tag, props, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
      else if (name === "class") node.className = value;
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat()) if (child !== null && child !== undefined && child !== "")
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    return node;
  }

  function body(i) {
    const c = Math.floor(i / index.chunk);
    if (!chunks.has(c)) chunks.set(c, unpack(el("chunk-" + c).textContent));
    return chunks.get(c).then((list) => list[i % index.chunk]);
  }

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  /* Filters. */
  const of = {
    run: ["run", (e) => [index.runs[e.run]]],
    class: ["outcome", (e) => [e.class]],
    layer: ["layer", (e) => index.layers.filter((_, i) => e.layers[i] === "f").map((name) => name + " fails")],
    rule: ["broken rule", (e) => e.rules],
    end: ["end", (e) => [e.end]],
    scenario: ["scenario", (e) => [e.scenario]],
    family: ["family", (e) => (e.family ? [e.family] : [])],
    task: ["task", (e) => [e.task]],
    user: ["user", (e) => [e.user]],
    stage: ["stage", (e) => [e.stage]],
    step: ["step", (e) => [String(e.step)]],
  };

  function buildFilters() {
    const form = el("filters");
    for (const [name, [label, values]] of Object.entries(of)) {
      const counts = new Map();
      for (const e of episodes) for (const v of values(e)) counts.set(v, (counts.get(v) || 0) + 1);
      if (counts.size < 2 && !(counts.size && (name === "rule" || name === "layer"))) continue;
      const sorted = [...counts].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
      const select = h("select", { name, on: { change: () => { state.filters[name] = select.value; filter(); } } },
        h("option", { value: "" }, "all"), sorted.map(([v, n]) => h("option", { value: v }, v + " (" + n + ")")));
      form.append(h("label", {}, label, select));
    }
    const search = h("input", { type: "search", name: "text", placeholder: "id, task, rule …", on: { input: () => {
      state.filters.text = search.value.trim().toLowerCase(); filter(); } } });
    form.append(h("label", {}, "find", search));
    form.append(h("label", {}, " ", h("button", { type: "reset" }, "clear")));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => { state.filters = {}; filter(); });
  }

  function filter() {
    const wanted = Object.entries(state.filters).filter(([, v]) => v);
    state.shown = [];
    episodes.forEach((e, i) => {
      const fits = wanted.every(([name, v]) => name === "text"
        ? (e.id + " " + e.task + " " + e.scenario + " " + e.rules.join(" ") + " " + e.end).toLowerCase().includes(v)
        : of[name][1](e).includes(v));
      if (fits) state.shown.push(i);
    });
    state.page = 0;
    drawList();
  }

  /* The list. */
  function drawList() {
    const pages = Math.max(1, Math.ceil(state.shown.length / PAGE));
    const rows = state.shown.slice(state.page * PAGE, (state.page + 1) * PAGE);
    el("rows").tBodies[0].replaceChildren(...rows.map((i) => {
      const e = episodes[i];
      return h("tr", { "aria-selected": String(i === state.at), "data-at": i },
        h("td", {}, h("button", { type: "button", on: { click: () => open(i) } }, e.task)),
        h("td", {}, name(e), e.step ? " · step " + e.step : "", " · " + e.rollout),
        h("td", { class: e.class }, e.class),
        h("td", {}, e.end),
        h("td", { title: index.layers.join(", ") }, e.layers.replace(/-/g, "·")));
    }));
    el("count").textContent = state.shown.length + " of " + episodes.length + " episodes";
    el("page").textContent = "page " + (state.page + 1) + " of " + pages;
    el("back").disabled = state.page === 0;
    el("forth").disabled = state.page >= pages - 1;
  }

  function turnPage(by) {
    const pages = Math.max(1, Math.ceil(state.shown.length / PAGE));
    state.page = Math.min(pages - 1, Math.max(0, state.page + by));
    drawList();
  }

  function step(by) {
    if (!state.shown.length) return;
    const place = state.shown.indexOf(state.at);
    const next = place < 0 ? 0 : Math.min(state.shown.length - 1, Math.max(0, place + by));
    open(state.shown[next]);
  }

  /* One episode. */
  function open(i, quiet) {
    state.at = i;
    state.beside = -1;
    const place = state.shown.indexOf(i);
    if (place >= 0) state.page = Math.floor(place / PAGE);
    drawList();
    draw();
    const row = document.querySelector('tr[data-at="' + i + '"]');
    if (row && !quiet) row.scrollIntoView({ block: "nearest" });
    if (!quiet) history.replaceState(null, "", "#" + encodeURIComponent(index.runs[episodes[i].run] + "/" + episodes[i].id));
  }

  function name(e) { return index.runs[e.run] + (e.stage.startsWith("eval/") ? ": " + e.stage.slice(5) : ""); }

  function siblings(i) {
    return episodes.map((_, j) => j).filter((j) => j !== i && episodes[j].key === episodes[i].key);
  }

  async function draw() {
    const at = state.at, beside = state.beside;
    const left = await body(at);
    const right = beside < 0 ? null : await body(beside);
    if (at !== state.at || beside !== state.beside) return;
    el("left").replaceChildren(...view(at, left, true));
    el("right").hidden = right === null;
    el("right").replaceChildren(...(right === null ? [] : view(beside, right, false)));
  }

  function view(i, b, main) {
    const e = episodes[i];
    const parts = [h("h3", {}, e.task + " · " + name(e) + " · rollout " + e.rollout)];
    parts.push(h("p", { class: "facts" }, h("b", { class: e.class }, e.class),
      " · reward " + (e.reward === null ? "–" : e.reward) + (b.advantage ? " · advantage " + b.advantage : "") + " · ended: ", h("b", {}, b.end.reason),
      b.end.detail ? " (" + b.end.detail + ")" : ""));
    parts.push(h("p", { class: "facts" }, /[pfn]/.test(e.layers)
      ? index.layers.map((name, n) => e.layers[n] === "-" ? null : h("span", { class: "badge " + ({ p: "pass", f: "fail" }[e.layers[n]] || "") },
        name + ": " + { p: "pass", f: "fail", n: "not applicable" }[e.layers[n]]))
      : "layers: not scored"));
    const facts = Object.entries(b.facts).filter(([, v]) => v);
    parts.push(h("details", {}, h("summary", { class: "facts" }, "about this episode"),
      facts.map(([name, v]) => h("p", { class: "facts" }, h("b", {}, name + ": "), v))));
    if (main) parts.push(controls(i, e));
    const whole = b.findings.filter((f) => f.verdict === "fail");
    if (whole.length) parts.push(h("p", {}, whole.map(badge)));
    parts.push(state.tokens ? tokenView(b) : h("ol", { class: "talk" }, b.events.map((event) => eventView(event, b.end))));
    return parts;
  }

  function controls(i, e) {
    const others = siblings(i);
    const select = h("select", { "aria-label": "another rollout of this task", on: { change: () => {
      state.beside = Number(select.value); draw(); } } },
      h("option", { value: -1 }, "nothing beside it"),
      others.slice(0, 200).map((j) => h("option", { value: j, selected: j === state.beside },
        name(episodes[j]) + (episodes[j].step ? " · step " + episodes[j].step : "") + " · rollout " + episodes[j].rollout + " · " + episodes[j].class)));
    return h("p", { class: "facts" }, others.length ? ["beside it: ", select, " "] : "no other rollout of this task here · ",
      h("button", { type: "button", id: "tokens", "aria-pressed": String(state.tokens), disabled: !e.tokens,
        on: { click: toggleTokens } }, e.tokens ? (state.tokens ? "show the talk" : "show tokens") : "no tokens here"));
  }

  function badge(f) {
    return h("span", { class: "badge " + f.verdict, title: f.why }, f.layer + " · " + f.rule + ": " + f.verdict + (f.verdict === "fail" && f.why ? " – " + f.why : ""));
  }

  function eventView(event, end) {
    const call = event.call, found = event.findings || [];
    const who = { agent: "agent", user: "user", world: "tool", runner: "end" }[event.actor] || event.actor;
    const said = [];
    if (call) said.push(" ", event.kind === "call" ? "calls " : event.kind === "error" ? "error from " : "answer of ", h("b", {}, call.name), " (" + call.class + ")");
    for (const tag of event.tags || []) said.push(" ", h("span", { class: "badge" + (tag.startsWith("inject:") || tag === "cut" ? " warn" : "") },
      tag === "beside_calls" ? "not heard by the user" : tag.replace(/_/g, " ")));
    const li = h("li", { class: event.actor + (found.some((f) => f.verdict === "fail") ? " broken" : "") }, h("span", { class: "who" }, h("b", {}, who), said));
    if (event.actor === "runner") { li.append(h("b", {}, end.reason), end.detail ? " – " + end.detail : ""); }
    else if (event.text) li.append(call ? long(pretty(event.text)) : event.text);
    if (call && call.arguments) li.append(h("pre", {}, Object.entries(call.arguments).map(([k, v]) => k + ": " + v).join("\n")));
    if (call && call.writes) li.append(h("span", { class: "who" }, "wrote " + call.writes.join(", ")));
    for (const record of event.diff || []) li.append(h("table", { class: "diff" }, h("caption", {}, record.table + " " + record.id),
      h("tbody", {}, record.changes.map(([field, was, now]) => h("tr", {}, h("td", {}, field), h("td", { class: "was" }, was), h("td", { class: "now" }, now))))));
    if (found.length) li.append(h("span", { class: "who" }, found.map(badge)));
    return li;
  }

  function pretty(text) {
    try { const value = JSON.parse(text); return typeof value === "object" && value !== null ? JSON.stringify(value, null, 1) : text; }
    catch { return text; }
  }

  function long(text) {
    if (text.length <= 500 && text.split("\n").length <= 14) return h("pre", {}, text);
    return h("details", {}, h("summary", {}, text.length + " characters: " + text.slice(0, 90).replace(/\s+/g, " ") + " …"), h("pre", {}, text));
  }

  /* Tokens: what was trained is underlined, the less likely it was the warmer its ground. */
  function tokenView(b) {
    if (!b.tokens) return h("p", {}, "no tokens of this episode are in this page");
    const owners = ["template", "user", "tool", "agent: trained", "agent: trained in an earlier row"];
    const out = h("div", {});
    b.tokens.forEach((row, r) => {
      const trained = row.owner.filter((o) => o === 3).length;
      const lps = row.logprob.filter((v) => v !== null);
      const mean = lps.length ? (lps.reduce((a, v) => a + v, 0) / lps.length).toFixed(3) : "–";
      out.append(h("p", { class: "facts" }, "row " + (r + 1) + ": " + row.text.length + " tokens, " + trained + " sampled by the agent (underlined) · mean log-probability " + mean
        + (b.advantage ? " · advantage " + b.advantage : "")));
      out.append(h("div", { class: "tokens" }, row.text.map((text, t) => {
        const lp = row.logprob[t], owner = row.owner[t];
        const heat = owner !== 3 ? "" : lp > -0.1 ? " p1" : lp > -0.7 ? "" : lp > -2 ? " p2" : lp > -4 ? " p3" : " p4";
        return h("span", { class: "o" + owner + heat, title: (owners[owner] || owner) + (lp === null ? "" : ", log-probability " + lp) }, text);
      })));
    });
    return out;
  }

  function toggleTokens() { if (state.at >= 0 && (state.tokens || episodes[state.at].tokens)) { state.tokens = !state.tokens; draw(); } }

  function besides() {
    if (state.at < 0) return;
    const others = siblings(state.at), place = others.indexOf(state.beside);
    state.beside = place + 1 < others.length ? others[place + 1] : -1;
    draw();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") { event.target.blur(); const row = document.querySelector('tr[aria-selected="true"] button'); if (row) row.focus(); return; }
    if (typing) return;
    const acts = { j: () => step(1), k: () => step(-1), s: besides, t: toggleTokens, "[": () => turnPage(-1), "]": () => turnPage(1),
      "/": () => document.querySelector("#filters input").focus() };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });

  if (typeof DecompressionStream === "undefined") {
    el("episodes").append(h("p", {}, "This browser cannot unpack the episodes; use one from 2023 or later. The summary above is complete."));
    return;
  }
  el("rows").tHead.append(h("tr", {}, ["task", "run · rollout", "outcome", "end", "layers"].map((title) => h("th", { scope: "col" }, title))));
  el("back").addEventListener("click", () => turnPage(-1));
  el("forth").addEventListener("click", () => turnPage(1));
  buildFilters();
  filter();
  el("viewer").hidden = false;
  let named = "";
  try { named = decodeURIComponent(location.hash.slice(1)); } catch { named = ""; }
  const start = episodes.findIndex((e) => index.runs[e.run] + "/" + e.id === named);
  if (episodes.length) open(start >= 0 ? start : 0, true);
  if (start >= 0) el("episodes").scrollIntoView();
  document.documentElement.dataset.ready = String(episodes.length);
})();

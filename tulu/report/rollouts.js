// The browser of rollouts: over the sample that stands in the page, or over all of a run that a server reads.

const facts = readJson("facts");
const PAGE = 40;
const HUES = { up: "58, 134, 255", down: "255, 122, 26" };
const state = { offset: 0, rows: [], total: 0, chosen: null, colour: "none", group: null, asked: 0 };
let source = null;

// -- where rollouts come from ----------------------------------------------------------------------------------

async function unpack() {
  const bytes = Uint8Array.from(atob(byId("packed").textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function within(value, low, high) {
  return (low === "" || (value !== null && value >= Number(low))) && (high === "" || (value !== null && value <= Number(high)));
}

function fits(row, wanted) {
  const is = (flag, choice) => choice === "" || flag === (choice === "yes");
  return (
    (wanted.stage === "" || `${row.run}/${row.stage}` === wanted.stage) &&
    (wanted.verifier === "" || row.verifier === wanted.verifier) &&
    within(row.step, wanted.step_min, wanted.step_max) &&
    within(row.reward, wanted.reward_min, wanted.reward_max) &&
    within(row.tokens, wanted.tokens_min, wanted.tokens_max) &&
    is(row.truncated, wanted.truncated) &&
    is(row.masked, wanted.masked)
  );
}

class Sample {
  constructor(groups) {
    this.groups = groups;
    this.rows = groups.flatMap((group, place) =>
      group.rows.map((row, member) => ({
        run: group.run, stage: group.stage, step: group.step, verifier: group.verifier, id: group.id, place, member,
        reward: row.reward ?? null, score: row.score ?? null, tokens: row.tokens, truncated: row.finish === "length",
        masked: row.status !== "ok", preview: (row.text ?? row.pieces.join("")).slice(0, 160),
      })),
    );
    this.rows.sort((a, b) => b.step - a.step || a.place - b.place || a.member - b.member);
  }
  async list(wanted, offset) {
    const found = this.rows.filter((row) => fits(row, wanted));
    return { total: found.length, rows: found.slice(offset, offset + PAGE) };
  }
  async group(row) {
    return this.groups[row.place];
  }
}

class Server {
  async ask(path, fields) {
    const response = await fetch(`${path}?${new URLSearchParams(fields)}`);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  }
  list(wanted, offset) {
    return this.ask("rollouts", { ...wanted, offset, limit: PAGE });
  }
  group(row) {
    return this.ask("group", { stage: `${row.run}/${row.stage}`, step: row.step, group: row.group });
  }
}

// -- filters ---------------------------------------------------------------------------------------------------

function choice(name, label, options) {
  const select = make("select", { name }, ...options.map(([value, text]) => make("option", { value }, text)));
  return make("label", {}, `${label} `, select);
}

function range(name, label, step) {
  const box = (end, word) => make("input", { type: "number", name: `${name}_${end}`, step, placeholder: word, "aria-label": `${label}, ${word}` });
  return make("span", { class: "range" }, `${label} `, box("min", "from"), "–", box("max", "to"));
}

function buildFilters() {
  const stageName = (one) => (facts.runs.length > 1 ? `${facts.runs[one.run]} · ${one.stage}` : one.stage);
  const flags = [["", "any"], ["yes", "yes"], ["no", "no"]];
  const verifiers = [...new Set(facts.stages.flatMap((one) => one.verifiers))].sort();
  const form = byId("filters");
  if (facts.stages.length > 1)
    form.append(choice("stage", "Stage", [["", "all"], ...facts.stages.map((one) => [`${one.run}/${one.stage}`, stageName(one)])]));
  else form.append(make("input", { type: "hidden", name: "stage", value: "" }));
  form.append(
    choice("verifier", "Verifier", [["", "all"], ...verifiers.map((name) => [name, name])]),
    range("step", "Step", 1), range("reward", "Reward", "any"), range("tokens", "Tokens", 1),
    choice("truncated", "Truncated", flags), choice("masked", "Masked", flags),
    make("button", { type: "reset" }, "Clear"),
  );
  const again = () => { state.offset = 0; refresh(); };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", again);
  form.addEventListener("reset", () => setTimeout(again));
}

function wanted() {
  return Object.fromEntries(new FormData(byId("filters")));
}

// -- the list --------------------------------------------------------------------------------------------------

async function refresh(keep = false) {
  const turn = ++state.asked;
  try {
    const found = await source.list(wanted(), state.offset);
    // A slow answer to an older question is not shown.
    if (turn !== state.asked) return;
    state.rows = found.rows;
    state.total = found.total;
  } catch (error) {
    byId("found").textContent = `cannot be read: ${error.message}`;
    return;
  }
  drawList();
  if (!keep) choose(state.rows.length ? 0 : null);
}

function drawList() {
  const count = facts.stages.reduce((sum, one) => sum + one.total, 0);
  const of = facts.live ? `of ${count.toLocaleString("en")}` : "of the sample";
  byId("found").textContent = `${state.total.toLocaleString("en")} rollouts ${of} match`;
  byId("page").textContent = state.total ? `${state.offset + 1} – ${state.offset + state.rows.length}` : "none";
  byId("newer").disabled = !state.offset;
  byId("older").disabled = state.offset + PAGE >= state.total;
  byId("list").replaceChildren(
    ...state.rows.map((row, place) => {
      const marks = [row.truncated && make("span", { class: "badge cut" }, "truncated"), row.masked && make("span", { class: "badge masked" }, "masked")];
      const figures = make("span", { class: "figures" }, `step ${row.step}`, make("b", { class: (row.reward ?? 0) > 0 ? "right" : "wrong" }, show(row.reward)), `${row.tokens} tok`, ...marks.filter(Boolean));
      const item = make("li", { role: "option", id: `row-${place}`, "aria-selected": "false" }, figures, make("span", { class: "preview" }, row.preview || "(empty)"));
      item.addEventListener("click", () => choose(place));
      return item;
    }),
  );
}

async function choose(place) {
  const list = byId("list");
  for (const item of list.children) item.setAttribute("aria-selected", String(item.id === `row-${place}`));
  state.chosen = place;
  if (place === null) {
    list.removeAttribute("aria-activedescendant");
    byId("detail").replaceChildren(make("p", { class: "note" }, "No rollout matches."));
    return;
  }
  list.setAttribute("aria-activedescendant", `row-${place}`);
  const item = byId(`row-${place}`);
  const [top, bottom] = [item.offsetTop - list.offsetTop, item.offsetTop - list.offsetTop + item.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  const row = state.rows[place];
  try {
    const group = await source.group(row);
    if (state.rows[state.chosen] !== row) return;
    state.group = group;
    drawGroup(row.member);
  } catch (error) {
    byId("detail").replaceChildren(make("p", { class: "warning" }, `cannot be read: ${error.message}`));
  }
}

async function turn(pages) {
  state.offset = Math.max(0, state.offset + pages * PAGE);
  await refresh();
}

async function onListKey(event) {
  const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, Home: -Infinity, End: Infinity };
  if (event.key === "Enter") return byId("detail").focus();
  if (event.key === "PageDown" && !byId("older").disabled) { event.preventDefault(); return turn(1); }
  if (event.key === "PageUp" && state.offset) { event.preventDefault(); return turn(-1); }
  if (!(event.key in moves) || !state.rows.length || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  choose(Math.max(0, Math.min(state.rows.length - 1, (state.chosen ?? -1) + moves[event.key])));
}

// -- a group side by side --------------------------------------------------------------------------------------

function drawGroup(member) {
  const group = state.group;
  const head = make("p", { class: "note" }, `step ${group.step} · group ${group.group} · ${group.verifier} · ${group.id}`);
  const prompt = make("details", { class: "prompt", open: group.prompt.length < 600 }, make("summary", {}, "prompt"), make("p", { class: "text" }, group.prompt));
  const legend = make("p", { class: "legend", id: "legend" });
  const cards = make("div", { class: "cards" });
  const colours = make("fieldset", { class: "chips" }, make("legend", {}, "Tokens coloured by"));
  const known = {
    none: true, advantage: true,
    mismatch: group.rows.some((row) => row.token_mismatch),
    version: group.rows.some((row) => row.versions.length),
  };
  const words = { none: "nothing", advantage: "advantage", mismatch: "log-prob mismatch", version: "weight version" };
  const colour = known[state.colour] ? state.colour : "none";
  for (const [name, word] of Object.entries(words)) {
    const why = known[name] ? null : "this group has no such numbers: it was not trained on, or by another process";
    const radio = make("input", { type: "radio", name: "colour", value: name, checked: name === colour, disabled: !known[name] });
    radio.addEventListener("change", () => { state.colour = name; paint(group, member, name); });
    colours.append(make("label", { class: "chip", title: why }, radio, word));
  }
  byId("detail").replaceChildren(head, prompt, colours, legend, cards);
  paint(group, member, colour);
}

// What each token is coloured by: null where it has no number.
function tokenValues(row, colour) {
  const pieces = row.pieces ?? [row.text];
  const trained = (place) => !row.token_trained || row.token_trained[place];
  if (colour === "mismatch") return pieces.map((_, place) => row.token_mismatch?.[place] ?? null);
  if (colour === "advantage") return pieces.map((_, place) => (trained(place) ? (row.token_advantage?.[place] ?? row.advantage ?? null) : null));
  if (colour === "version") {
    if (!row.pieces && row.versions.length > 1) return pieces.map(() => null);
    let span = -1;
    return pieces.map((_, place) => {
      while (span + 1 < row.versions.length && row.versions[span + 1][0] <= place) span++;
      return span < 0 || !trained(place) ? null : row.versions[span][1];
    });
  }
  return pieces.map(() => null);
}

function paint(group, member, colour) {
  const values = group.rows.map((row) => tokenValues(row, colour));
  const flat = values.flat().filter((value) => value !== null);
  const sizes = flat.map(Math.abs).sort((a, b) => a - b);
  // The strongest colour is that of the 98th percentile, so that one token does not pale all others.
  const most = sizes[Math.min(sizes.length - 1, Math.floor(sizes.length * 0.98))] || 1;
  const versions = [...new Set(flat)].sort((a, b) => a - b);
  const shade = (value) => {
    if (value === null || colour === "none") return null;
    if (colour === "version") return `var(--tint-${versions.indexOf(value) % 8})`;
    return `rgba(${value >= 0 ? HUES.up : HUES.down}, ${(0.62 * Math.min(1, Math.abs(value) / most)).toFixed(2)})`;
  };
  drawLegend(colour, most, versions, shade);
  document.querySelector("#detail .cards").replaceChildren(
    ...group.rows.map((row, place) => card(row, place === member, values[place], shade, colour)),
  );
}

function drawLegend(colour, most, versions, shade) {
  const swatch = (value, text) => {
    const box = make("span", { class: "swatch" });
    box.style.background = shade(value);
    return make("span", {}, box, text);
  };
  const parts = { none: [], advantage: [swatch(-most, `−${show(most)}`), swatch(most, `+${show(most)}`)] };
  parts.mismatch = [swatch(-most, `learner finds it less likely, −${show(most)} nats`), swatch(most, `more likely, +${show(most)} nats`)];
  parts.version = versions.slice(0, 12).map((version) => swatch(version, `weights of step ${version}`));
  byId("legend").replaceChildren(...(parts[colour] ?? []));
}

function card(row, chosen, values, shade, colour) {
  const figures = make("dl", { class: "figures" });
  const add = (name, value, look = "") => value !== undefined && value !== null && figures.append(make("div", {}, make("dt", {}, name), make("dd", { class: look }, String(value))));
  add("reward", show(row.reward), (row.reward ?? 0) > 0 ? "right" : "wrong");
  add("advantage", show(row.advantage));
  for (const name of ["score", "reward_model", "penalty"]) if (row[name] !== undefined && row[name] !== null) add(name.replace("_", " "), show(row[name]));
  add("tokens", row.tokens);
  add("ended by", row.finish === "length" ? "length, truncated" : row.finish, row.finish === "length" ? "wrong" : "");
  if (row.status !== "ok") add("masked", row.status, "wrong");
  add("trained", row.trained ? "yes" : "no");
  const text = make("p", { class: "text tokens" });
  const pieces = row.pieces ?? [row.text];
  let place = 0;
  while (place < pieces.length) {
    const value = values[place];
    let end = place + 1;
    // Neighbours that look alike are one element, so that long completions stay quick.
    while (end < pieces.length && values[end] === value && (value === null || colour !== "mismatch")) end++;
    const read = row.token_trained && !row.token_trained[place];
    const span = make("span", { class: read ? "read" : null, title: value === null ? null : `${colour} ${show(value)}` }, pieces.slice(place, end).join(""));
    const tint = shade(value);
    if (tint) span.style.background = tint;
    text.append(span);
    place = end;
  }
  if (row.cut && row.cut_tokens) text.append(make("span", { class: "note" }, ` ⋯ ${row.cut.toLocaleString("en")} further tokens`));
  const why = row.detail ? make("p", { class: "note why" }, row.detail) : "";
  return make("article", { class: chosen ? "card chosen" : "card" }, figures, text, why);
}

// -- while a run goes on ---------------------------------------------------------------------------------------

const EVERY = 4000;
let seen = null;

async function follow() {
  const sign = byId("live");
  try {
    const { version } = await (await fetch("version")).json();
    if (seen !== null && version !== seen) await renew();
    seen = version;
    sign.textContent = "live";
    sign.classList.remove("lost");
  } catch {
    sign.textContent = "the server does not answer";
    sign.classList.add("lost");
  }
  setTimeout(follow, EVERY);
}

async function renew() {
  const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
  const names = (from) => [...from.querySelectorAll("main > section")].map((one) => one.id).join();
  if (names(page) !== names(document)) return location.reload();
  const closed = new Set([...document.querySelectorAll("details:not([open])[data-stage]")].map((one) => one.dataset.stage));
  numbers = readJson("numbers", page);
  Object.assign(facts, readJson("facts", page));
  for (const fresh of page.querySelectorAll("[data-fresh]")) {
    for (const one of fresh.querySelectorAll("details[data-stage]")) one.open = !closed.has(one.dataset.stage);
    byId(fresh.id).replaceChildren(...fresh.childNodes);
    byId(fresh.id).hidden = fresh.hidden;
  }
  byId("written").textContent = page.getElementById("written").textContent;
  if (charts) drawSmoothed();
  if (source) {
    const before = state.rows[state.chosen];
    await refresh(true);
    // The list moves on below; what is being read stays.
    const place = state.rows.findIndex((row) => before && row.step === before.step && row.group === before.group && row.member === before.member && row.stage === before.stage && row.run === before.run);
    if (place >= 0) { byId(`row-${place}`).setAttribute("aria-selected", "true"); state.chosen = place; }
    else state.chosen = null;
  }
}

async function begin() {
  if (byId("rollouts")) {
    buildFilters();
    byId("list").addEventListener("keydown", onListKey);
    byId("newer").addEventListener("click", () => turn(-1));
    byId("older").addEventListener("click", () => turn(1));
    try {
      source = facts.live ? new Server() : new Sample(await unpack());
      await refresh();
    } catch (error) {
      byId("found").textContent = `The rollouts cannot be unpacked by this browser: ${error.message}`;
    }
  }
  if (facts.live) follow();
  document.documentElement.dataset.ready = "yes";
}

begin();

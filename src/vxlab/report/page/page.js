"use strict";
// Shows one hop of one journey at a time. The words and numbers come from vxlab, in the element
// "data"; here they are only put in their places, as text.

const story = JSON.parse(document.getElementById("data").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 700px)");
const PAUSE = 1700; // milliseconds at each hop while playing
const MOVE = 550; // milliseconds from hop to hop

const state = { journey: 0, step: 0, frame: 0, layer: 0, field: -1, cursor: 0, speed: 1 };
let steps = []; // of this journey: { leg, number, stop, index }
let timer = 0; // while playing
let moving = 0; // while the packet moves in the picture

// --- making elements -----------------------------------------------------------------------------

const find = (id) => document.getElementById(id);

/** An element with attributes, and with texts and elements in it. */
function make(kind, attributes = {}, ...inside) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside);
  return element;
}

/** A button that does something. */
function button(attributes, act, ...inside) {
  const made = make("button", { type: "button", ...attributes }, ...inside);
  made.addEventListener("click", act);
  return made;
}

const drawn = (kind, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
const bytes = (count) => (count === 1 ? "1 byte" : `${count} bytes`);

// --- where we are --------------------------------------------------------------------------------

const journey = () => story.journeys[state.journey];
const here = () => steps[state.step];
const frame = () => here().stop?.frames[state.frame];
const layer = () => frame()?.layers[state.layer];

/** All hops of a journey; a packet that no hop saw is a step, too, and so is nothing at all. */
function stepsOf(told) {
  const found = told.legs.flatMap((leg, number) =>
    leg.stops.length
      ? leg.stops.map((stop, index) => ({ leg, number, stop, index }))
      : [{ leg, number, stop: null, index: 0 }]);
  return found.length ? found : [{ leg: null, number: 0, stop: null, index: 0 }];
}

/** The header that one wants to see first: what carries the packet, or the IP header. */
function outermost(shown) {
  const found = shown.layers.findIndex((each) => each.colour === "vxlan");
  const ip = shown.layers.findIndex((each) => each.colour.endsWith("ip"));
  return Math.max(found >= 0 ? found : ip, 0);
}

function openFrame(number) {
  state.frame = number;
  state.field = -1;
  state.layer = frame() ? outermost(frame()) : 0;
  state.cursor = layer()?.offset ?? 0;
}

function go(step) {
  const before = state.step;
  state.step = Math.max(0, Math.min(step, steps.length - 1));
  openFrame(0);
  show();
  movePacket(before, state.step);
}

function chooseJourney(number) {
  state.journey = number;
  steps = stepsOf(journey());
  state.step = 0;
  go(0);
}

// --- playing -------------------------------------------------------------------------------------

function pause() {
  clearTimeout(timer);
  timer = 0;
  showPlaying();
}

function tick() {
  if (state.step >= steps.length - 1) return pause();
  go(state.step + 1);
  timer = setTimeout(tick, PAUSE / state.speed);
}

function play() {
  if (state.step >= steps.length - 1) go(0);
  timer = setTimeout(tick, PAUSE / state.speed / 2);
  showPlaying();
}

const playOrPause = () => (timer ? pause() : play());

function jump(step) {
  pause();
  go(step);
}

function showPlaying() {
  find("play").classList.toggle("playing", timer !== 0);
  find("play").setAttribute("aria-label", timer ? "pause" : "play");
}

// --- this hop ------------------------------------------------------------------------------------

function show() {
  showLegs();
  showChips();
  showHop();
  showLost();
  showFrames();
  showFrame();
  showStations();
  const last = steps.length - 1;
  for (const id of ["first", "previous"]) find(id).disabled = state.step === 0;
  for (const id of ["next", "last"]) find(id).disabled = state.step === last;
  find("place").textContent = `${state.step + 1} / ${steps.length}`;
  find("said").textContent = spoken();
}

/** What a screen reader says at each hop. */
function spoken() {
  const { leg, stop } = here();
  if (!stop) return leg ? `${leg.role}: ${leg.what}` : "No hop saw the packet";
  const changed = stop.changes.map(([text]) => text).join("; ");
  return `${leg.role}, ${stop.hop} ${stop.direction}. ${changed}`;
}

function showLegs() {
  const legs = journey().legs.map((leg, number) =>
    button({ "aria-pressed": String(number === here().number) },
      () => jump(steps.findIndex((step) => step.number === number)),
      leg.role, make("span", { class: `tag ${leg.tone}` }, leg.verdict)));
  keepFocus(find("legs"), legs);
}

/** New contents; the focus stays at the same place of the list, or goes to the current one. */
function keepFocus(list, contents, current) {
  const buttons = () => [...list.querySelectorAll("button")];
  const at = buttons().indexOf(document.activeElement);
  list.replaceChildren(...contents);
  if (at >= 0) (list.querySelector(current ?? ":not(*)") ?? buttons()[at])?.focus();
}

function showChips() {
  const { leg } = here();
  const head = leg ? [make("b", {}, leg.what), ` ${leg.ends}`, leg.note ? `. ${leg.note}` : ""] : [];
  find("what").replaceChildren(...head);
  find("packet").hidden = !leg;
  const places = [];
  for (const step of steps.filter((each) => each.leg === leg && each.stop)) {
    const { place, machine } = step.stop;
    if (places.at(-1)?.place !== place) places.push({ place, machine, chips: [] });
    places.at(-1).chips.push(make("li", {}, chip(step)));
  }
  const groups = places.map(({ machine, chips }) => chipGroup(machine, chips));
  if (leg?.missed.length) groups.push(chipGroup("never came to", leg.missed.map(neverChip)));
  keepFocus(find("chips"), groups, "[aria-current]");
}

const chipGroup = (place, chips) =>
  make("li", {}, make("p", { class: "of" }, place), make("ol", {}, ...chips));

const neverChip = (name) => make("li", { class: "never" }, name);

function chip(step) {
  const { stop, leg, index } = step;
  const number = steps.indexOf(step);
  const wrapped = stop.frames.some((each) => each.outer > 0);
  const lost = leg.lost && index === leg.stops.length - 1;
  return button({
    class: `${wrapped ? "wrapped-here" : ""} ${lost ? "ends-here" : ""}`,
    "aria-current": number === state.step && "step",
    "aria-label": `hop ${index + 1} of ${leg.stops.length}: ${stop.hop} ${stop.direction}`,
  }, () => jump(number), stop.interface);
}

function showHop() {
  const { leg, stop } = here();
  const title = stop
    ? [make("span", { class: "mono" }, stop.interface), " ",
      make("span", { class: "way" }, stop.direction), " ",
      make("span", { class: "of" }, `on ${stop.place}`)]
    : [leg ? capital(leg.what) : "No hop saw the packet"];
  find("name").replaceChildren(...title);
  find("described").textContent = stop?.described ?? "";
  find("facts").replaceChildren(...(stop?.facts ?? []).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  find("changed").hidden = !stop?.changes.length;
  find("changes").replaceChildren(...(stop?.changes ?? []).map(([text, odd]) =>
    make("li", {}, make("span", { class: odd ? "odd" : "" }, text))));
  find("decided").hidden = !stop?.why.length;
  find("why").replaceChildren(...(stop?.why ?? []).map(decision));
}

function decision([table, command, where, text]) {
  const lister = command ? [make("small", {}, command)] : [];
  return make("li", { title: where },
    make("span", { class: "table" }, table, ...lister), make("span", { class: "entry" }, text));
}

/** At the last hop of a lost packet: that it is the last, and why. */
function showLost() {
  const { leg, stop, index } = here();
  const panel = find("lost");
  const over = leg ? leg.last && (!stop || index === leg.stops.length - 1) : true;
  panel.hidden = !over;
  if (!over) return;
  const reasons = leg ? leg.reasons : journey().reasons;
  panel.classList.toggle("warn", leg?.tone === "warn");
  const head = stop ? leg.last : "Nothing was seen.";
  panel.replaceChildren(make("p", {}, head), make("ul", {}, ...reasons.map(reason)));
}

function reason([text, source], number) {
  const from = source ? [" ", make("span", { class: "source" }, `[${source}]`)] : [];
  return make("li", {}, `${number ? "and" : "because"} ${text}`, ...from);
}

// --- the frame: sizes, bar, headers --------------------------------------------------------------

function showFrames() {
  const { stop } = here();
  find("frame").hidden = !stop;
  if (!stop) return;
  const titled = stop.frames.length > 1 ? stop.frames : [];
  const buttons = titled.map((each, number) =>
    button({ "aria-pressed": String(number === state.frame) }, () => {
      openFrame(number);
      showFrames();
      showFrame();
      drawPacket();
    }, each.title));
  if (stop.left_out) buttons.push(make("span", { class: "more" }, `${stop.left_out} more are not on this page`));
  keepFocus(find("frames"), buttons);
}

function showFrame() {
  if (!frame()) return;
  showSizes(frame());
  showBar(frame());
  showStack(frame());
  showFields();
  showBytes(frame());
  showPicked();
}

function showSizes({ headers, length, kept }) {
  const seen = kept < length ? `, of which ${kept} were captured` : "";
  find("sizes").replaceChildren(
    make("b", { id: "headers" }, bytes(headers)), " of headers + ",
    make("b", {}, bytes(length - headers)), " of data = ",
    make("b", { id: "length" }, bytes(length)), ` on the wire${seen}`);
}

const sum = (layers) => layers.reduce((total, each) => total + each.length, 0);

/** To scale: as long as the frame, measured by the longest of all. */
function showBar(shown) {
  const outer = shown.layers.filter((each) => each.part === "outer");
  const rest = shown.layers.filter((each) => each.part !== "outer");
  find("bar").style.width = `${(100 * shown.length) / story.longest}%`;
  find("bar-outer").style.flexGrow = sum(outer);
  find("bar-rest").style.flexGrow = sum(rest);
  if (outer.length) find("bar-outer").replaceChildren(...outer.map(barPart));
  find("bar-rest").replaceChildren(...rest.map(barPart));
}

function barPart(each) {
  const number = frame().layers.indexOf(each);
  const part = make("span", { class: `c-${each.colour}`, title: `${each.name}: ${bytes(each.length)}`, "data-layer": number });
  part.style.flexGrow = each.length;
  part.addEventListener("click", () => pick(number, -1));
  return part;
}

function showStack(shown) {
  const outer = shown.layers.filter((each) => each.part === "outer");
  const rest = shown.layers.filter((each) => each.part !== "outer");
  find("outer").classList.toggle("open", outer.length > 0);
  find("outer").inert = !outer.length;
  if (outer.length) {
    const what = shown.outer === sum(outer) ? "" : " and a piece of what they carry";
    find("wrapped").textContent = `in front of the packet: ${bytes(shown.outer)}${what}`;
    find("outer-rows").replaceChildren(...outer.map(stackRow));
  }
  find("rows").replaceChildren(...rest.map(stackRow));
}

function stackRow(each) {
  const number = frame().layers.indexOf(each);
  const row = button({ class: `c-${each.colour}`, "data-layer": number },
    () => pick(number, -1),
    make("span", { class: "colour" }),
    make("span", { class: "words" }, make("span", { class: "name" }, each.name), make("span", { class: "said" }, each.said)),
    make("span", { class: "bytes" }, bytes(each.length)));
  row.addEventListener("pointerenter", () => lightUp(number));
  row.addEventListener("pointerleave", () => lightUp(state.layer));
  return row;
}

function showFields() {
  find("fields-of").textContent = `${layer().name}: ${bytes(layer().length)}`;
  find("fields").replaceChildren(...layer().fields.map(fieldRow));
}

function fieldRow([name, value, offset, length], number) {
  const place = length > 1 ? `${offset}–${offset + length - 1}` : String(offset);
  return button({ "data-field": number }, () => pick(state.layer, number),
    make("span", { class: "field" }, name), make("span", { class: "value" }, value),
    make("span", { class: "at", title: "bytes of the frame" }, place));
}

// --- the frame: bytes ----------------------------------------------------------------------------

const perRow = () => (narrow.matches ? 8 : 16);
const octets = (shown) => shown.bytes.match(/../g) ?? [];
const sign = (octet) => {
  const code = parseInt(octet, 16);
  return code > 32 && code < 127 ? String.fromCharCode(code) : "·";
};

function showBytes(shown) {
  const every = octets(shown);
  const owners = ownersOf(shown);
  const rows = [];
  for (let at = 0; at < every.length; at += perRow()) {
    rows.push(byteRow(every.slice(at, at + perRow()), at, owners));
  }
  if (every.length < shown.kept) rows.push(make("p", { class: "hint" }, `${shown.kept - every.length} more bytes are not on this page`));
  find("hex").replaceChildren(...rows);
  find("hex-title").textContent = `Bytes 0–${every.length - 1}`;
}

/** The number of the header that each byte belongs to. */
function ownersOf(shown) {
  const owners = [];
  shown.layers.forEach((each, number) => owners.push(...Array(each.length).fill(number)));
  return owners;
}

function byteRow(octetsHere, at, owners) {
  const cell = (kind, text, index) => make("span", {
    class: `${kind} c-${frame().layers[owners[at + index]]?.colour}`,
    "data-byte": at + index, "data-layer": owners[at + index],
  }, text);
  const codes = octetsHere.map((octet, index) => cell(index === 8 ? "byte gap" : "byte", octet, index));
  const signs = octetsHere.map((octet, index) => cell("sign", sign(octet), index));
  return make("div", { class: "row" },
    make("span", { class: "at" }, at.toString(16).padStart(4, "0")),
    make("span", { class: "codes" }, ...codes), make("span", { class: "signs" }, ...signs));
}

/** The smallest field that a byte is in. */
function fieldAt(number, byte) {
  const around = frame().layers[number].fields
    .map(([, , offset, length], index) => ({ offset, length, index }))
    .filter(({ offset, length }) => offset <= byte && byte < offset + length)
    .sort((one, other) => one.length - other.length);
  return around[0]?.index ?? -1;
}

function pickByte(byte) {
  const number = ownersOf(frame())[byte];
  if (number === undefined) return;
  pick(number, fieldAt(number, byte), byte);
}

/** Select a header, or one of its fields. */
function pick(number, field, byte) {
  const other = number !== state.layer;
  state.layer = number;
  state.field = field;
  state.cursor = byte ?? (layer().fields[field] ?? [, , layer().offset])[2];
  if (other) showFields();
  showPicked();
}

function showPicked() {
  lightUp(state.layer);
  for (const row of find("stack").querySelectorAll("button")) {
    row.setAttribute("aria-pressed", String(Number(row.dataset.layer) === state.layer));
  }
  for (const row of find("fields").children) {
    row.setAttribute("aria-pressed", String(Number(row.dataset.field) === state.field));
  }
  const [name, value, offset, length] = layer().fields[state.field] ?? [];
  for (const cell of find("hex").querySelectorAll("[data-byte]")) {
    const byte = Number(cell.dataset.byte);
    cell.classList.toggle("pick", offset <= byte && byte < offset + length);
  }
  find("picked").textContent = name ? `${layer().name}, ${name}: ${value}` : "";
}

function lightUp(number) {
  for (const cell of document.querySelectorAll("#hex [data-layer], #bar [data-layer]")) {
    cell.classList.toggle("on", Number(cell.dataset.layer) === number);
  }
}

// --- the picture ---------------------------------------------------------------------------------

const stations = [...document.querySelectorAll(".station")];
const text = (points) => points.map((point) => point.join(",")).join(" ");

function showStations() {
  const { leg, index } = here();
  const stops = leg?.stops ?? [];
  find("path-done").setAttribute("points", text(stops.slice(0, index + 1).flatMap((stop) => stop.via)));
  find("path-ahead").setAttribute("points", text([...stops.flatMap((stop) => stop.via), ...(leg?.beyond ?? [])]));
  stations.forEach((station, number) => markStation(station, number, stops, index));
}

function markStation(station, number, stops, index) {
  const at = stops.findIndex((stop) => stop.station === number);
  const { leg, stop } = here();
  const name = station.dataset.hop;
  const marks = {
    jump: at >= 0,
    seen: at >= 0 && at <= index,
    ahead: at > index,
    here: stop?.station === number,
    missed: at < 0 && Boolean(leg?.missed.includes(name)),
    lost: Boolean(leg?.lost) && stops.at(-1)?.station === number,
  };
  for (const [mark, on] of Object.entries(marks)) station.classList.toggle(mark, on);
}

function jumpToStation(number) {
  const found = steps.findIndex((step) => step.leg === here().leg && step.stop?.station === number);
  if (found >= 0) jump(found);
}

const THICK = 6; // of a header in the picture
const WIDE = 28;

/** The packet in the picture: a header is a stripe, outermost on top; fragments lie behind. */
function drawPacket() {
  const train = find("train");
  train.replaceChildren();
  if (!frame()) return;
  const height = frame().layers.length * THICK + 4;
  const behind = Math.min(here().stop.frames.filter((each) => each.title.startsWith("fragment")).length, 3);
  for (let copy = Math.max(behind - 1, 0); copy >= 0; copy--) {
    const left = copy * 2.5 - WIDE / 2;
    train.append(drawn("rect", { class: "shell", x: left - 2, y: -height / 2 - copy * 3, width: WIDE + 4, height, rx: 4 }));
  }
  frame().layers.forEach((each, number) => {
    const y = 2 - height / 2 + number * THICK;
    train.append(drawn("rect", { class: `c-${each.colour}`, x: -WIDE / 2, y, width: WIDE, height: THICK, rx: 1.5 }));
  });
}

const position = (step) => steps[step].stop?.via.at(-1);

function put([x, y]) {
  find("train").setAttribute("transform", `translate(${x},${y})`);
}

/** The points of the way between two hops that are neighbours; else only the second's. */
function wayBetween(before, after) {
  const [one, other] = [steps[before], steps[after]];
  const end = position(after);
  if (!end) return [];
  if (!one || one.leg !== other.leg || !one.stop || Math.abs(after - before) !== 1) return [end];
  if (after > before) return [position(before), ...other.stop.via];
  return [...one.stop.via].reverse().concat([end]);
}

function movePacket(before, after) {
  cancelAnimationFrame(moving);
  const way = wayBetween(before, after);
  if (calm.matches || way.length < 2) {
    if (way.length) put(way.at(-1));
    return drawPacket();
  }
  slide(way, performance.now(), MOVE / state.speed);
}

function slide(way, start, duration) {
  const step = (now) => {
    const done = Math.min(Math.max((now - start) / duration, 0), 1);
    put(along(way, done * done * (3 - 2 * done)));
    if (done < 1) moving = requestAnimationFrame(step);
    else drawPacket();
  };
  moving = requestAnimationFrame(step);
}

/** The point at a fraction of a way's length. */
function along(way, fraction) {
  const lengths = way.slice(1).map(([x, y], i) => Math.hypot(x - way[i][0], y - way[i][1]));
  let left = fraction * lengths.reduce((total, each) => total + each, 0);
  for (const [i, length] of lengths.entries()) {
    if (left <= length && length > 0) {
      const [from, to] = [way[i], way[i + 1]];
      return [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * left) / length);
    }
    left -= length;
  }
  return way.at(-1);
}

// --- keys, pointers, colours ---------------------------------------------------------------------

const KEYS = {
  ArrowRight: () => jump(state.step + 1),
  ArrowLeft: () => jump(state.step - 1),
  Home: () => jump(0),
  End: () => jump(steps.length - 1),
  " ": playOrPause,
};

function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.closest("select, summary, .wide");
  const clicks = event.key === " " && event.target.closest("button");
  if (own || clicks || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

/** Up and down among the buttons of a list. */
function walkList(event) {
  const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!way) return;
  const rows = [...event.currentTarget.querySelectorAll("button")].filter((row) => !row.closest("[inert]"));
  const next = rows[rows.indexOf(event.target) + way];
  event.preventDefault();
  next?.focus();
  next?.click();
}

function walkBytes(event) {
  const rows = perRow();
  const last = octets(frame()).length - 1;
  const to = {
    ArrowLeft: state.cursor - 1, ArrowRight: state.cursor + 1,
    ArrowUp: state.cursor - rows, ArrowDown: state.cursor + rows, Home: 0, End: last,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  pickByte(Math.max(0, Math.min(to, last)));
  find("hex").querySelector(`[data-byte="${state.cursor}"]`)?.scrollIntoView({ block: "nearest" });
}

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function showTheme() {
  find("theme").textContent = isDark() ? "Light colours" : "Dark colours";
}

function changeTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
}

function listen() {
  find("first").addEventListener("click", KEYS.Home);
  find("previous").addEventListener("click", KEYS.ArrowLeft);
  find("play").addEventListener("click", playOrPause);
  find("next").addEventListener("click", KEYS.ArrowRight);
  find("last").addEventListener("click", KEYS.End);
  find("theme").addEventListener("click", changeTheme);
  find("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); });
  find("journey").addEventListener("change", (event) => { pause(); chooseJourney(Number(event.target.value)); });
  find("hex").addEventListener("click", (event) => {
    const byte = event.target.closest("[data-byte]")?.dataset.byte;
    if (byte !== undefined) pickByte(Number(byte));
  });
  find("hex").addEventListener("keydown", walkBytes);
  find("stack").addEventListener("keydown", walkList);
  find("fields").addEventListener("keydown", walkList);
  stations.forEach((station, number) => station.addEventListener("click", () => jumpToStation(number)));
  document.addEventListener("keydown", pressed);
  narrow.addEventListener("change", showFrame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  addEventListener("beforeprint", () => { find("tables").open = true; });
}

function begin() {
  story.journeys.forEach((told, number) => find("journey").append(make("option", { value: number }, told.label)));
  find("journeys").hidden = story.journeys.length < 2;
  for (const id of ["theme", "player", "hop", "keys"]) find(id).hidden = false;
  find("tables").open = false;
  listen();
  showTheme();
  chooseJourney(0);
}

begin();

// The page: what the reader has chosen, what the model says, and how it is drawn.
import * as model from "./model.js";
import { own, shipped } from "./image.js";
import { QUESTIONS, likeliest, percent } from "./questions.js";

const { SIDE } = model;
const PATCHES = SIDE * SIDE;
const SIZE = 512; // of the image and of the map on the page, in pixels
const BLOCKS = 6;
const $ = (id) => document.getElementById(id);
const spot = (place) => [place % SIDE, Math.floor(place / SIDE)]; // column and row
const rowAndColumn = (place) => `row ${spot(place)[1] + 1}, column ${spot(place)[0] + 1}`;

// What the map shows, in words.
const VIEWS = {
  class: () => "What the class token takes",
  query: (patch) => `Where ${rowAndColumn(patch)} looks`,
  key: (patch) => `Who looks at ${rowAndColumn(patch)}`,
  rollout: () => `Rollout through block ${state.layer}`,
};

const START_ORDER = Array.from({ length: PATCHES }, (_, i) => i);
// A fixed order, so that an address shows everybody the same.
const SHUFFLED = shuffledOrder(2020);

function shuffledOrder(seed) {
  const order = [...START_ORDER];
  for (let i = PATCHES - 1; i > 0; i--) {
    seed = (1103515245 * seed + 12345) % 2147483648; // a generator of random numbers
    const j = Math.floor((seed / 2147483648) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const START = {
  ask: "", // one of QUESTIONS
  image: "pizza2",
  layer: BLOCKS, // the attention shown is this block's
  head: 0, // 0: the mean of the heads
  view: "class",
  patch: 27,
  dropped: new Set(),
  shuffle: false,
  positions: true,
  trained: true,
};
const state = structuredClone(START);

let course; // class names, the head of three classes, and what PyTorch says
let picture; // {pixels, shown} of the chosen image; later also its result, untouched
let result; // of the last run
let reference; // the result on the same image, untouched
let ownImage; // the last file that was dropped here
let pointed = null; // the patch under the mouse or the focus, while it is there
let found = []; // what was measured in the cells of the question
let beforeAsking = START; // what was chosen when the question was opened

const order = () => (state.shuffle ? SHUFFLED : START_ORDER);
// What is dropped is a patch, wherever it stands.
const isDropped = (place) => state.dropped.has(order()[place]);
const kept = () => START_ORDER.filter((place) => !isDropped(place));
const untouched = () =>
  state.trained && state.positions && !state.shuffle && !state.dropped.size;

// The address: each state has its own, which lessons link to.

function writeAddress() {
  const words = new URLSearchParams();
  for (const key of ["ask", "image", "layer", "head", "view", "patch"])
    if (state[key] !== START[key]) words.set(key, state[key]);
  if (state.dropped.size) words.set("dropped", [...state.dropped].join("."));
  for (const key of ["shuffle", "positions", "trained"])
    if (state[key] !== START[key]) words.set(key, state[key] ? "on" : "off");
  history.replaceState(null, "", words.size ? `#${words}` : location.pathname);
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, structuredClone(START));
  found = [];
  if (words.get("ask") in QUESTIONS) state.ask = words.get("ask");
  const whole = (key, low, high) => {
    const number = Number(words.get(key));
    if (words.has(key) && Number.isInteger(number) && number >= low && number <= high)
      state[key] = number;
  };
  whole("layer", 1, BLOCKS);
  whole("head", 0, 3);
  whole("patch", 0, PATCHES - 1);
  if (words.get("view") in VIEWS) state.view = words.get("view");
  const known = course.images.some((row) => row.name === words.get("image"));
  if (known) state.image = words.get("image");
  const dropped = (words.get("dropped") ?? "").split(".").filter(Boolean).map(Number);
  state.dropped = new Set(dropped.filter((p) => START_ORDER.includes(p)).slice(0, 62));
  for (const key of ["shuffle", "positions", "trained"])
    if (words.has(key)) state[key] = words.get(key) === "on";
}

// The model

const sessions = {};
const loaded = {}; // bytes of each file so far

function progress(file, bytes) {
  loaded[file] = bytes;
  const all = model.sum(Object.keys(loaded).map((name) => course.bytes[name]));
  const now = Math.min(all, model.sum(Object.values(loaded)));
  $("progress").value = now / all;
  $("megabytes").textContent = `${(now / 1e6).toFixed(1)} of ${(all / 1e6).toFixed(1)} MB`;
}

/** The runtime's session of one of the two models; each file is fetched once. */
async function session(file, prepared) {
  progress(file, 0);
  $("loading").hidden = false;
  try {
    const fetched = await model.fetchFile(file, progress);
    await prepared;
    return await model.open(fetched);
  } catch (error) {
    delete sessions[file]; // so that one may try again
    throw error;
  } finally {
    $("loading").hidden = true;
  }
}

async function ask(patches, places, positions, trained) {
  const file = trained ? "trained.onnx.gz" : "untrained.onnx.gz";
  sessions[file] ??= session(file);
  const args = [picture.pixels, patches, places, positions];
  const out = await model.run(await sessions[file], ...args);
  const three = out.features.map((x) => model.softmax(model.linear(course.head, x)));
  return { ...out, places, three };
}

let running = false;
let again = false;

/** Runs the model on the present state; a change meanwhile runs it once more. */
async function compute() {
  again = running;
  if (running) return;
  running = true;
  const start = performance.now();
  document.body.dataset.running = "";
  try {
    do {
      again = false;
      const asked = picture;
      asked.untouched ??= await ask(START_ORDER, START_ORDER, true, true);
      const places = kept();
      const patches = places.map((place) => order()[place]);
      result = untouched()
        ? asked.untouched
        : await ask(patches, places, state.positions, state.trained);
      reference = asked.untouched;
    } while (again);
  } finally {
    running = false;
    delete document.body.dataset.running;
  }
  $("trouble").textContent = "";
  draw();
  put("took", `Answered in ${Math.round(performance.now() - start)} ms.`);
}

async function choose(name) {
  if (state.image !== name) found = [];
  state.image = name;
  document.body.dataset.running = ""; // until compute() has drawn
  const chosen = name === "own" ? ownImage : await shipped(name);
  if (state.image !== name) return; // another one was chosen meanwhile
  picture = chosen;
  $("play").style.setProperty("--image", `url(${picture.shown.toDataURL("image/jpeg")})`);
  await compute();
}

async function take(file) {
  if (!file) return;
  try {
    ownImage = await own(file);
    $("message").textContent = ownImage.note;
    state.dropped.clear();
    await choose("own");
  } catch (error) {
    $("message").textContent = error.message;
  }
}

// What is drawn

const needsPatch = (view) => view === "query" || view === "key";

/** What the reader looks at: the choice, or the patch that they point at. */
function looked() {
  if (pointed === null || isDropped(pointed)) return state;
  const view = needsPatch(state.view) ? state.view : "query";
  return { ...state, patch: pointed, view };
}

/** The weights that the map shows, one per kept patch. */
function weights({ layer, head, view, patch }) {
  const { attention, places } = result;
  const heads = attention[layer - 1];
  let matrix = head ? heads[head - 1] : model.meanOfHeads(heads);
  if (view === "rollout") matrix = model.rollout(attention, layer);
  const token = places.indexOf(patch) + 1;
  if (view === "key") return matrix.slice(1).map((row) => row[token]);
  const row = view === "query" ? matrix[token] : matrix[0];
  return row.slice(1);
}

// Only what differs is written, since screen readers read aloud what is written.
function put(id, html) {
  if (written[id] !== html) $(id).innerHTML = written[id] = html;
}
const written = {};

function drawImage() {
  const context = $("image").getContext("2d");
  const size = SIZE / SIDE;
  context.clearRect(0, 0, SIZE, SIZE);
  for (const place of kept()) {
    const to = spot(place).map((i) => i * size);
    const from = spot(order()[place]).map((i) => i * size);
    context.drawImage(picture.shown, ...from, size, size, ...to, size, size);
  }
  const words = [state.image === "own" ? "your image" : state.image];
  if (state.shuffle) words.push("its patches shuffled");
  if (state.dropped.size) words.push(`${state.dropped.size} patches dropped`);
  $("image").setAttribute("aria-label", words.join(", "));
}

function drawMap() {
  const eye = looked();
  const pair = needsPatch(eye.view);
  const gone = pair && !result.places.includes(eye.patch);
  const values = gone ? [] : weights(eye);
  const most = Math.max(...values);
  const context = $("map").getContext("2d");
  const size = SIZE / SIDE;
  context.clearRect(0, 0, SIZE, SIZE);
  Object.assign(context, { filter: "grayscale(1)", globalAlpha: 0.2 });
  context.drawImage($("image"), 0, 0); // faint, so that one sees what lies there
  Object.assign(context, { filter: "none", globalAlpha: 1 });
  values.forEach((value, i) => {
    const [x, y] = spot(result.places[i]);
    context.fillStyle = `rgb(204 121 167 / ${value / most})`; // the attention's pink
    context.fillRect(x * size, y * size, size, size);
  });
  if (pair && !gone) {
    const [x, y] = spot(eye.patch);
    Object.assign(context, { strokeStyle: "#0072B2", lineWidth: 6 });
    context.strokeRect(x * size + 3, y * size + 3, size - 6, size - 6);
  }
  put("most", gone ? "–" : most.toFixed(3));
  const sorted = [...values].sort((a, b) => b - a);
  const eight = model.sum(sorted.slice(0, 8)) / model.sum(sorted);
  const said = gone
    ? "This patch was dropped: point at another."
    : `The 8 largest of ${values.length} weights hold ${percent(eight)}
      (all equal: ${percent(Math.min(1, 8 / values.length))}).`;
  const title = VIEWS[eye.view](eye.patch);
  put("says", `<b>${title}.</b> ${said}`);
  const head = eye.head ? `head ${eye.head}` : "mean of the heads";
  const which = eye.view === "rollout" ? "" : `, block ${eye.layer}, ${head}`;
  $("map").setAttribute("aria-label", `Attention. ${title}${which}. ${said}`);
}

/** The sequence as the model gets it: the class token, then each kept patch. */
function drawTokens() {
  const eye = looked();
  const tokens = result.places.map((place) => {
    const [x, y] = spot(order()[place]).map((i) => (100 * i) / (SIDE - 1));
    const chosen = needsPatch(eye.view) && place === eye.patch ? "chosen" : "";
    return `<i class="${chosen}" style="background-position:${x}% ${y}%"></i>`;
  });
  const gone = '<i class="gone"></i>'.repeat(PATCHES - tokens.length); // keep their room
  put("tokens", `<i class="class"></i>${tokens.join("")}${gone}`);
  $("tokens").classList.toggle("bare", !state.positions);
  const count = `${tokens.length + 1} tokens of 192 features.`;
  put("count", count);
  const how = `${state.shuffle ? ", shuffled" : ""}, with${state.positions ? "" : "out"}`;
  const words = `${count} The class token, then ${tokens.length} patches${how} positions.`;
  $("tokens").setAttribute("aria-label", words);
}

/** Bars of probabilities [name, p, colour, mark]: the mark is another probability. */
function bars(rows) {
  const percents = (p) => `${100 * p}%`;
  const bar = ([name, p, colour, mark]) => `<div class="row">
    <span>${name.replaceAll("_", " ")}</span>
    <span class="track"><span style="width:${percents(p)};background:${colour}"></span>
    ${mark === undefined ? "" : `<i style="left:${percents(mark)}"></i>`}</span>
    <span class="number">${percent(p)}</span></div>`;
  return rows.map(bar).join("");
}

const colour = (k) => `var(--${course.classes[k]})`;

function drawPrediction() {
  const { layer } = state;
  const before = reference.three[layer];
  const marks = untouched() ? [] : before;
  const now = result.three[layer];
  const three = bars(course.classes.map((name, k) => [name, now[k], colour(k), marks[k]]));
  put("three", three);
  put("below", `<p>Prediction after block ${layer}</p>${three}`); // on small screens
  put("after", layer);
  const best = likeliest(before);
  const mark = `Marks: before the change, ${course.classes[best]} had ${percent(before[best])}.`;
  put("explain-three", untouched() ? "Change something: marks will keep these values." : mark);
  const all = model.softmax(result.logits[layer]).map((p, k) => [course.foods[k], p]);
  const five = all.sort((a, b) => b[1] - a[1]).slice(0, 5);
  put("five", bars(five.map((row) => [...row, "var(--sky)"])));
}

/** Probability of the three classes, from block to block, up to the one chosen. */
function drawForms() {
  const x = (block) => 40 + 41 * block;
  const y = (p) => 130 - 118 * p;
  const parts = [0, 0.5, 1].map(
    (p) => `<line x1="40" x2="286" y1="${y(p)}" y2="${y(p)}" class="grid"/>
      <text x="32" y="${y(p) + 4}" text-anchor="end">${100 * p} %</text>`,
  );
  parts.push(`<rect x="${x(state.layer) - 11}" y="6" width="22" height="130" rx="4"
    class="here"/><text x="163" y="158" text-anchor="middle">after block</text>`);
  for (let block = 0; block <= BLOCKS; block++)
    parts.push(`<text x="${x(block)}" y="146" text-anchor="middle">${block}</text>`);
  const until = result.three.slice(0, state.layer + 1);
  const ends = course.classes.map((name, k) => {
    const points = until.map((row, block) => [x(block), y(row[k])]);
    parts.push(`<polyline points="${points.join(" ")}" style="stroke:${colour(k)}"/>`);
    for (const [cx, cy] of points)
      parts.push(`<circle cx="${cx}" cy="${cy}" r="3" style="fill:${colour(k)}"/>`);
    return { name, k, x: points.at(-1)[0] + 10, y: points.at(-1)[1] + 4 };
  });
  // The names stand at the ends of the lines, from the lowest up, none on another.
  let below = Infinity;
  for (const end of ends.sort((a, b) => b.y - a.y)) {
    below = Math.min(end.y, below - 12);
    parts.push(`<text x="${end.x}" y="${below}" class="name" style="fill:${colour(end.k)}">
      ${end.name}</text>`);
  }
  put("forms", parts.join(""));
  const best = until.map((row) => course.classes[likeliest(row)]);
  const label = `Ahead after blocks 0 to ${state.layer}: ${best.join(", ")}.`;
  $("forms").setAttribute("aria-label", label);
  const says = state.trained
    ? `After block ${state.layer}, ${best.at(-1)} is ahead. The head was trained on the
       last block only.`
    : "By random weights: which class is ahead means nothing.";
  put("explain-forms", says);
}

/** The largest difference to what PyTorch found, where the state is one it was asked. */
function drawEqual() {
  const row = course.images.find((image) => image.name === state.image);
  delete $("equal").dataset.image;
  if (!row || !untouched()) return put("equal", "");
  const differences = [
    ...row.logits.map((x, k) => x - result.logits.at(-1)[k]),
    ...row.attention.map((x, k) => x - result.attention.at(-1)[0][0][k]),
  ];
  const most = Math.max(...differences.map(Math.abs));
  put("equal", `PyTorch found the same 98 logits and attention weights for this image: the
    largest difference is ${most.toFixed(6)}.`);
  Object.assign($("equal").dataset, { difference: most, image: row.name });
}

function drawControls() {
  for (const name of ["shuffle", "positions", "trained"])
    $(name).setAttribute("aria-checked", state[name]);
  for (const input of document.querySelectorAll("fieldset input"))
    input.checked = String(state[input.name]) === input.value;
  $("heads").parentElement.disabled = state.view === "rollout";
  for (const button of $("images").children) {
    const chosen = button.dataset.name === state.image;
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen || state.image === "own" ? 0 : -1;
  }
  put("drop", `${isDropped(state.patch) ? "Put back" : "Drop"} ${rowAndColumn(state.patch)}`);
  put("next", state.layer === BLOCKS ? "From block 1" : "Next block");
  const eye = looked();
  for (const button of $("patches").querySelectorAll("button")) {
    const place = Number(button.dataset.place);
    const dropped = isDropped(place);
    button.setAttribute("aria-pressed", dropped);
    button.classList.toggle("named", place === state.patch); // on the button that drops
    button.classList.toggle("chosen", place === eye.patch && needsPatch(eye.view));
    button.tabIndex = place === (pointed ?? state.patch) ? 0 : -1;
    button.setAttribute("aria-label", `${rowAndColumn(place)}${dropped ? ", dropped" : ""}`);
  }
  const shuffled = state.positions
    ? "Each patch now has the place, and the position, of another."
    : "Without positions no place is wrong: shuffled or not, one prediction.";
  put("explain-shuffle", state.shuffle ? shuffled : "Shuffle gives each patch another's place.");
  const positions = state.positions
    ? "Added to each patch, they tell its place."
    : "Nothing tells a patch its place.";
  put("explain-positions", positions);
  for (const words of $("explain-view").children)
    words.classList.toggle("gone", words.dataset.view !== state.view);
  const one = state.head
    ? `Head ${state.head} of the three, with queries and keys of its own.`
    : "Each head has queries and keys of its own; the mean hides them.";
  const all = "Rollout takes the mean of the heads, block by block.";
  put("explain-head", state.view === "rollout" ? all : one);
  const weights = state.trained
    ? "Trained on 93,060 photographs of 98 foods."
    : "Random, as before training: maps and probabilities mean nothing.";
  put("explain-weights", weights);
}

/** Whether the page is in the state of a question's cell. */
function isAt(at) {
  const wanted = { ...START, image: state.image, ...at };
  const matters = ["image", "layer", "shuffle", "positions", "trained", ...Object.keys(at)];
  return !state.dropped.size && matters.every((key) => state[key] === wanted[key]);
}

/** The question, what was found in its cells, and the answer when all are filled. */
function drawGuide() {
  const question = QUESTIONS[state.ask];
  $("guide").hidden = !question;
  document.querySelector(".tries").hidden = Boolean(question);
  if (!question) return;
  const { title, hint, cells, measure, winner, answer } = question;
  const now = cells.findIndex(({ at }) => isAt(at));
  const seen = { course, layer: state.layer, three: result.three };
  Object.assign(seen, { untouched: reference.three, weights: weights(state) });
  if (now >= 0) found[now] = measure(seen);
  put("question", title);
  const filled = cells.filter((_, k) => found[k]).length;
  const best = filled === cells.length ? winner?.(found) : undefined;
  const cell = ({ label }) => `<button><span>${label}</span><b></b></button>`;
  put("cells", cells.map(cell).join(""));
  [...$("cells").children].forEach((button, k) => {
    button.setAttribute("aria-pressed", k === now);
    button.classList.toggle("best", k === best);
    const { name = "", p } = found[k] ?? {};
    button.lastChild.textContent = p === undefined ? "?" : `${name} ${percent(p)}`;
  });
  const more = `${hint} ${filled} of ${cells.length} found.`;
  put("hint", filled < cells.length ? more : `<b>Answer.</b> ${answer(found, best)}`);
}

function draw() {
  if ("running" in document.body.dataset) return; // compute() will draw what it finds
  drawImage();
  drawMap();
  drawTokens();
  drawPrediction();
  drawForms();
  drawEqual();
  drawControls();
  drawGuide();
  writeAddress();
}

// What the reader can do

/** Shows where a patch looks while one points at it; null: shows the choice again. */
function pointAt(place) {
  if (pointed === place) return;
  pointed = place;
  draw();
}

/** Keeps a patch in view; the one in view is dropped, and a dropped one put back. */
function pick(place) {
  const inView = needsPatch(state.view) && state.patch === place;
  if (inView || isDropped(place)) return toggle(place);
  state.patch = place;
  if (!needsPatch(state.view)) state.view = "query";
  draw();
}

function toggle(place) {
  state.patch = place;
  const patch = order()[place];
  if (!state.dropped.delete(patch) && kept().length > 2) state.dropped.add(patch);
  if (isDropped(place) && needsPatch(state.view)) state.view = "class"; // it looks nowhere
  compute();
}

function makePatches() {
  const cell = (place) => `<span role="gridcell"><button data-place="${place}"></button></span>`;
  const row = (first) => START_ORDER.slice(first, first + SIDE).map(cell).join("");
  const rows = START_ORDER.filter((place) => place % SIDE === 0).map(row);
  const grid = $("patches");
  grid.innerHTML = rows.map((cells) => `<div role="row">${cells}</div>`).join("");
  const buttons = [...grid.querySelectorAll("button")];
  const placeOf = (event) => buttons.indexOf(event.target.closest("button"));
  grid.addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (place >= 0 && event.pointerType === "mouse") pointAt(place);
  });
  grid.addEventListener("pointerleave", () => pointAt(null));
  grid.addEventListener("focusin", (event) => pointAt(placeOf(event)));
  grid.addEventListener("focusout", () => pointAt(null));
  grid.addEventListener("click", (event) => {
    if (placeOf(event) >= 0) pick(placeOf(event));
  });
  $("drop").addEventListener("click", () => toggle(state.patch));
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };
    const place = placeOf(event) + (step[event.key] ?? NaN);
    if (!(place >= 0 && place < PATCHES)) return;
    event.preventDefault();
    buttons[place].focus();
  });
}

function makeImages() {
  const button = ({ name, label }) => `<button role="radio" data-name="${name}"
    aria-label="${name.replace(label, `${label} `)}"><img src="${name}.jpg" alt=""
    width="64" height="64"></button>`;
  $("images").innerHTML = course.images.map(button).join("");
  const buttons = [...$("images").children];
  $("images").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(button.dataset.name);
  });
  $("images").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const now = buttons.indexOf(event.target.closest("button"));
    const next = buttons[(now + step + buttons.length) % buttons.length];
    next.focus();
    choose(next.dataset.name);
  });
}

function listen() {
  for (const input of document.querySelectorAll("fieldset input"))
    input.addEventListener("change", () => {
      state[input.name] = input.name === "view" ? input.value : Number(input.value);
      draw();
    });
  $("next").addEventListener("click", () => {
    state.layer = (state.layer % BLOCKS) + 1;
    draw();
  });
  for (const name of ["shuffle", "positions", "trained"])
    $(name).addEventListener("click", () => {
      state[name] = !state[name];
      compute();
    });
  $("reset").addEventListener("click", () => {
    const { image, ask } = state;
    Object.assign(state, structuredClone(START), { image, ask });
    compute();
  });
  $("cells").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { ask, image } = state;
    const { at } = QUESTIONS[ask].cells[[...$("cells").children].indexOf(button)];
    Object.assign(state, structuredClone(START), { ask, image }, at);
    choose(state.image);
  });
  $("leave").addEventListener("click", async () => {
    Object.assign(state, structuredClone(beforeAsking));
    await choose(state.image);
    document.querySelector(".tries a").focus();
  });
  $("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const kind of ["dragover", "drop"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  addEventListener("hashchange", async () => {
    if (!state.ask) beforeAsking = structuredClone(state);
    readAddress();
    await choose(state.image);
    if (state.ask) $("question").focus({ preventScroll: true });
    showEvidence();
  });
}

/** Scrolls to what the question is about. */
function showEvidence() {
  if (state.ask) $(QUESTIONS[state.ask].see).scrollIntoView({ block: "nearest" });
}

async function start() {
  if (location.protocol === "file:")
    throw new Error(
      "Opened as a file, this page may not read its model. Serve its folder: " +
        "python -m http.server, then open 127.0.0.1:8000/playground/.",
    );
  if (typeof WebAssembly === "undefined")
    throw new Error("This browser has no WebAssembly, which the model needs.");
  course = await (await fetch("course.json")).json();
  makeImages();
  makePatches();
  readAddress();
  listen();
  progress("ort.wasm.gz", 0);
  const prepared = model.prepare("ort.wasm.gz", progress);
  const file = state.trained ? "trained.onnx.gz" : "untrained.onnx.gz";
  sessions[file] = session(file, prepared);
  await sessions[file];
  await choose(state.image);
  $("play").hidden = false;
  showEvidence();
  document.body.dataset.ready = "";
}

addEventListener("unhandledrejection", (event) => {
  delete document.body.dataset.running;
  $("trouble").textContent = `${event.reason.message} Is the server still there?`;
});

start().catch((error) => {
  $("trouble").textContent = error.message;
  $("loading").hidden = true;
  $("still").hidden = false;
  document.body.dataset.failed = "";
});

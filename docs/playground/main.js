// The page: what the reader has chosen, what the model says, and how it is drawn.
import * as model from "./model.js";
import { own, shipped } from "./image.js";

const { SIDE } = model;
const PATCHES = SIDE * SIDE;
const $ = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;
const lesson = (file, text) => `<a href="../notebooks/${file}.html">${text}</a>`;

const VIEWS = {
  class: {
    label: "the class token's row",
    says: "How much the class token takes from each patch in this layer.",
    link: lesson("04_class_token", "Lesson 04"),
  },
  query: {
    label: "where this patch looks",
    says: "How much the patch that you point at takes from each other patch: its row.",
    link: lesson("06_self_attention", "Lesson 06"),
  },
  key: {
    label: "who looks at this patch",
    says: "How much each patch takes from the one that you point at: its column.",
    link: lesson("06_self_attention", "Lesson 06"),
  },
  rollout: {
    label: "rollout",
    says: "The mean of the heads, multiplied through all layers up to this one.",
    link: lesson("13b_attention_maps", "Lesson 13b"),
  },
};

// A fixed order, so that an address shows everybody the same.
const SHUFFLED = shuffledOrder(2020);

const START = {
  image: "pizza1",
  layer: 6,
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
let picture; // {pixels, shown} of the chosen image
let result; // of the last run
let ownImage; // the last file that was dropped here
const sessions = {};

function shuffledOrder(seed) {
  const order = Array.from({ length: PATCHES }, (_, i) => i);
  for (let i = PATCHES - 1; i > 0; i--) {
    seed = (1103515245 * seed + 12345) % 2147483648; // a generator of random numbers
    const j = Math.floor((seed / 2147483648) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const order = () => (state.shuffle ? SHUFFLED : START_ORDER);
const START_ORDER = Array.from({ length: PATCHES }, (_, i) => i);
const kept = () => START_ORDER.filter((place) => !state.dropped.has(place));

// The address: each state has its own, which lessons link to.

function writeAddress() {
  const words = new URLSearchParams();
  for (const key of ["image", "layer", "head", "view", "patch"])
    if (state[key] !== START[key]) words.set(key, state[key]);
  if (state.dropped.size) words.set("dropped", [...state.dropped].join("."));
  for (const key of ["shuffle", "positions", "trained"])
    if (state[key] !== START[key]) words.set(key, state[key] ? "on" : "off");
  history.replaceState(null, "", words.size ? `#${words}` : location.pathname);
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, structuredClone(START));
  const whole = (key, low, high) => {
    const number = Number(words.get(key));
    if (words.has(key) && Number.isInteger(number) && number >= low && number <= high)
      state[key] = number;
  };
  whole("layer", 1, 6);
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

async function session() {
  const file = state.trained ? "trained.onnx.gz" : "untrained.onnx.gz";
  sessions[file] ??= model.open(file, progress);
  return sessions[file];
}

let running = false;
let again = false;

/** Runs the model on the present state; a change meanwhile runs it once more. */
async function compute() {
  again = running;
  if (running) return;
  running = true;
  document.body.dataset.running = "";
  try {
    do {
      again = false;
      const places = kept();
      const patches = places.map((place) => order()[place]);
      const args = [picture.pixels, patches, places, state.positions];
      result = await model.run(await session(), ...args);
      result.places = places;
      result.three = result.features.map((x) =>
        model.softmax(model.linear(course.head, x)),
      );
    } while (again);
  } finally {
    running = false;
    delete document.body.dataset.running;
  }
  draw();
}

async function choose(name) {
  state.image = name;
  picture = name === "own" ? ownImage : await shipped(name);
  await compute();
}

async function take(file) {
  if (!file) return;
  try {
    ownImage = await own(file);
    $("message").textContent = `${file.name}: its middle, 64 pixels wide.`;
    state.dropped.clear();
    await choose("own");
  } catch (error) {
    $("message").textContent = error.message;
  }
}

// What is drawn

/** The weights that the map shows, one per kept patch, and the class token's own. */
function weights() {
  const { attention, places } = result;
  const heads = attention[state.layer - 1];
  let matrix = state.head ? heads[state.head - 1] : model.meanOfHeads(heads);
  if (state.view === "rollout") matrix = model.rollout(attention, state.layer);
  const token = places.indexOf(state.patch) + 1; // 0: the patch was dropped
  if (state.view === "key") return matrix.slice(1).map((row) => row[token]);
  const row = state.view === "query" ? matrix[token] : matrix[0];
  return row.slice(1);
}

const needsPatch = () => state.view === "query" || state.view === "key";

function drawImage() {
  const context = $("image").getContext("2d");
  const size = 512 / SIDE;
  context.clearRect(0, 0, 512, 512);
  START_ORDER.forEach((place) => {
    if (state.dropped.has(place)) return;
    const from = order()[place];
    const [x, y] = [(place % SIDE) * size, Math.floor(place / SIDE) * size];
    const [u, v] = [(from % SIDE) * size, Math.floor(from / SIDE) * size];
    context.drawImage(picture.shown, u, v, size, size, x, y, size, size);
  });
  const words = [state.image === "own" ? "your image" : state.image];
  if (state.shuffle) words.push("its patches shuffled");
  if (state.dropped.size) words.push(`${state.dropped.size} patches dropped`);
  $("image").setAttribute("aria-label", words.join(", "));
}

/** From nothing (the page's colour) to the attention's pink. */
const shade = (fraction) => `rgb(204 121 167 / ${fraction})`;

function drawMap() {
  const context = $("map").getContext("2d");
  const size = 512 / SIDE;
  const values = weights();
  const most = Math.max(...values);
  context.clearRect(0, 0, 512, 512);
  result.places.forEach((place, i) => {
    const [x, y] = [(place % SIDE) * size, Math.floor(place / SIDE) * size];
    context.fillStyle = shade(values[i] / most);
    context.fillRect(x, y, size, size);
  });
  if (needsPatch() && result.places.includes(state.patch)) {
    const [x, y] = [state.patch % SIDE, Math.floor(state.patch / SIDE)];
    context.strokeStyle = "#0072B2";
    context.lineWidth = 6;
    context.strokeRect(x * size + 3, y * size + 3, size - 6, size - 6);
  }
  const bar = $("bar").getContext("2d");
  for (let x = 0; x < 256; x++) {
    bar.clearRect(x, 0, 1, 1);
    bar.fillStyle = shade(x / 255);
    bar.fillRect(x, 0, 1, 1);
  }
  $("most").textContent = most.toFixed(3);
  const sorted = [...values].sort((a, b) => b - a);
  const eight = sorted.slice(0, 8).reduce((a, b) => a + b, 0);
  const sum = sorted.reduce((a, b) => a + b, 0);
  const said = `The 8 largest of ${values.length} hold ${percent(eight / sum)}; equal ones
    would hold ${percent(Math.min(1, 8 / values.length))}.`;
  const gone = needsPatch() && !result.places.includes(state.patch);
  $("says").textContent = gone ? "This patch was dropped: point at another." : said;
  const which = state.view === "rollout" ? "" : `, ${headName(state.head)}`;
  const label = `Attention, ${VIEWS[state.view].label}, layer ${state.layer}${which}`;
  $("map").setAttribute("aria-label", `${label}. ${said}`);
}

const headName = (head) => (head ? `head ${head}` : "mean of the heads");

function bars(place, rows) {
  place.innerHTML = rows
    .map(
      ([name, p]) => `<div class="row"><span>${name.replaceAll("_", " ")}</span>
        <span class="track"><span style="width:${100 * p}%"></span></span>
        <span class="number">${percent(p)}</span></div>`,
    )
    .join("");
}

function drawPrediction() {
  bars($("three"), course.classes.map((name, k) => [name, result.three.at(-1)[k]]));
  const all = model.softmax(result.logits.at(-1)).map((p, k) => [course.foods[k], p]);
  bars($("five"), all.sort((a, b) => b[1] - a[1]).slice(0, 5));
}

/** Probability of the three classes after each block. */
function drawForms() {
  const x = (block) => 40 + 44 * block;
  const y = (p) => 140 - 120 * p;
  const colours = ["#D55E00", "#0072B2", "#009E73"];
  let parts = [0, 0.5, 1].map(
    (p) => `<line x1="40" x2="310" y1="${y(p)}" y2="${y(p)}" class="grid"/>
      <text x="30" y="${y(p) + 4}" text-anchor="end">${100 * p} %</text>`,
  );
  parts.push(`<rect x="${x(state.layer) - 12}" y="14" width="24" height="132"
    class="here"/>`);
  for (let block = 0; block < 7; block++)
    parts.push(`<text x="${x(block)}" y="160" text-anchor="middle">${block}</text>`);
  course.classes.forEach((name, k) => {
    const points = result.three.map((row, block) => `${x(block)},${y(row[k])}`);
    parts.push(`<polyline points="${points.join(" ")}" stroke="${colours[k]}"/>`);
    parts.push(
      ...points.map((point) => {
        const [cx, cy] = point.split(",");
        return `<circle cx="${cx}" cy="${cy}" r="3" fill="${colours[k]}"/>`;
      }),
    );
  });
  course.classes.forEach((name, k) =>
    parts.push(`<text x="${56 + 90 * k}" y="10" class="key" fill="${colours[k]}">●
      <tspan class="word">${name}</tspan></text>`),
  );
  for (let block = 1; block < 7; block++)
    parts.push(`<rect x="${x(block) - 22}" y="14" width="44" height="150"
      class="hit" data-layer="${block}"/>`);
  $("forms").innerHTML = parts.join("");
  const best = result.three.map((row) => course.classes[row.indexOf(Math.max(...row))]);
  $("forms").setAttribute("aria-label", `After blocks 0 to 6: ${best.join(", ")}.`);
}

/** The largest difference to what PyTorch found, where the state is one it was asked. */
function drawEqual() {
  const row = course.images.find((image) => image.name === state.image);
  const asked = state.trained && state.positions && !state.shuffle && kept().length === 64;
  delete $("equal").dataset.image;
  if (!row || !asked) {
    $("equal").textContent = "";
    return;
  }
  const differences = [
    ...row.logits.map((x, k) => x - result.logits.at(-1)[k]),
    ...row.attention.map((x, k) => x - result.attention.at(-1)[0][0][k]),
  ];
  const most = Math.max(...differences.map(Math.abs));
  $("equal").textContent = `PyTorch found the same 98 logits and attention weights for this
    image: the largest difference is ${most.toExponential(0)}.`;
  Object.assign($("equal").dataset, { difference: most, image: row.name });
}

function drawControls() {
  for (const name of ["shuffle", "positions", "trained"])
    $(name).setAttribute("aria-pressed", state[name]);
  for (const input of document.querySelectorAll("fieldset input"))
    input.checked = String(state[input.name]) === input.value;
  $("heads").parentElement.disabled = state.view === "rollout";
  for (const button of $("images").children) {
    const chosen = button.dataset.name === state.image;
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen || state.image === "own" ? 0 : -1;
  }
  for (const button of $("patches").querySelectorAll("button")) {
    const place = Number(button.dataset.place);
    const dropped = state.dropped.has(place);
    button.setAttribute("aria-pressed", dropped);
    button.tabIndex = place === state.patch ? 0 : -1;
    const [row, column] = [Math.floor(place / SIDE) + 1, (place % SIDE) + 1];
    const words = `row ${row}, column ${column}${dropped ? ", dropped" : ""}`;
    button.setAttribute("aria-label", words);
  }
  const count = kept().length;
  $("count").textContent = `${count} patches and the class token: ${count + 1} tokens.`;
  $("explain-patches").innerHTML = state.shuffle
    ? `Each patch stands in a wrong place${
        state.positions
          ? " and gets that place's position."
          : ", but without positions no place is wrong: the prediction is as before."
      } ${lesson("05_position_embedding", "Lesson 05")}`
    : `${
        state.positions
          ? "Each patch carries the position embedding of its place."
          : "Without it the model gets a set of patches, in no order."
      } ${lesson("05_position_embedding", "Lesson 05")}`;
  const view = VIEWS[state.view];
  $("explain-view").innerHTML = `${view.says} ${view.link}`;
  $("explain-weights").innerHTML = state.trained
    ? `1.55 million images of 98 foods have set these weights.
       ${lesson("A2_pretraining", "Appendix A2")}`
    : `Random weights, as before training: maps and probabilities mean nothing.
       ${lesson("13b_attention_maps", "Lesson 13b")}`;
}

function draw() {
  drawImage();
  drawMap();
  drawPrediction();
  drawForms();
  drawEqual();
  drawControls();
  writeAddress();
}

// What the reader can do

function radios(id, name, entries) {
  $(id).innerHTML = entries
    .map(
      ([value, label]) => `<label><input type="radio" name="${name}" value="${value}">
        <span>${label}</span></label>`,
    )
    .join("");
  $(id).addEventListener("change", (event) => {
    const text = event.target.value;
    state[name] = name === "view" ? text : Number(text);
    draw();
  });
}

function pointAt(place) {
  if (state.patch === place && needsPatch()) return;
  state.patch = place;
  if (!needsPatch()) state.view = "query";
  draw();
}

function toggle(place) {
  if (!state.dropped.delete(place) && kept().length > 2) state.dropped.add(place);
  compute();
}

function makePatches() {
  $("patches").innerHTML = Array.from(
    { length: SIDE },
    (_, row) =>
      `<div role="row">${Array.from(
        { length: SIDE },
        (_, column) => `<span role="gridcell"><button data-place="${SIDE * row + column}">
          </button></span>`,
      ).join("")}</div>`,
  ).join("");
  const placeOf = (event) => {
    const button = event.target.closest("button");
    return button ? Number(button.dataset.place) : -1;
  };
  const buttons = [...$("patches").querySelectorAll("button")];
  $("patches").addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (place >= 0 && event.pointerType === "mouse") pointAt(place);
  });
  $("patches").addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place < 0) return;
    state.patch = place;
    toggle(place);
  });
  $("patches").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };
    const place = placeOf(event) + (step[event.key] ?? NaN);
    if (!(place >= 0 && place < PATCHES)) return;
    event.preventDefault();
    pointAt(place);
    buttons[place].focus();
  });
}

function makeImages() {
  $("images").innerHTML = course.images
    .map(
      ({ name, label }) => `<button role="radio" data-name="${name}"
        aria-label="${name.replace(label, `${label} `)}"><img src="${name}.jpg" alt=""
        width="64" height="64"></button>`,
    )
    .join("");
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
  radios("views", "view", Object.entries(VIEWS).map(([k, view]) => [k, view.label]));
  radios("layers", "layer", [1, 2, 3, 4, 5, 6].map((n) => [n, n]));
  radios("heads", "head", [0, 1, 2, 3].map((n) => [n, n || "mean"]));
  for (const name of ["shuffle", "positions", "trained"])
    $(name).addEventListener("click", () => {
      state[name] = !state[name];
      compute();
    });
  $("reset").addEventListener("click", () => {
    const { image } = state;
    Object.assign(state, structuredClone(START), { image });
    compute();
  });
  $("forms").addEventListener("click", (event) => {
    const layer = Number(event.target.dataset.layer);
    if (!layer) return;
    state.layer = layer;
    draw();
  });
  $("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const kind of ["dragover", "drop"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  addEventListener("hashchange", async () => {
    readAddress();
    await choose(state.image);
  });
}

function progress(fraction) {
  $("progress").value = fraction;
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
  await model.prepare(progress);
  await choose(state.image);
  $("loading").hidden = true;
  $("play").hidden = false;
  document.body.dataset.ready = "";
}

start().catch((error) => {
  $("trouble").textContent = error.message;
  document.body.dataset.failed = "";
});

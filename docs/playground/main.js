// The page: what the reader has chosen, what the model says, and how it is drawn.
import * as model from "./model.js";
import { own, shipped } from "./image.js";

const { SIDE } = model;
const PATCHES = SIDE * SIDE;
const BLOCKS = 6;
const $ = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(1)} %`;
const lesson = (file, text) => `<a href="../notebooks/${file}.html">${text}</a>`;

const VIEWS = {
  class: {
    label: "class token's row",
    says: "How much the class token takes from each patch: its row.",
    link: lesson("04_class_token", "Lesson 04"),
  },
  query: {
    label: "where this patch looks",
    says: "How much the patch that you point at takes from each patch: its row.",
    link: lesson("06_self_attention", "Lesson 06"),
  },
  key: {
    label: "who looks at it",
    says: "How much each patch takes from the one that you point at: its column.",
    link: lesson("06_self_attention", "Lesson 06"),
  },
  rollout: {
    label: "rollout",
    says: "The mean of the heads, multiplied through all blocks up to this one.",
    link: lesson("13b_attention_maps", "Lesson 13b"),
  },
};

// A fixed order, so that an address shows everybody the same.
const SHUFFLED = shuffledOrder(2020);

const START = {
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

function shuffledOrder(seed) {
  const order = Array.from({ length: PATCHES }, (_, i) => i);
  for (let i = PATCHES - 1; i > 0; i--) {
    seed = (1103515245 * seed + 12345) % 2147483648; // a generator of random numbers
    const j = Math.floor((seed / 2147483648) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const START_ORDER = Array.from({ length: PATCHES }, (_, i) => i);
const order = () => (state.shuffle ? SHUFFLED : START_ORDER);
// What is dropped is a patch, wherever it stands.
const isDropped = (place) => state.dropped.has(order()[place]);
const kept = () => START_ORDER.filter((place) => !isDropped(place));
const untouched = () =>
  state.trained && state.positions && !state.shuffle && !state.dropped.size;

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
  const sum = (numbers) => numbers.reduce((a, b) => a + b);
  const all = sum(Object.keys(loaded).map((name) => course.bytes[name]));
  const now = Math.min(all, sum(Object.values(loaded)));
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
  const found = await model.run(await sessions[file], ...args);
  const three = found.features.map((x) => model.softmax(model.linear(course.head, x)));
  return { ...found, places, three };
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
      const asked = picture;
      asked.untouched ??= await ask(START_ORDER, START_ORDER, true, true);
      const places = kept();
      const patches = places.map((place) => order()[place]);
      result = untouched()
        ? asked.untouched
        : await ask(patches, places, state.positions, state.trained);
      reference = asked.untouched;
    } while (again);
    $("trouble").textContent = "";
    draw();
  } finally {
    running = false;
    delete document.body.dataset.running;
  }
}

async function choose(name) {
  state.image = name;
  document.body.dataset.running = ""; // until compute() has drawn
  const chosen = name === "own" ? ownImage : await shipped(name);
  if (state.image !== name) return; // another one was chosen meanwhile
  picture = chosen;
  $("tokens").style.setProperty("--image", `url(${picture.shown.toDataURL("image/jpeg")})`);
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

/** The weights that the map shows, one per kept patch, and the class token's own. */
function weights() {
  const { attention, places } = result;
  const heads = attention[state.layer - 1];
  let matrix = state.head ? heads[state.head - 1] : model.meanOfHeads(heads);
  if (state.view === "rollout") matrix = model.rollout(attention, state.layer);
  const token = places.indexOf(state.patch) + 1;
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
    if (isDropped(place)) return;
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
  const gone = needsPatch() && !result.places.includes(state.patch);
  const values = gone ? result.places.map(() => 0) : weights();
  const most = Math.max(...values);
  context.clearRect(0, 0, 512, 512);
  Object.assign(context, { filter: "grayscale(1)", globalAlpha: 0.2 });
  context.drawImage($("image"), 0, 0); // faint, so that one sees what lies there
  Object.assign(context, { filter: "none", globalAlpha: 1 });
  result.places.forEach((place, i) => {
    const [x, y] = [(place % SIDE) * size, Math.floor(place / SIDE) * size];
    context.fillStyle = shade(gone ? 0 : values[i] / most);
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
  $("most").textContent = gone ? "" : most.toFixed(3);
  const sorted = [...values].sort((a, b) => b - a);
  const eight = sorted.slice(0, 8).reduce((a, b) => a + b, 0);
  const sum = sorted.reduce((a, b) => a + b, 0);
  const said = `The 8 largest of ${values.length} weights hold ${percent(eight / sum)}
    (if all were equal: ${percent(Math.min(1, 8 / values.length))}).`;
  $("says").textContent = gone ? "This patch was dropped: point at another." : said;
  const which = state.view === "rollout" ? "" : `, ${headName(state.head)}`;
  const label = `Attention, ${VIEWS[state.view].label}, block ${state.layer}${which}`;
  $("map").setAttribute("aria-label", `${label}. ${$("says").textContent}`);
}

const headName = (head) => (head ? `head ${head}` : "mean of the heads");

/** The sequence as the model gets it: the class token, then each kept patch. */
function drawTokens() {
  const tokens = result.places.map((place) => {
    const from = order()[place];
    const [x, y] = [from % SIDE, Math.floor(from / SIDE)].map((i) => (100 * i) / (SIDE - 1));
    const chosen = needsPatch() && place === state.patch ? "chosen" : "";
    return `<i class="${chosen}" style="background-position:${x}% ${y}%"></i>`;
  });
  $("tokens").innerHTML = `<i class="class"></i>${tokens.join("")}`;
  $("tokens").classList.toggle("bare", !state.positions);
  const count = `${tokens.length + 1} tokens of 192 features.`;
  $("count").textContent = count;
  const words = `${count} The class token, then ${tokens.length} patches`;
  const how = state.shuffle ? ", shuffled" : "";
  const sum = state.positions ? "with" : "without";
  $("tokens").setAttribute("aria-label", `${words}${how}, ${sum} position embedding.`);
}

/** Bars of probabilities [name, p, colour, mark]: the mark is another probability. */
function bars(place, rows) {
  const percents = (p) => `${100 * p}%`;
  place.innerHTML = rows
    .map(
      ([name, p, colour, mark]) => `<div class="row"><span>${name.replaceAll("_", " ")}</span>
        <span class="track"><span style="width:${percents(p)};background:${colour}"></span>
        ${mark === undefined ? "" : `<i style="left:${percents(mark)}"></i>`}</span>
        <span class="number">${percent(p)}</span></div>`,
    )
    .join("");
}

const colour = (k) => `var(--${course.classes[k]})`;
const likeliest = (row) => row.indexOf(Math.max(...row));

function drawPrediction() {
  const { layer } = state;
  const before = reference.three[layer];
  const marks = untouched() ? [] : before;
  const now = result.three[layer];
  bars($("three"), course.classes.map((name, k) => [name, now[k], colour(k), marks[k]]));
  $("after").textContent = layer;
  const best = likeliest(before);
  $("explain-three").textContent = untouched()
    ? "Change something, and marks will show these probabilities."
    : `Marks: before the change, ${course.classes[best]} had ${percent(before[best])}.`;
  const all = model.softmax(result.logits[layer]).map((p, k) => [course.foods[k], p]);
  const five = all.sort((a, b) => b[1] - a[1]).slice(0, 5);
  bars($("five"), five.map((row) => [...row, "var(--sky)"]));
}

/** Probability of the three classes after each block. */
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
  const ends = course.classes.map((name, k) => {
    const points = result.three.map((row, block) => [x(block), y(row[k])]);
    parts.push(`<polyline points="${points.join(" ")}" style="stroke:${colour(k)}"/>`);
    for (const [cx, cy] of points)
      parts.push(`<circle cx="${cx}" cy="${cy}" r="3" style="fill:${colour(k)}"/>`);
    return { name, k, y: points.at(-1)[1] + 4 };
  });
  // The names stand at the ends of the lines, from the lowest up, none on another.
  let below = Infinity;
  for (const end of ends.sort((a, b) => b.y - a.y)) {
    below = Math.min(end.y, below - 12);
    parts.push(`<text x="296" y="${below}" class="name" style="fill:${colour(end.k)}">
      ${end.name}</text>`);
  }
  $("forms").innerHTML = parts.join("");
  const best = result.three.map((row) => course.classes[likeliest(row)]);
  $("forms").setAttribute("aria-label", `After blocks 0 to ${BLOCKS}: ${best.join(", ")}.`);
  const settled = best.findLastIndex((name) => name !== best.at(-1)) + 1;
  $("explain-forms").innerHTML = `From block ${settled} on, ${best.at(-1)} is ahead. The head
    was trained on the last block only. ${lesson("10_vision_transformer", "Lesson 10")}`;
}

/** The largest difference to what PyTorch found, where the state is one it was asked. */
function drawEqual() {
  const row = course.images.find((image) => image.name === state.image);
  delete $("equal").dataset.image;
  if (!row || !untouched()) {
    $("equal").textContent = "";
    return;
  }
  const differences = [
    ...row.logits.map((x, k) => x - result.logits.at(-1)[k]),
    ...row.attention.map((x, k) => x - result.attention.at(-1)[0][0][k]),
  ];
  const most = Math.max(...differences.map(Math.abs));
  $("equal").textContent = `PyTorch found the same 98 logits and attention weights for this
    image: the largest difference is ${most.toFixed(6)}.`;
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
  const gone = isDropped(state.patch);
  const [row, column] = [Math.floor(state.patch / SIDE) + 1, (state.patch % SIDE) + 1];
  $("drop").textContent = `${gone ? "Put back" : "Drop"} row ${row}, column ${column}`;
  for (const button of $("patches").querySelectorAll("button")) {
    const place = Number(button.dataset.place);
    const dropped = isDropped(place);
    button.setAttribute("aria-pressed", dropped);
    button.classList.toggle("chosen", place === state.patch && needsPatch());
    button.tabIndex = place === state.patch ? 0 : -1;
    const [row, column] = [Math.floor(place / SIDE) + 1, (place % SIDE) + 1];
    const words = `row ${row}, column ${column}${dropped ? ", dropped" : ""}`;
    button.setAttribute("aria-label", words);
  }
  $("explain-shuffle").textContent = !state.shuffle
    ? "Gives each patch the place of another."
    : state.positions
      ? "Each patch stands in a wrong place and gets that place's position."
      : "Without positions no place is wrong: shuffled or not, one prediction.";
  const positions = state.positions
    ? "Added to each patch, they tell its place."
    : "Nothing tells a patch its place.";
  $("explain-positions").innerHTML = `${positions} ${LINK_POSITIONS}`;
  const view = VIEWS[state.view];
  $("explain-view").innerHTML = `${view.says} ${view.link}`;
  const heads = state.head
    ? `Head ${state.head} of the three, with queries and keys of its own.`
    : "Each head has queries and keys of its own; the mean hides them.";
  $("explain-head").innerHTML = `${heads} ${LINK_HEADS}`;
  $("explain-weights").innerHTML = state.trained
    ? `Trained on 93,060 photographs of 98 foods.
       ${lesson("A2_pretraining", "Appendix A2")}`
    : `Random weights, as before training: maps and probabilities mean nothing.
       ${lesson("13b_attention_maps", "Lesson 13b")}`;
}

const LINK_POSITIONS = lesson("05_position_embedding", "Lesson 05");
const LINK_HEADS = lesson("07_multihead_self_attention", "Lesson 07");

function draw() {
  drawImage();
  drawMap();
  drawTokens();
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
  state.patch = place;
  const patch = order()[place];
  if (!state.dropped.delete(patch) && kept().length > 2) state.dropped.add(patch);
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
  // A finger cannot point without a tap, so its tap looks, and a button drops.
  let touch = false;
  $("patches").addEventListener("pointerdown", (event) => {
    touch = event.pointerType === "touch";
  });
  $("patches").addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place < 0) return;
    if (touch) pointAt(place);
    else toggle(place);
  });
  $("drop").addEventListener("click", () => toggle(state.patch));
  $("patches").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };
    touch = false;
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
    const { image } = state;
    Object.assign(state, structuredClone(START), { image });
    compute();
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
  document.body.classList.toggle("touch", navigator.maxTouchPoints > 0);
  progress("ort.wasm.gz", 0);
  const prepared = model.prepare("ort.wasm.gz", progress);
  const file = state.trained ? "trained.onnx.gz" : "untrained.onnx.gz";
  sessions[file] = session(file, prepared);
  await sessions[file];
  await choose(state.image);
  $("play").hidden = false;
  document.body.dataset.ready = "";
}

addEventListener("unhandledrejection", (event) => {
  $("trouble").textContent = `${event.reason.message} Is the server still there?`;
});

start().catch((error) => {
  $("trouble").textContent = error.message;
  $("loading").hidden = true;
  $("still").hidden = false;
  document.body.dataset.failed = "";
});

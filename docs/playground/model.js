// The model in the browser: loads the ONNX files and asks them.
import * as ort from "onnxruntime-web/wasm";

export const SIDE = 8; // patches in a row
export const PIXELS = 64; // of the image's side, as the model sees it

/** Fetches a file, unpacks it if it is packed, and tells how many bytes have come. */
export async function fetchFile(url, tell = () => {}) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} could not be loaded (${answer.status}).`);
  let loaded = 0;
  const count = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.byteLength;
      tell(url, loaded);
      controller.enqueue(chunk);
    },
  });
  let stream = answer.body.pipeThrough(count);
  // Some servers unpack .gz by themselves, and say so.
  const packed = url.endsWith(".gz") && !answer.headers.get("content-encoding");
  if (packed) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Makes the runtime ready; its WebAssembly comes from this page's own folder. */
export async function prepare(file, tell) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort.mjs", document.baseURI).href };
  ort.env.wasm.wasmBinary = await fetchFile(file, tell);
}

export async function open(file) {
  return ort.InferenceSession.create(new Uint8Array(file));
}

const integers = (numbers) =>
  new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);

/**
 * Runs the model on pixels (3 x 64 x 64, in -1 … 1).
 *
 * patches[i] is the patch that stands as token i + 1, positions[i] whose position it
 * gets. Returns rows of numbers: logits and features after each block (0: before the
 * first), and attention[layer][head][query][key].
 */
export async function run(session, pixels, patches, positions, usePositions) {
  const out = await session.run({
    image: new ort.Tensor("float32", pixels, [1, 3, PIXELS, PIXELS]),
    patches: integers(patches),
    positions: integers(positions),
    scale: new ort.Tensor("float32", [usePositions ? 1 : 0], [1]),
  });
  const [layers, heads, tokens] = out.attention.dims;
  const rows = (tensor, width) =>
    Array.from({ length: tensor.data.length / width }, (_, i) =>
      Array.from(tensor.data.subarray(i * width, (i + 1) * width)),
    );
  const queries = rows(out.attention, tokens);
  const attention = Array.from({ length: layers }, (_, layer) =>
    Array.from({ length: heads }, (_, head) =>
      queries.slice((layer * heads + head) * tokens, (layer * heads + head + 1) * tokens),
    ),
  );
  return {
    logits: rows(out.logits, out.logits.dims[1]),
    features: rows(out.features, out.features.dims[1]),
    attention,
  };
}

export const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - most));
  const all = sum(powers);
  return powers.map((x) => x / all);
}

/** The head of three classes: W x + b. */
export function linear({ weight, bias }, x) {
  return weight.map((row, k) => row.reduce((sum, w, i) => sum + w * x[i], bias[k]));
}

/** The mean over the heads of a layer. */
export function meanOfHeads(heads) {
  return heads[0].map((row, q) =>
    row.map((_, k) => heads.reduce((sum, head) => sum + head[q][k], 0) / heads.length),
  );
}

/** Attention rollout up to a layer: half of each token stays, half is attention. */
export function rollout(attention, layer) {
  let found = null;
  for (const heads of attention.slice(0, layer)) {
    const half = meanOfHeads(heads).map((row, q) =>
      row.map((weight, k) => 0.5 * weight + (q === k ? 0.5 : 0)),
    );
    found = found ? product(half, found) : half;
  }
  return found;
}

function product(a, b) {
  return a.map((row) => b[0].map((_, k) => row.reduce((s, x, j) => s + x * b[j][k], 0)));
}

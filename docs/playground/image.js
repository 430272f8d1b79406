// From a file to pixels: the transform of lesson 13, done by the browser's canvas.
import { PIXELS } from "./model.js";

const KEPT = 0.8; // crop_pct: the middle of the image that the model sees
const MOST = 120e6; // pixels of a file: decoded, each takes four bytes

function canvasOf(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  return canvas;
}

/** Cuts the middle out of an image and draws it `size` pixels wide. */
function cut(image, size, kept = 1) {
  const canvas = canvasOf(size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const side = kept * Math.min(image.width, image.height);
  const [x, y] = [(image.width - side) / 2, (image.height - side) / 2];
  context.imageSmoothingQuality = "high";
  context.drawImage(image, x, y, side, side, 0, 0, size, size);
  return canvas;
}

/** Puts white behind what is transparent; returns whether anything was. */
function fillWhite(canvas) {
  const context = canvas.getContext("2d");
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return data.some((value, i) => i % 4 === 3 && value < 255);
}

/** The colours of a 64 x 64 canvas as the model wants them: 3 x 64 x 64 in -1 … 1. */
export function toPixels(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, PIXELS, PIXELS);
  const area = PIXELS * PIXELS;
  return Float32Array.from(
    { length: 3 * area },
    (_, i) => data[4 * (i % area) + Math.floor(i / area)] / 127.5 - 1,
  );
}

/** Reads an image that ships with the page; its 64 pixels are those that PyTorch saw. */
export async function shipped(name) {
  const load = async (file) => createImageBitmap(await (await fetch(file)).blob());
  const [small, large] = await Promise.all([load(`${name}.png`), load(`${name}.jpg`)]);
  return { pixels: toPixels(cut(small, PIXELS)), shown: cut(large, 512) };
}

/** Width and height, from the file's header: nothing is decoded yet. */
async function sizeOf(file) {
  const head = new DataView(await file.slice(0, 24).arrayBuffer());
  // Of a huge PNG the browser itself does not tell the size.
  if (head.byteLength === 24 && head.getUint32(0) === 0x89504e47)
    return [head.getUint32(16), head.getUint32(20)];
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      Object.assign(image, { onload: resolve, onerror: reject });
    });
    return [image.naturalWidth, image.naturalHeight];
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

/**
 * Reads a file of the reader's own; `note` says what was done to it.
 *
 * Throws an Error whose message can be shown: no image, or one too large to decode.
 */
export async function own(file) {
  const refused = (why) => new Error(`${file.name} ${why}`);
  if (file.size > 100e6) throw refused("is larger than 100 MB.");
  const none = refused("is no image that this browser can read, or one too large for it.");
  const [width, height] = await sizeOf(file).catch(() => Promise.reject(none));
  const size = `${width} × ${height} pixels`;
  if (width * height > MOST) throw refused(`has ${size}; up to 120 million can be read.`);
  const bitmap = await createImageBitmap(file).catch(() => Promise.reject(none));
  const shown = cut(bitmap, 512, KEPT);
  bitmap.close();
  let note = `${file.name}, ${size}: the model sees its middle.`;
  if (fillWhite(shown)) note += " What was transparent is white.";
  // In halves: a single large step would skip pixels.
  let [current, side] = [shown, 512];
  while (side > PIXELS) current = cut(current, (side /= 2));
  return { pixels: toPixels(current), shown, note };
}

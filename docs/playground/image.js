// From a file to pixels: the transform of lesson 13, done by the browser's canvas.
import { PIXELS } from "./model.js";

const KEPT = 0.8; // crop_pct: the middle of the image that the model sees

function canvasOf(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  return canvas;
}

/** Cuts the middle out of an image and draws it `size` pixels wide, on white. */
export function cut(image, size, kept = 1) {
  const canvas = canvasOf(size);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const side = kept * Math.min(image.width, image.height);
  const [x, y] = [(image.width - side) / 2, (image.height - side) / 2];
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, x, y, side, side, 0, 0, size, size);
  return canvas;
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

/**
 * Reads a file of the reader's own.
 *
 * Throws an Error whose message can be shown: no image, or one too large to decode.
 */
export async function own(file) {
  if (file.size > 100e6) throw new Error(`${file.name} is larger than 100 MB.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name} is no image that this browser can read.`);
  }
  const shown = cut(bitmap, 512, KEPT);
  // In halves: a single large step would skip pixels.
  let [current, size] = [shown, 512];
  while (size > PIXELS) current = cut(current, (size /= 2));
  bitmap.close();
  return { pixels: toPixels(current), shown };
}

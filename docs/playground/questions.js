// The questions of the page. Each has cells, states of the page that the reader visits:
// a cell then shows what the model said there, and the answer compares the cells.
import { sum } from "./model.js";

// Of pizza2, the patches with crust on them (0: the first of the first row).
const CRUST = [10, 11, 12, 13, 17, 21, 25, 29, 32, 37, 40, 41, 42, 43, 44];

export const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`; // on one line

/** The likeliest of the three classes: its place. */
export const likeliest = (row) => row.indexOf(Math.max(...row));

/**
 * `see` is the part of the page to look at. `measure` gets the course, the three
 * probabilities after each block (untouched: as they were before any change) and the
 * weights of the map; it returns a name, or none, and a fraction. `winner` is the place
 * of a cell, to be marked when all are filled.
 */
export const QUESTIONS = {
  crust: {
    title: "Which head follows the crust?",
    hint: "Press the heads of block 3. How much of their attention lies on the crust?",
    see: "map",
    cells: [1, 2, 3].map((head) => ({
      label: `head ${head}`,
      at: { image: "pizza2", layer: 3, head, view: "class" },
    })),
    measure: ({ weights }) => ({
      p: sum(CRUST.map((patch) => weights[patch])) / sum(weights),
    }),
    winner: (found) => likeliest(found.map(({ p }) => p)),
    answer: (found, winner) => {
      const share = percent(CRUST.length / 64);
      return `Head ${winner + 1}: ${percent(found[winner].p)} of the class token's attention
        lies on the ${CRUST.length} patches with crust, which are ${share} of the image.`;
    },
  },
  order: {
    title: "Does the order of the patches matter?",
    hint: "Press all four. How sure is the model of its first answer?",
    see: "image",
    cells: [
      { label: "in order", at: { shuffle: false } },
      { label: "shuffled", at: { shuffle: true } },
      { label: "in order, no positions", at: { shuffle: false, positions: false } },
      { label: "shuffled, no positions", at: { shuffle: true, positions: false } },
    ],
    measure: ({ course, three, untouched }) => {
      const best = likeliest(untouched.at(-1));
      return { name: course.classes[best], p: three.at(-1)[best] };
    },
    answer: (found) => {
      const [a, b, c, d] = found.map(({ p }) => percent(p));
      const changes = (x, y) => (x === y ? `no, ${x} twice` : `yes, ${x} and ${y}`);
      return `With positions: ${changes(a, b)}. Without: ${changes(c, d)}. Only the
        position embedding tells the model where a patch stood.`;
    },
  },
  blocks: {
    title: "How many blocks does it take?",
    hint: "Press one block after the other. Which class is ahead?",
    see: "forms",
    cells: [1, 2, 3, 4, 5, 6].map((layer) => ({ label: `${layer}`, at: { layer } })),
    measure: ({ course, three, layer }) => {
      const best = likeliest(three[layer]);
      return { name: course.classes[best], p: three[layer][best] };
    },
    winner: (found) => found.findLastIndex(({ name }) => name !== found.at(-1).name) + 1,
    answer: (found, winner) => {
      const last = found.at(-1).name;
      return winner === 0
        ? `One: ${last} is ahead from the first block on.`
        : `${winner + 1}: from block ${winner + 1} on, ${last} stays ahead.`;
    },
  },
};

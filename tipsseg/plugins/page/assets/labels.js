"use strict";
// The label map of an image: read it, find places for names, count classes, and paint it.

const SELECTED = [255, 220, 0];
const DARK = [16, 16, 16];
const IGNORED = "#808080";

const maps = {
  waiting: new Map(), // by key of an image: who waits for its map

  /** The maps of an image: labels, numbers of regions, other labels, confidences; null for what is unknown. Rejects if the file is missing. */
  load(record) {
    return new Promise((resolve, reject) => {
      const { key } = record;
      this.waiting.set(key, [...(this.waiting.get(key) || []), resolve]);
      loadScript(address("maps", key, ".js"), () => reject(new Error("The label map is missing.")));
    });
  },

  async take(key, found) {
    const waiting = this.waiting.get(key) || [];
    this.waiting.delete(key);
    const decoded = await Promise.all(found.map((each) => each && readNumbers(each)));
    for (const resolve of waiting) resolve({ size: decoded[0].size, maps: decoded.map((each) => each && each.numbers) });
  },
};

/** Decode a map of whole numbers: its size (h, w), and the number of each pixel. Its PNG has the bytes one below the other. */
async function readNumbers({ planes, url }) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const { height, width } = image;
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const numbers = new Uint32Array(pixels.length / 4 / planes);
  for (let at = 0; at < numbers.length * planes; at++) numbers[at % numbers.length] += pixels[4 * at] << (8 * Math.floor(at / numbers.length));
  return { size: [height / planes, width], numbers };
}

/** The labels of an image with the changes of a person, without and with the strokes, and the stroke at each pixel: its number from 1, or 0. */
function applyChanges({ objects, strokes }, [original, numbers], size, imageSize) {
  const classes = new Int32Array(1 + numbers.reduce((most, each) => Math.max(most, each), 0)).fill(-1);
  for (const [number, id] of Object.entries(objects)) classes[number] = id;
  const base = original.map((id, at) => (classes[numbers[at]] < 0 ? id : classes[numbers[at]]));
  const drawn = { ids: base.slice(), base, owners: new Uint16Array(base.length) };
  strokes.forEach((stroke, place) => drawStroke(drawn, stroke, place + 1, size, imageSize));
  return drawn;
}

/** A place (id, y, x) for the name of each class: the pixel of it that is furthest from other classes, by steps along rows and columns. */
function namePlaces(ids, [height, width]) {
  const far = new Uint16Array(ids.length);
  const best = new Map();
  const alike = (at, other, inside) => (inside && ids[at] === ids[other] ? far[other] : 0);
  for (let at = 0; at < far.length; at++) far[at] = 1 + Math.min(alike(at, at - 1, at % width > 0), alike(at, at - width, at >= width));
  for (let at = far.length - 1; at >= 0; at--) {
    const after = 1 + Math.min(alike(at, at + 1, at % width < width - 1), alike(at, at + width, at + width < far.length));
    far[at] = Math.min(far[at], after);
    if (far[at] > (best.get(ids[at])?.[0] || 0)) best.set(ids[at], [far[at], Math.floor(at / width), at % width]);
  }
  return [...best].filter(([id]) => page.classes.has(id)).map(([id, [, y, x]]) => [id, y, x]);
}

/** The share of each label id; that of a whole has its parts. */
function countShares(ids) {
  const counts = new Uint32Array(65536);
  for (const id of ids) counts[id]++;
  const shares = {};
  counts.forEach((pixels, id) => {
    for (let whole = pixels ? id : undefined; whole !== undefined; whole = page.classes.get(whole)?.whole) shares[whole] = (shares[whole] || 0) + pixels / ids.length;
  });
  return shares;
}

/** Paint label ids on a canvas, and outline them in two tones: the class's own colour, and a dark one beside it. */
function paintLabels(canvas, ids, [height, width], { alpha, lines, hidden = new Set(), isSelected = null }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const pack = ([red, green, blue], opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const [fills, edges] = [new Uint32Array(65536), new Uint32Array(65536)];
  const [selected, dark] = [pack(SELECTED, alpha), pack(DARK, 255)];
  for (const { id, colour } of [...page.run.classes, { id: page.run.ignore, colour: IGNORED }]) {
    if (hidden.has(id)) continue;
    const bytes = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    [fills[id], edges[id]] = [pack(bytes, alpha), pack(bytes, 255)];
  }
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const id = ids[at];
      pixels[at] = isSelected && isSelected(at) ? selected : fills[id];
      if (!lines) continue;
      const [left, above] = [x > 0 ? ids[at - 1] : id, y > 0 ? ids[at - width] : id];
      const [right, below] = [x + 1 < width ? ids[at + 1] : id, y + 1 < height ? ids[at + width] : id];
      if (left === id && above === id && right === id && below === id) continue;
      if (edges[id]) pixels[at] = (left !== id && edges[left]) || (above !== id && edges[above]) ? dark : edges[id];
      else if (edges[left] || edges[above] || edges[right] || edges[below]) pixels[at] = dark;
    }
  }
  context.putImageData(image, 0, 0);
}

/** Write the names of classes on a canvas of labels, at places (id, y, x). */
function paintNames(context, places, [height, width], hidden) {
  const letters = Math.max(9, Math.round(Math.max(height, width) / 42));
  context.font = `bold ${letters}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = letters / 4;
  context.lineJoin = "round";
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  for (const [id, yPlace, xPlace] of places) {
    if (hidden.has(id)) continue;
    const name = page.classes.get(id).name.slice(0, 40);
    const half = Math.min(width / 2, context.measureText(name).width / 2 + 2);
    const x = Math.min(width - half, Math.max(half, xPlace + 0.5));
    const y = Math.min(height - letters / 2, Math.max(letters / 2, yPlace + 0.5));
    context.strokeText(name, x, y);
    context.fillText(name, x, y);
  }
}

// ---- thumbnails of changed images ----

const thumbnails = {
  drawn: new Map(), // canvases by mask; see changes.keyOf
  MOST: 200,

  /** The thumbnail of an image: a file, or with changes a canvas, which is drawn as soon as its map and its picture are loaded. */
  of(record) {
    const key = changes.keyOf(record);
    if (!changes.count(record)) return element("img", { src: address("thumbnails", record.key, ".jpg"), alt: "", decoding: "async" });
    const steps = changes.version(record);
    if (this.drawn.get(key)?.steps !== steps) {
      const scale = Math.min(1, 240 / Math.max(...record.size));
      const [height, width] = record.size.map((side) => Math.max(1, Math.round(side * scale)));
      const canvas = element("canvas", { height, width });
      this.drawn.delete(key);
      this.drawn.set(key, { steps, canvas });
      if (this.drawn.size > this.MOST) this.drawn.delete(this.drawn.keys().next().value);
      this.draw(record, canvas);
    }
    return this.drawn.get(key).canvas;
  },

  async draw(record, canvas) {
    const { height, width } = canvas;
    const picture = new Image();
    picture.src = address("pictures", record.key, ".jpg");
    try {
      const [{ size, maps: found }] = await Promise.all([maps.load(record), picture.decode()]);
      const { ids } = applyChanges(changes.of(record), found, size, record.size);
      const small = new Uint32Array(height * width).map((_, at) => {
        const [y, x] = [Math.floor(at / width), at % width];
        return ids[Math.floor(((y + 0.5) * size[0]) / height) * size[1] + Math.floor(((x + 0.5) * size[1]) / width)];
      });
      const overlay = element("canvas");
      paintLabels(overlay, small, [height, width], { alpha: 115, lines: true });
      const context = canvas.getContext("2d");
      context.drawImage(picture, 0, 0, width, height);
      context.drawImage(overlay, 0, 0);
    } catch {
      canvas.getContext("2d").fillText("no label map", 4, 12);
    }
  },
};

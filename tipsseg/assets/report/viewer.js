"use strict";
// The image viewer: the picture, its labels and visible classes, and the label under the pointer.

const SELECTED = [255, 220, 0];

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

const viewer = {
  index: -1,
  record: null,
  ids: null, // Uint32Array of h * w, the label id of each pixel, with corrections
  original: null, // the same without corrections
  objects: null, // Uint32Array of h * w, the number of the region at each pixel: an object, or above record.objects a region of
  // background or of ignored pixels; null if the image cannot be corrected
  others: null, // Uint32Array of h * w, other label ids; null if there are none
  box: null, // the box of a doubt to show: x, y, w, h in pixels of the image
  selected: new Set(), // numbers of regions
  places: [], // of the names, see namePlaces
  boxes: new Map(), // the checkbox of each class in the legend
  zoom: { scale: 1, x: 0, y: 0 }, // in pixels of the screen
  near: "", // the key of the image whose own pixels are loaded
  pointers: new Map(), // the place of each pointer that is down
  pans: false, // whether the pointer moves the picture
  pointed: null, // y, x under the pointer
  start: null, // y, x at which the pointer went down
  confidences: null, // Uint32Array of h * w, 255 times the confidence; null if unknown
  size: [0, 0], // h, w
  hidden: new Set(),
  before: 0.45,

  /** Open an image on request; Back closes it. */
  open(index) {
    const how = byId("viewer").open ? "replaceState" : "pushState";
    this.show(index);
    notePlace(how);
  },

  show(index) {
    this.index = index;
    this.record = page.shown[index];
    const { record } = this;
    this.ids = this.original = this.objects = this.others = this.box = this.pointed = null;
    this.near = "";
    this.moveTo(1, 0, 0);
    this.select([]);
    byId("overlay").width = byId("overlay").height = 1;
    byId("name").textContent = record.image;
    byId("hover").textContent = "";
    const parts = [record.path, describe(record)];
    if (record.size) parts.push(`${record.size[0]} x ${record.size[1]} pixels (height x width)`);
    if (record.reason) parts.push(record.reason);
    if (record.key && !record.shown) parts.push("The image is missing or has changed: only its labels are shown.");
    byId("facts").replaceChildren(...parts.flatMap((part) => [part, element("br")]));
    byId("stack").style.aspectRatio = record.size ? `${record.size[1]} / ${record.size[0]}` : "";
    byId("picture").hidden = !record.key;
    byId("picture").alt = `${record.image}, ${record.classes.map((each) => page.classes.get(each[0]).name).join(", ") || "no class"}`;
    if (record.key) {
      byId("picture").src = address("pictures", record.key, ".jpg");
      loadScript(address("maps", record.key, ".js"), () => (byId("hover").textContent = "The label map is missing."));
    }
    byId("previous").disabled = index <= 0;
    byId("next").disabled = index >= page.shown.length - 1;
    this.drawLegend();
    this.drawMarks();
    this.drawAlike();
    this.drawDoubts();
    if (!byId("viewer").open) byId("viewer").showModal();
  },

  /** Open a record, even if the filters hide it. */
  openRecord(record) {
    if (!page.shown.includes(record)) {
      byId("filters").reset();
      refresh();
    }
    this.open(page.shown.indexOf(record));
  },

  async take(key, ...maps) {
    if (!this.record || this.record.key !== key) return;
    const [labels, ...more] = await Promise.all(maps.map((each) => each && readNumbers(each)));
    if (this.record?.key !== key) return; // the viewer was closed, or shows another image
    this.size = labels.size;
    this.original = labels.numbers;
    [this.objects, this.others, this.confidences] = more.map((each) => each?.numbers);
    this.applyCorrections();
  },

  /** Whether the other labels are shown instead of the run's. */
  showsOthers() {
    return Boolean(this.others) && byId("others").checked;
  },

  switchLabels() {
    byId("others").checked = !byId("others").checked;
    this.applyCorrections();
    return true;
  },

  /** List the doubts of tipsseg audit; a click shows where. */
  drawDoubts() {
    const doubts = this.record.doubts || [];
    byId("audit").hidden = !doubts.length;
    byId("doubts").replaceChildren(
      ...doubts.map(([kind, label, seen, score, box]) => {
        const text = `${score.toFixed(2)}: ${label === null ? "no label" : `labelled ${label}`}, looks like ${seen === null ? "background" : seen}`;
        const show = () => {
          this.box = box;
          this.draw();
        };
        return element("button", { type: "button", textContent: text, onclick: show, "data-kind": kind });
      }),
    );
  },

  /** Show the labels with the corrections of this image, or the other labels. */
  applyCorrections() {
    if (!this.original) return; // the map is still loading
    const own = this.objects ? corrections.of(this.record) : {};
    this.ids = this.showsOthers()
      ? this.others
      : this.original.map((id, at) => (this.objects && own[this.objects[at]] !== undefined ? own[this.objects[at]] : id));
    byId("compare").hidden = !this.others;
    byId("correct").hidden = !this.objects || this.showsOthers();
    byId("undo").disabled = !corrections.done.length;
    byId("corrected").textContent = corrections.text();
    this.places = namePlaces(this.ids, this.size);
    if (this.pointed) this.say(this.textAt(...this.pointed));
    this.drawSelection();
    this.drawLegend();
    this.draw();
  },

  select(numbers) {
    this.selected = new Set(numbers);
    this.drawSelection();
    if (this.ids) this.draw();
  },

  drawSelection() {
    const { size } = this.selected;
    byId("becomes").disabled = !size;
    byId("becomes").value = "";
    byId("selection").textContent = size ? `${size} ${size === 1 ? "region" : "regions"} selected` : "Click an object or a region without a class, or drag a box around several objects.";
  },

  /** Give the selected objects another label id. */
  become(id) {
    if (!this.selected.size || !(id === 0 || id === page.run.ignore || page.classes.has(id))) return false;
    const now = new Map(); // the class of each selected object
    this.objects.forEach((number, at) => this.selected.has(number) && now.set(number, this.ids[at]));
    const deleted = new Set(now.values());
    const wholeOf = (own) => page.classes.get(own)?.whole || 0;
    const become = new Map();
    for (const [number, own] of now) {
      let whole = id === 0 ? wholeOf(own) : id; // a part that is deleted becomes its whole, unless that is deleted too
      while (id === 0 && deleted.has(whole)) whole = wholeOf(whole);
      become.set(number, whole);
    }
    corrections.set(this.record, become);
    this.selected = new Set();
    this.applyCorrections();
    redraw();
    return true;
  },

  undo() {
    if (!corrections.done.length) return this.say("Nothing to undo.");
    corrections.undo();
    this.applyCorrections();
    redraw();
    return true;
  },

  /** The objects of which most pixels are in the box between two places; between equal places, the region there. */
  objectsIn([top, left], [bottom, right]) {
    if (top === bottom && left === right) return [this.objects[top * this.size[1] + left]].filter(Boolean);
    const [all, inside] = [new Map(), new Map()];
    for (let y = 0, at = 0; y < this.size[0]; y++) {
      for (let x = 0; x < this.size[1]; x++, at++) {
        const number = this.objects[at];
        if (!number || number > this.record.objects) continue;
        all.set(number, (all.get(number) || 0) + 1);
        if (y >= top && y <= bottom && x >= left && x <= right) inside.set(number, (inside.get(number) || 0) + 1);
      }
    }
    return [...inside.keys()].filter((number) => 2 * inside.get(number) > all.get(number));
  },

  /** Select what the pointer was dragged over. With Shift, keep what was selected. */
  drop(event) {
    const [start, end] = [this.start, this.placeOf(event)];
    this.start = null;
    this.drawBox(null);
    if (!start || !end || !this.objects || this.showsOthers()) return;
    const near = Math.abs(start[0] - end[0]) + Math.abs(start[1] - end[1]) < 4; // a hand trembles
    const found = near ? this.objectsIn(start, start) : this.objectsIn([Math.min(start[0], end[0]), Math.min(start[1], end[1])], [Math.max(start[0], end[0]), Math.max(start[1], end[1])]);
    this.select(event.shiftKey ? [...this.selected, ...found] : found);
  },

  drawBox(event) {
    const box = byId("box");
    const frame = byId("stack").getBoundingClientRect();
    box.hidden = !event || !this.start;
    if (box.hidden) return;
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const [startX, startY] = this.startPointer;
    box.style.cssText = `left:${Math.min(x, startX - frame.left)}px;top:${Math.min(y, startY - frame.top)}px;width:${Math.abs(event.clientX - startX)}px;height:${Math.abs(event.clientY - startY)}px`;
  },

  draw() {
    if (!this.ids) return;
    const [height, width] = this.size;
    const canvas = byId("overlay");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const painted = context.createImageData(width, height);
    const alpha = Math.round(255 * Number(byId("opacity").value));
    const lines = byId("outlines").checked && alpha > 0;
    const colours = new Map();
    for (const each of [...page.run.classes, { id: page.run.ignore, colour: IGNORED }]) {
      colours.set(each.id, [1, 3, 5].map((at) => parseInt(each.colour.slice(at, at + 2), 16)));
    }
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const id = this.ids[at];
        if (this.hidden.has(id)) continue;
        const colour = this.selected.size && this.selected.has(this.objects[at]) ? SELECTED : colours.get(id);
        const edge =
          lines && ((x + 1 < width && this.ids[at + 1] !== id) || (y + 1 < height && this.ids[at + width] !== id) || (x > 0 && this.ids[at - 1] !== id) || (y > 0 && this.ids[at - width] !== id));
        if (colour) painted.data.set(edge ? [0, 0, 0, 255] : [...colour, alpha], 4 * at);
      }
    }
    context.putImageData(painted, 0, 0);
    if (lines && !this.showsOthers()) this.drawNames(context);
    if (this.box) {
      const scale = width / this.record.size[1];
      context.strokeStyle = "#fd0";
      context.lineWidth = 3;
      context.strokeRect(...this.box.map((side) => side * scale));
    }
  },

  /** Draw the class names. */
  drawNames(context) {
    const [height, width] = this.size;
    const letters = Math.max(9, Math.round(Math.max(height, width) / 42));
    context.font = `bold ${letters}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = letters / 4;
    context.lineJoin = "round";
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    for (const [id, yPlace, xPlace] of this.places) {
      if (this.hidden.has(id)) continue;
      const name = page.classes.get(id).name.slice(0, 40);
      const half = Math.min(width / 2, context.measureText(name).width / 2 + 2);
      const x = Math.min(width - half, Math.max(half, xPlace + 0.5));
      const y = Math.min(height - letters / 2, Math.max(letters / 2, yPlace + 0.5));
      context.strokeText(name, x, y);
      context.fillText(name, x, y);
    }
  },

  /** The share of each class, and its confidence in words: of the run, or with corrections those of the map. Parts come after their whole. */
  shares() {
    const { record, ids } = this;
    const order = [...page.classes.keys()];
    record.classes.sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
    const total = record.size ? record.size[0] * record.size[1] : 1;
    if (!ids || !Object.keys(corrections.of(record)).length) return record.classes.map(([id, pixels, confidence]) => [id, pixels / total, `confidence ${percent(confidence)}`]);
    const counts = new Map();
    for (const id of ids) counts.set(id, (counts.get(id) || 0) + 1);
    const wholeOf = (id) => page.classes.get(id)?.whole;
    for (const [id, pixels] of [...counts]) for (let whole = wholeOf(id); whole; whole = wholeOf(whole)) counts.set(whole, (counts.get(whole) || 0) + pixels);
    return order.filter((id) => counts.has(id)).map((id) => [id, counts.get(id) / ids.length, "with corrections"]);
  },

  drawLegend() {
    const [rows, folds, shares] = [[], new Map(), this.shares()];
    const total = this.record.size ? this.record.size[0] * this.record.size[1] : 1;
    this.boxes.clear();
    shares.forEach(([id, share, sure]) => {
      const { name, colour, whole } = page.classes.get(id);
      const box = element("input", { type: "checkbox", checked: !this.hidden.has(id), onchange: () => this.toggle(id) });
      this.boxes.set(id, box);
      let row = element("label", {}, box, swatch(colour), element("span", { textContent: `${id} ${name}: ${percent(share)} of the image, ${sure}` }));
      if (shares.some(([part]) => page.classes.get(part).whole === id)) {
        row = element("details", { open: true }, element("summary", {}, row));
        folds.set(id, row);
      }
      if (folds.has(whole)) folds.get(whole).append(row);
      else rows.push(row);
    });
    if (this.record.ignored) rows.push(element("p", { textContent: `Ignored: ${percent(this.record.ignored / total)} of the image` }));
    byId("legend").replaceChildren(...(rows.length ? rows : [element("p", { textContent: "no class" })]));
  },

  drawMarks() {
    byId("marks").replaceChildren(
      ...MARKS.map((mark) =>
        element("button", { type: "button", textContent: mark, "aria-pressed": String(page.marks[this.record.image] === mark), onclick: () => this.mark(mark) }),
      ),
    );
  },

  /** List the most similar images, if the page was written with features. */
  drawAlike() {
    const found = (this.record.alike || []).map((place) => page.records[place]).filter((each) => each && each.key);
    byId("alike").hidden = !found.length;
    byId("neighbours").replaceChildren(...found.map((each) => exampleButton(each, describe(each))));
  },

  mark(mark) {
    const place = MARKS.indexOf(mark);
    const focused = byId("marks").contains(document.activeElement);
    setMark(this.record, mark);
    this.drawMarks();
    if (focused) byId("marks").children[place].focus();
  },

  /** Show or hide a class and its parts. */
  toggle(id) {
    const ids = [id];
    for (const each of ids) ids.push(...page.run.classes.filter((part) => part.whole === each).map((part) => part.id));
    const hide = !this.hidden.has(id);
    for (const each of ids) hide ? this.hidden.add(each) : this.hidden.delete(each);
    for (const [own, box] of this.boxes) box.checked = !this.hidden.has(own);
    this.draw();
  },

  setOpacity(value) {
    byId("opacity").value = String(Math.min(1, Math.max(0, value)));
    this.draw();
  },

  step(number) {
    const to = this.index + number;
    if (to >= 0 && to < page.shown.length) this.open(to);
  },

  /** Say something below the picture; true, so that a key counts as used. */
  say(text) {
    byId("hover").textContent = text;
    return true;
  },

  // ---- pointers and zoom ----

  down(event) {
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.pans = event.button === 1 || event.altKey || this.pointers.size > 1;
    this.start = this.objects && !this.pans ? this.placeOf(event) : null;
    this.startPointer = [event.clientX, event.clientY];
    event.preventDefault(); // a browser would drag the picture
  },

  move(event) {
    const before = [...this.pointers.values()];
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pans && before.length) {
      const now = [...this.pointers.values()];
      const middle = (places) => [0, 1].map((axis) => places.reduce((sum, each) => sum + each[axis], 0) / places.length);
      const apart = (places) => (places.length > 1 ? Math.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]) : 1);
      const [[fromX, fromY], [toX, toY]] = [middle(before), middle(now)];
      this.moveTo(this.zoom.scale, this.zoom.x + toX - fromX, this.zoom.y + toY - fromY);
      this.zoomTo((this.zoom.scale * apart(now)) / apart(before), [toX, toY]);
    }
    this.pointed = this.placeOf(event);
    this.say(this.pointed ? this.textAt(...this.pointed) : "");
    this.drawBox(event);
  },

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.pans = false;
    if (this.start) this.drop(event);
  },

  /** Change the scale, and keep what is at a place of the screen there; without a place, what is in the middle. */
  zoomTo(scale, place) {
    if (!this.record?.size) return;
    const frame = byId("stack").getBoundingClientRect();
    const most = Math.max(8, (4 * Math.max(...this.record.size)) / Math.min(frame.width, frame.height)); // a pixel becomes four
    const to = Math.min(most, Math.max(1, scale));
    const [x, y] = place ? [place[0] - frame.left, place[1] - frame.top] : [frame.width / 2, frame.height / 2];
    const factor = to / this.zoom.scale;
    this.moveTo(to, x - factor * (x - this.zoom.x), y - factor * (y - this.zoom.y));
  },

  moveTo(scale, x, y) {
    const frame = byId("stack").getBoundingClientRect();
    const inside = (value, side) => Math.min(0, Math.max(side * (1 - scale), value));
    this.zoom = { scale, x: inside(x, frame.width), y: inside(y, frame.height) };
    byId("zoomed").style.transform = scale === 1 ? "" : `translate(${this.zoom.x}px, ${this.zoom.y}px) scale(${scale})`;
    byId("zoomed").classList.toggle("near", scale > 2);
    if (scale > 1) this.loadOriginal();
  },

  /** Show the image's own pixels, if the browser reads the file where the run found it. The picture of the page is smaller. */
  loadOriginal() {
    const { key, size, path, shown } = this.record;
    if (this.near === key || !shown || location.protocol !== "file:" || byId("picture").naturalWidth >= size[1]) return;
    this.near = key;
    const image = new Image();
    image.onload = () => {
      const fits = image.naturalHeight === size[0] && image.naturalWidth === size[1];
      if (this.record?.key === key && fits) byId("picture").src = image.src;
    };
    const place = path.replaceAll("\\", "/");
    image.src = `file://${place.startsWith("/") ? "" : "/"}${encodeURI(place).replace(/[?#]/g, encodeURIComponent)}`;
  },

  /** The pixel (y, x) under the pointer; null outside the picture. */
  placeOf(event) {
    if (!this.ids) return null;
    const [height, width] = this.size;
    const frame = byId("overlay").getBoundingClientRect();
    const scale = Math.min(frame.width / width, frame.height / height);
    const x = Math.floor((event.clientX - frame.left - (frame.width - width * scale) / 2) / scale);
    const y = Math.floor((event.clientY - frame.top - (frame.height - height * scale) / 2) / scale);
    return x >= 0 && y >= 0 && x < width && y < height ? [y, x] : null;
  },

  textAt(y, x) {
    const at = y * this.size[1] + x;
    const id = this.ids[at];
    const known = page.classes.get(id);
    if (!this.showsOthers() && this.original[at] !== id) return `${known ? known.name : id === 0 ? "background" : "ignored"}, corrected`;
    const name = known ? known.name : id === 0 ? "background" : "ignored";
    if (this.showsOthers()) return name;
    if (this.record.confidences) return `${name}, confidence ${percent(this.confidences[at] / 255)}`;
    const mean = known ? confidenceOf(this.record, id) : id === 0 ? this.record.background[1] : null;
    return mean === null ? name : `${name}, mean confidence in this image ${percent(mean)}`;
  },

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = event.target.type !== "range";
    const actions = {
      ArrowLeft: () => arrows && (this.step(-1), true),
      ArrowRight: () => arrows && (this.step(1), true),
      "[": () => (this.setOpacity(Number(byId("opacity").value) - 0.1), true),
      "]": () => (this.setOpacity(Number(byId("opacity").value) + 0.1), true),
      o: () => (this.switchOverlay(), true),
      w: () => (this.mark("wrong"), true),
      g: () => (this.mark("good"), true),
      l: () => (this.mark("later"), true),
      u: () => this.undo(),
      x: () => (this.others ? this.switchLabels() : this.say("There are no other labels. Write the page with --labels to compare some.")),
      i: () => this.become(page.run.ignore) || this.say("Click a region first: i ignores it."),
      "+": () => (this.zoomTo(1.5 * this.zoom.scale), true),
      "=": () => (this.zoomTo(1.5 * this.zoom.scale), true),
      "-": () => (this.zoomTo(this.zoom.scale / 1.5), true),
      z: () => (this.moveTo(1, 0, 0), true),
    };
    const typed = event.target.tagName === "SELECT"; // digits choose an option there
    const done = /^[0-9]$/.test(event.key) ? !typed && this.digit(Number(event.key)) : Object.hasOwn(actions, event.key) && actions[event.key]();
    if (done) event.preventDefault();
  },

  /** Give the selected regions the class of this number, or show and hide that class. Say why if neither is possible. */
  digit(id) {
    if (id !== 0 && !page.classes.has(id)) return this.say(`The run has no class ${id}.`);
    if (this.selected.size) return this.become(id);
    if (id === 0) return this.say("Click a region first: 0 makes it background.");
    if (!this.boxes.has(id)) return this.say(`${page.classes.get(id).name} is not in this image.`);
    this.toggle(id);
    return true;
  },

  switchOverlay() {
    const now = Number(byId("opacity").value);
    if (now > 0) this.before = now;
    this.setOpacity(now > 0 ? 0 : this.before);
  },
};

byId("viewer").addEventListener("keydown", (event) => viewer.key(event));
byId("viewer").addEventListener("cancel", (event) => {
  if (!viewer.selected.size) return;
  event.preventDefault(); // Escape first drops the selection
  viewer.select([]);
});
byId("viewer").addEventListener("close", () => {
  viewer.record = viewer.ids = viewer.confidences = null;
  if (history.state?.opened) history.back();
  else notePlace();
  if (!byId("images").hidden) focusCell(viewer.index);
});
byId("stack").addEventListener("pointermove", (event) => viewer.move(event));
byId("stack").addEventListener("pointerdown", (event) => viewer.down(event));
byId("stack").addEventListener("wheel", (event) => {
  event.preventDefault();
  viewer.zoomTo(viewer.zoom.scale * Math.exp(-event.deltaY / 300), [event.clientX, event.clientY]);
}, { passive: false });
for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, (event) => viewer.up(event));
byId("becomes").addEventListener("change", () => viewer.become(Number(byId("becomes").value)));
byId("others").addEventListener("change", () => viewer.applyCorrections());
byId("undo").addEventListener("click", () => viewer.undo());
byId("close").addEventListener("click", () => byId("viewer").close());
byId("previous").addEventListener("click", () => viewer.step(-1));
byId("next").addEventListener("click", () => viewer.step(1));
byId("opacity").addEventListener("input", () => viewer.draw());
byId("outlines").addEventListener("change", () => viewer.draw());

"use strict";
// The image viewer: the picture, its labels and visible classes, and the label under the pointer.

const viewer = {
  index: -1,
  record: null,
  ids: null, // Uint32Array of h * w, the label id of each pixel that is shown, with the changes
  base: null, // the same without strokes
  original: null, // the same without changes
  owners: null, // Uint16Array of h * w, the number of the stroke at each pixel from 1, or 0
  objects: null, // Uint32Array of h * w, the number of the region at each pixel: an object, or above record.objects a region of
  // background or of ignored pixels; null if the labels cannot be changed
  others: null, // Uint32Array of h * w, other label ids; null if there are none
  box: null, // the box of a finding to show: x, y, w, h in pixels of the image
  selected: new Set(), // numbers of regions; -n is stroke n
  places: [], // of the names, see namePlaces
  boxes: new Map(), // the checkbox of each class in the legend
  zoom: { scale: 1, x: 0, y: 0 }, // in pixels of the screen
  near: "", // the key of the image whose own pixels are loaded
  pointers: new Map(), // the place of each pointer that is down
  pans: false, // whether the pointer moves the picture
  pointed: null, // y, x under the pointer
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
    tools.leave();
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
    byId("stack").style.aspectRatio = record.size ? `${record.size[1]} / ${record.size[0]}` : "";
    byId("picture").hidden = !record.key;
    byId("picture").alt = `${record.image}, ${record.classes.map((each) => page.classes.get(each[0]).name).join(", ") || "no class"}`;
    if (record.key) {
      byId("picture").src = address("pictures", record.key, ".jpg");
      this.load(record);
    }
    byId("previous").disabled = index <= 0;
    byId("next").disabled = index >= page.shown.length - 1;
    this.drawLegend();
    this.showChanges();
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

  async load(record) {
    try {
      const { size, maps: found } = await maps.load(record);
      if (this.record !== record) return; // the viewer was closed, or shows another image
      this.size = size;
      [this.original, this.objects, this.others, this.confidences] = found;
      this.applyChanges();
    } catch (error) {
      if (this.record === record) this.say(error.message);
    }
  },

  /** Whether the other labels are shown instead of the run's. */
  showsOthers() {
    return Boolean(this.others) && byId("others").checked;
  },

  switchLabels() {
    byId("others").checked = !byId("others").checked;
    tools.cancel();
    this.applyChanges();
    return true;
  },

  /** List the findings of tipsseg audit; a click shows where. */
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

  /** Show the labels with the changes of this image, or the other labels. */
  applyChanges() {
    if (!this.original) return; // the map is still loading
    byId("compare").hidden = !this.others;
    this.base = this.ids = this.original;
    this.owners = new Uint16Array(this.original.length);
    if (this.objects) Object.assign(this, applyChanges(changes.of(this.record), [this.original, this.objects], this.size, this.record.size));
    if (this.objects) changes.note(this.record, countShares(this.ids));
    if (this.showsOthers()) this.ids = this.others;
    this.places = namePlaces(this.ids, this.size);
    if (this.pointed) this.say(this.textAt(...this.pointed));
    this.showChanges();
    this.drawLegend();
    this.draw();
  },

  /** Add a step to the changes of this image, and show it wherever its labels are shown. */
  change(step) {
    changes.add(this.record, step);
    this.follow();
    return true;
  },

  /** Show what the kept changes of this image are now. */
  follow() {
    this.applyChanges();
    refresh();
  },

  /** Say what is changed. */
  showChanges() {
    const [found, lost] = [changes.content(), changes.lost()];
    byId("corrected").textContent = changes.text(found, lost);
    byId("save-corrections").disabled = !found.length;
    byId("forget").hidden = !lost.length;
    if (!this.record) return;
    const { path, size, reason, key, shown } = this.record;
    const parts = [path, describe(this.record)];
    if (size) parts.push(`${size[1]} x ${size[0]} pixels`);
    if (reason) parts.push(reason);
    if (key && !shown) parts.push("The image is missing or has changed: only its labels are shown.");
    byId("facts").replaceChildren(...parts.flatMap((part) => [part, element("br")]));
    tools.show();
  },

  /** The number of what is at a pixel and can be selected: of a region, or minus that of a stroke. */
  numberAt(at) {
    return this.owners[at] ? -this.owners[at] : this.objects[at];
  },

  select(numbers) {
    this.selected = new Set(numbers);
    if (!this.ids) return;
    tools.show();
    this.draw();
  },

  /** Give the selected regions and strokes another label id. */
  become(id) {
    if (!this.selected.size || !(id === 0 || id === page.run.ignore || page.classes.has(id))) return false;
    const now = new Map(); // the class of each selected number
    this.ids.forEach((own, at) => this.selected.has(this.numberAt(at)) && now.set(this.numberAt(at), own));
    const deleted = new Set(now.values());
    const wholeOf = (own) => page.classes.get(own)?.whole || 0;
    const ids = {};
    for (const [number, own] of now) {
      let whole = id === 0 ? wholeOf(own) : id; // a part that is deleted becomes its whole, unless that is deleted too
      while (id === 0 && whole && deleted.has(whole)) whole = wholeOf(whole);
      ids[number] = whole;
    }
    this.selected = new Set();
    return now.size ? this.change({ ids }) : true;
  },

  undo() {
    if (tools.dropLast()) return true;
    if (!changes.kept(this.record).steps.length) return this.say("Nothing to undo.");
    changes.undo(this.record);
    this.follow();
    return true;
  },

  redo() {
    if (!changes.kept(this.record).undone.length) return this.say("Nothing to redo.");
    changes.redo(this.record);
    this.follow();
    return true;
  },

  draw() {
    if (!this.ids) return;
    const alpha = Math.round(255 * Number(byId("opacity").value));
    const lines = byId("outlines").checked && alpha > 0;
    const isSelected = this.selected.size ? (at) => this.selected.has(this.numberAt(at)) : null;
    paintLabels(byId("overlay"), this.ids, this.size, { alpha, lines, hidden: this.hidden, isSelected });
    const context = byId("overlay").getContext("2d");
    if (lines && !this.showsOthers()) paintNames(context, this.places, this.size, this.hidden);
    if (this.box) {
      const scale = this.size[1] / this.record.size[1];
      context.strokeStyle = "#fd0";
      context.lineWidth = 3;
      context.strokeRect(...this.box.map((side) => side * scale));
    }
  },

  drawLegend() {
    const { classes, ignored } = changes.now(this.record);
    const order = [...page.classes.keys()]; // parts come after their whole
    classes.sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
    const total = this.record.size ? this.record.size[0] * this.record.size[1] : 1;
    const changed = changes.count(this.record) > 0;
    const about = changed && this.size[1] < this.record.size[1] ? "about " : "";
    const [rows, folds] = [[], new Map()];
    this.boxes.clear();
    for (const [id, pixels, confidence] of classes) {
      const { name, colour, whole } = page.classes.get(id);
      const box = element("input", { type: "checkbox", checked: !this.hidden.has(id), onchange: () => this.toggle(id) });
      this.boxes.set(id, box);
      const sure = changed ? "" : `, confidence ${percent(confidence)}`;
      let row = element("label", {}, box, swatch(colour), element("span", { textContent: `${id} ${name}: ${about}${percent(pixels / total)} of the image${sure}` }));
      if (classes.some(([part]) => page.classes.get(part).whole === id)) {
        row = element("details", { open: true }, element("summary", {}, row));
        folds.set(id, row);
      }
      if (folds.has(whole)) folds.get(whole).append(row);
      else rows.push(row);
    }
    if (ignored) rows.push(element("p", { textContent: `Ignored: ${about}${percent(ignored / total)} of the image` }));
    byId("legend").replaceChildren(...(rows.length ? rows : [element("p", { textContent: "no class" })]));
  },

  drawMarks() {
    byId("marks").replaceChildren(
      ...MARKS.map((mark) =>
        element("button", { type: "button", textContent: mark, "aria-pressed": String(changes.mark(this.record) === mark), onclick: () => this.mark(mark) }),
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
    changes.setMark(this.record, mark);
    this.drawMarks();
    this.showChanges();
    refresh();
    writeList();
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
    if (event.isTrusted) byId("stack").setPointerCapture(event.pointerId); // a stroke goes on outside of the picture
    event.preventDefault(); // a browser would drag the picture
    if (this.pans) tools.cancel();
    else tools.down(event);
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
    if (!this.pans) tools.move(event);
  },

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (!this.pans) event.type === "pointerup" ? tools.up(event) : tools.cancel();
    if (!this.pointers.size) this.pans = false;
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

  /** The place of the pointer (y, x) on the map, and pixels of the screen for each of the map. */
  onMap(event) {
    const frame = byId("overlay").getBoundingClientRect();
    const scale = Math.min(frame.width / this.size[1], frame.height / this.size[0]);
    const [y, x] = [event.clientY - frame.top - frame.height / 2, event.clientX - frame.left - frame.width / 2];
    return [y / scale + this.size[0] / 2, x / scale + this.size[1] / 2, scale];
  },

  /** The pixel (y, x) of the map under the pointer; null outside the picture. */
  placeOf(event) {
    if (!this.ids) return null;
    const [y, x] = this.onMap(event).map(Math.floor);
    return x >= 0 && y >= 0 && x < this.size[1] && y < this.size[0] ? [y, x] : null;
  },

  /** The place (y, x) of the pointer in pixels of the image, in it or at most its size outside, to a hundredth. */
  pointOf(event) {
    return this.onMap(event).slice(0, 2).map((value, axis) => {
      const side = this.record.size[axis];
      return Number(Math.min(2 * side, Math.max(-side, (value * side) / this.size[axis])).toFixed(2));
    });
  },

  /** Pixels of the screen for each pixel of the image. */
  pixelsPerPixel() {
    return (this.onMap({ clientX: 0, clientY: 0 })[2] * this.size[1]) / this.record.size[1];
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
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const actions = event.ctrlKey || event.metaKey ? this.commands(event.shiftKey) : event.altKey ? {} : this.keys(event.target);
    const typed = event.target.tagName === "SELECT"; // digits choose an option there
    const isDigit = /^[0-9]$/.test(key) && !event.ctrlKey && !event.metaKey && !event.altKey;
    const done = isDigit ? !typed && this.digit(Number(key)) : Object.hasOwn(actions, key) && actions[key]();
    if (done) event.preventDefault();
  },

  /** What keys do with Ctrl or Cmd. */
  commands: (shift) => ({ z: () => (shift ? viewer.redo() : viewer.undo()), y: () => viewer.redo() }),

  /** What keys do. */
  keys(target) {
    const moves = target.type !== "range"; // arrows change its value
    const opacity = (change) => (this.setOpacity(Number(byId("opacity").value) + change), true);
    return {
      ArrowLeft: () => moves && (this.step(-1), true),
      ArrowRight: () => moves && (this.step(1), true),
      n: () => (this.step(1), true),
      ",": () => opacity(-0.1),
      ".": () => opacity(0.1),
      "[": () => tools.resize(0.8),
      "]": () => tools.resize(1.25),
      ...Object.fromEntries(Object.entries(TOOLS).map(([tool, key]) => [key, () => !byId("tools").hidden && tools.choose(tool)])),
      Enter: () => tools.finish(),
      Escape: () => tools.cancel(),
      o: () => (this.switchOverlay(), true),
      w: () => (this.mark("wrong"), true),
      g: () => (this.mark("good"), true),
      l: () => (this.mark("later"), true),
      u: () => this.undo(),
      r: () => this.redo(),
      x: () => (this.others ? this.switchLabels() : this.say("There are no other labels. Write the page with --labels to compare some.")),
      i: () => tools.setLabel(page.run.ignore) || this.say("Click a region first: i ignores it."),
      "+": () => (this.zoomTo(1.5 * this.zoom.scale), true),
      "=": () => (this.zoomTo(1.5 * this.zoom.scale), true),
      "-": () => (this.zoomTo(this.zoom.scale / 1.5), true),
      z: () => (this.moveTo(1, 0, 0), true),
    };
  },

  /** Draw the class of this number, give it to the selected regions, or show and hide it. Say why if none is possible. */
  digit(id) {
    if (id !== 0 && !page.classes.has(id)) return this.say(`The run has no class ${id}.`);
    if (tools.tool !== "select" || this.selected.size) return tools.setLabel(id);
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

document.addEventListener("keydown", (event) => byId("viewer").open && viewer.key(event)); // a field that is disabled loses the focus
byId("viewer").addEventListener("cancel", (event) => {
  if (tools.cancel()) event.preventDefault(); // Escape first drops what is drawn or selected
});
byId("viewer").addEventListener("close", () => {
  tools.leave();
  viewer.record = viewer.ids = viewer.original = viewer.confidences = null;
  refresh(); // the image that was open may be hidden by the filters now
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
byId("others").addEventListener("change", () => viewer.applyChanges());
byId("undo").addEventListener("click", () => viewer.undo());
byId("redo").addEventListener("click", () => viewer.redo());
byId("close").addEventListener("click", () => byId("viewer").close());
byId("previous").addEventListener("click", () => viewer.step(-1));
byId("next").addEventListener("click", () => viewer.step(1));
byId("opacity").addEventListener("input", () => viewer.draw());
byId("outlines").addEventListener("change", () => viewer.draw());

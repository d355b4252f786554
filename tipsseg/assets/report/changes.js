"use strict";
// What a person changes on the page: the classes of regions, strokes, and marks. The browser keeps it; a file takes it to `tipsseg correct`.

const MARKS = ["wrong", "good", "later"];

/** As `POINTS_MAX` in commands/correct/strokes.py. */
const POINTS_MAX = 50000;

/** JSON values in localStorage, which pages from the disk may share; in memory if the browser stores nothing for them. */
const storage = {
  values: new Map(), // by key without the prefix
  works: true,

  prefix: () => `tipsseg ${page.run.digest} ${page.run.name} `,

  read() {
    this.values.clear();
    try {
      for (const key of Object.keys(localStorage)) {
        if (key.startsWith(this.prefix())) this.update(key, localStorage.getItem(key));
        else if (key.startsWith("tipsseg ")) this.forget(key);
      }
      localStorage.setItem(`${this.prefix()}works`, "1");
      localStorage.removeItem(`${this.prefix()}works`);
    } catch {
      this.works = false;
    }
  },

  /** Make room: remove what was saved a month ago in another page. */
  forget(key) {
    const { saved, open } = JSON.parse(localStorage.getItem(key)) || {};
    if (saved < Date.now() - 30 * 24 * 3600 * 1000 && !open) localStorage.removeItem(key);
  },

  /** Take a text that is in the storage now. */
  update(key, text) {
    const own = key.slice(this.prefix().length);
    this.values.delete(own);
    try {
      if (text !== null) this.values.set(own, JSON.parse(text));
    } catch {
      // Not a value of the page.
    }
  },

  /** Change a value: a function of the one that is in the storage now, since another tab may have changed it. Undefined removes it. */
  change(key, make) {
    try {
      if (this.works) this.update(this.prefix() + key, localStorage.getItem(this.prefix() + key));
    } catch {
      this.works = false;
    }
    const value = make(this.values.get(key));
    if (value === undefined) this.values.delete(key);
    else this.values.set(key, value);
    try {
      if (value === undefined) localStorage.removeItem(this.prefix() + key);
      else localStorage.setItem(this.prefix() + key, JSON.stringify(value));
    } catch {
      this.works = false; // full, or not allowed
    }
  },
};

const changes = {
  file: "", // the last one that was saved

  /** A mask is named by its digest and its image: images may have equal masks. */
  keyOf: (record) => `${record.labels} ${record.image}`,

  /**
   * What is kept of an image: steps, those that were undone, and shares of labels after them; when a file was saved that has it, and
   * whether it changed since.
   */
  kept: (record) => storage.values.get(changes.keyOf(record)) || { steps: [], undone: [] },

  /** The number of steps, to tell whether something drawn is up to date. */
  version: (record) => JSON.stringify(changes.kept(record).steps).length,

  /** The new label of each changed region by its number, and the strokes above them. */
  of(record) {
    const [objects, strokes] = [{}, []];
    for (const { ids, stroke } of this.kept(record).steps) {
      if (stroke) strokes.push(stroke);
      for (const [number, id] of Object.entries(ids || {})) {
        if (number > 0) objects[number] = id;
        else strokes[-number - 1] = { ...strokes[-number - 1], label: id }; // a stroke that got another label
      }
    }
    return { objects, strokes };
  },

  count(record) {
    const { objects, strokes } = this.of(record);
    return Object.keys(objects).length + strokes.length;
  },

  /** Change what is kept of an image; forget it if nothing is left, unless a saved file had something. */
  edit(record, make) {
    storage.change(this.keyOf(record), (kept = { steps: [], undone: [] }) => {
      const now = { ...kept, open: true, ...make(kept) };
      return now.steps.length || now.undone.length || now.saved ? now : undefined;
    });
  },

  add(record, step) {
    this.edit(record, ({ steps }) => ({ steps: [...steps, step], undone: [] }));
  },

  undo(record) {
    this.edit(record, ({ steps, undone }) => ({ steps: steps.slice(0, -1), undone: [...undone, ...steps.slice(-1)] }));
  },

  redo(record) {
    this.edit(record, ({ steps, undone }) => ({ steps: [...steps, ...undone.slice(-1)], undone: undone.slice(0, -1) }));
  },

  /** Keep the shares of labels after the changes of an image, for the grid and the statistics. */
  note(record, shares) {
    const kept = this.kept(record);
    const now = kept.steps.length ? shares : undefined;
    if (JSON.stringify(kept.shares) !== JSON.stringify(now)) this.edit(record, ({ open }) => ({ shares: now, open }));
  },

  /** A record with the numbers of its labels after the changes; about those, where the map is smaller than the image. */
  now(record) {
    const { shares } = this.kept(record);
    if (!shares) return record;
    const pixels = (id) => Math.round((shares[id] || 0) * record.size[0] * record.size[1]);
    const confidences = new Map(record.classes.map(([id, , confidence]) => [id, confidence]));
    const classes = page.run.classes.filter(({ id }) => shares[id]).map(({ id }) => [id, pixels(id), confidences.get(id) ?? null]);
    return { ...record, classes, background: [pixels(0), record.background[1]], ignored: pixels(page.run.ignore) };
  },

  // ---- marks ----

  /** The mark of an image. "good" is said of the labels that are shown: other labels have it only if the folder says so. */
  mark(record) {
    const { mark, labels } = storage.values.get(`mark ${record.image}`) || {};
    if (mark && (mark !== "good" || labels === record.labels)) return mark;
    return record.good && !(mark === "" && labels === record.labels) ? "good" : undefined;
  },

  setMark(record, mark) {
    const now = this.mark(record) === mark ? "" : mark;
    storage.change(`mark ${record.image}`, () => (now || record.good ? { mark: now, labels: record.labels } : undefined));
  },

  // ---- the file ----

  /** What the file has of the images: the changes of the masks that this page shows, and whether a person accepts them. */
  content() {
    const records = page.records.filter((record) => record.labels);
    const changed = records.filter((record) => this.kept(record).saved || this.count(record) || (!record.good && this.mark(record) === "good"));
    return changed.map((record) => {
      const { objects, strokes } = this.of(record);
      return {
        image: record.image,
        labels: record.labels,
        objects: Object.entries(objects).map(([number, id]) => ({ object: Number(number), ...this.meaning(id) })),
        strokes: strokes.map(({ label, radius, points }) => ({ ...this.meaning(label), ...(radius === undefined ? { lasso: true } : { radius }), points })),
        ...(this.mark(record) === "good" ? { good: true } : {}),
      };
    });
  },

  meaning(id) {
    if (id === ERASE) return { erase: true };
    if (id === page.run.ignore) return { ignore: true };
    return { class: id === 0 ? null : page.classes.get(id).name };
  },

  text() {
    const found = this.content();
    const sum = (count) => found.reduce((all, each) => all + count(each), 0);
    const [objects, strokes, lost] = [sum((each) => each.objects.length), sum((each) => each.strokes.length), this.lost()];
    const changed = found.filter((each) => each.objects.length || each.strokes.length).length;
    const good = found.filter((each) => each.good).length;
    const parts = [objects && plural(objects, "object"), strokes && plural(strokes, "stroke")].filter(Boolean);
    const sentences = [
      changed ? `${parts.join(" and ")} in ${plural(changed, "image")} changed` : "",
      good ? `${plural(good, "image")} marked good` : "",
      !changed && !good ? (found.length ? "All changes undone: save again to undo them in the folder" : "Nothing changed") : "",
      lost ? `Changes of ${plural(lost, "image")} are not shown: they were made on older labels, and never saved` : "",
      storage.works ? "" : "This browser does not store changes for local pages: save them before you close the page",
    ];
    return sentences.filter(Boolean).join(". ");
  },

  /** The number of images that were changed, but never saved, on labels that this page does not show any more. */
  lost() {
    const open = [...storage.values].filter(([, value]) => value.steps?.length && value.open);
    if (!page.complete || !open.length) return 0;
    const shown = new Set(page.records.map((record) => this.keyOf(record)));
    return open.filter(([key]) => !shown.has(key)).length;
  },

  isSaved: () => !changes.content().length || JSON.stringify(changes.content()) === changes.file,

  save() {
    for (const record of page.records) if (this.count(record) || this.kept(record).saved) this.edit(record, () => ({ saved: Date.now(), open: false }));
    const content = this.content();
    this.file = JSON.stringify(content);
    saveFile("corrections.json", JSON.stringify({ tool: "tipsseg", corrections: content }));
  },
};

byId("save-corrections").addEventListener("click", () => {
  changes.save();
  viewer.showChanges();
});
window.addEventListener("storage", ({ key, newValue }) => {
  if (key === null) storage.read();
  else if (page.run && key.startsWith(storage.prefix())) storage.update(key, newValue);
  else return;
  if (!tools.points.length) viewer.applyChanges();
  refresh();
});
window.addEventListener("beforeunload", (event) => {
  if (page.run && !storage.works && !changes.isSaved()) event.preventDefault();
});

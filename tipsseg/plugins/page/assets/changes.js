"use strict";
// What a person changes on the page: the classes of regions, strokes, and marks. The browser keeps it; a file takes it to `tipsseg correct`.

const MARKS = ["wrong", "good", "later"];

/** As `POINTS_MAX` in commands/correct/strokes.py. */
const POINTS_MAX = 50000;
const AREAS_MAX = 500;

/** JSON values in localStorage, which pages from the disk may share; in memory if the browser stores nothing for them. */
const storage = {
  values: new Map(), // by key without the prefix
  works: true,
  browser: Math.random().toString(36).slice(2, 12), // a name for this browser, so that an import knows whose file came before

  prefix: () => `tipsseg ${JSON.stringify([page.run.digest, page.run.name])} `,

  read() {
    this.values.clear();
    try {
      localStorage.setItem("tipsseg-browser", (this.browser = localStorage.getItem("tipsseg-browser") || this.browser));
      for (const key of Object.keys(localStorage)) if (key.startsWith(this.prefix())) this.update(key, localStorage.getItem(key));
    } catch {
      this.works = false;
    }
  },

  /** Take a text that is in the storage now; one that is no value of the page counts as nothing. */
  update(key, text) {
    try {
      const value = JSON.parse(text);
      const stepsAre = (fits) => [value.steps, value.undone].every((steps) => Array.isArray(steps) && steps.every(fits));
      if (typeof value.mark === "string" || stepsAre(({ ids, stroke }) => ids || Array.isArray(stroke.points))) this.values.set(key.slice(this.prefix().length), value);
    } catch {
      // Not JSON, or nothing.
    }
  },

  /** Change a value: a function of the one that is in the storage now, since another tab may have changed it. */
  change(key, make) {
    try {
      if (this.works) this.update(this.prefix() + key, localStorage.getItem(this.prefix() + key));
      this.values.set(key, make(this.values.get(key)));
      localStorage.setItem(this.prefix() + key, JSON.stringify(this.values.get(key)));
    } catch {
      if (this.works) this.values.set(key, make(this.values.get(key)));
      this.works = false; // full, or not allowed
    }
  },

  forget(keys) {
    for (const key of keys) {
      this.values.delete(key);
      if (this.works) localStorage.removeItem(this.prefix() + key);
    }
  },
};

const NO_CHANGES = { steps: [], undone: [] };

const changes = {
  file: "", // the content that was saved last

  /** A mask is named by its digest and its image: images may have equal masks. */
  keyOf: (record) => `${record.labels} ${record.image}`,

  /**
   * What is kept of an image: steps, those that were undone, and shares of labels after them; when a file was saved that has it,
   * whether that says that it is good, and whether it changed since. Once the folder has it, it is no change of the page any more,
   * also if the labels are the same again.
   */
  kept(record) {
    const found = storage.values.get(this.keyOf(record));
    return found && !this.isImported(found, record) ? found : NO_CHANGES;
  },

  isImported({ saved, open }, record) {
    const [browser, time] = (record?.imported || "").split(" ");
    return Boolean(saved) && !open && browser === storage.browser && Number(time) >= saved;
  },

  /** A text that tells whether something drawn is up to date. */
  version: (record) => JSON.stringify(changes.kept(record).steps),

  /** The new label of each changed region by its number, and the strokes above them. */
  of(record) {
    const [objects, strokes] = [{}, []];
    for (const { ids, stroke } of this.kept(record).steps) {
      if (stroke) strokes.push(stroke);
      for (const [number, id] of Object.entries(ids || {})) {
        if (number > 0) objects[number] = id;
        else if (strokes[-number - 1]) strokes[-number - 1] = { ...strokes[-number - 1], label: id }; // a stroke that got another label
      }
    }
    return { objects, strokes };
  },

  count(record) {
    const { objects, strokes } = this.of(record);
    return Object.keys(objects).length + strokes.length;
  },

  /** Change what is kept of an image. */
  edit(record, make) {
    storage.change(this.keyOf(record), (found = NO_CHANGES) => {
      const kept = this.isImported(found, record) ? NO_CHANGES : found;
      return { ...kept, open: true, ...make(kept) };
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
    const classes = page.run.classes.filter(({ id }) => shares[id]).map(({ id }) => [id, pixels(id), confidences.get(id) ?? 1]);
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
    storage.change(`mark ${record.image}`, () => ({ mark: now, labels: record.labels }));
  },

  // ---- the file ----

  /** What the file has of the images: the changes of the masks that this page shows, and whether a person accepts them. */
  content() {
    const isGood = (record) => this.mark(record) === "good";
    const records = page.records.filter((record) => record.labels && (this.kept(record).saved || this.count(record) || isGood(record) !== Boolean(record.good)));
    return records.map((record) => {
      const { objects, strokes } = this.of(record);
      return {
        image: record.image,
        labels: record.labels,
        ...(record.picture ? { picture: record.picture } : {}),
        objects: Object.entries(objects).map(([number, id]) => ({ object: Number(number), ...this.meaning(id) })),
        strokes: strokes.map(({ label, radius, points }) => ({ ...this.meaning(label), ...(radius === undefined ? { lasso: true } : { radius }), points })),
        ...(isGood(record) || record.good || this.kept(record).good ? { good: isGood(record) } : {}),
      };
    });
  },

  meaning(id) {
    if (id === ERASE) return { erase: true };
    if (id === page.run.ignore) return { ignore: true };
    return { class: id === 0 ? null : page.classes.get(id).name };
  },

  text(found = this.content(), lost = this.lost()) {
    const sum = (count) => found.reduce((all, each) => all + count(each), 0);
    const [regions, strokes] = [sum((each) => each.objects.length), sum((each) => each.strokes.length)];
    const changed = found.filter((each) => each.objects.length || each.strokes.length).length;
    const [good, unmarked] = [true, false].map((mark) => found.filter((each) => each.good === mark).length);
    const parts = [regions && plural(regions, "region"), strokes && plural(strokes, "stroke")].filter(Boolean);
    const undone = found.length && !changed && !good && !unmarked;
    const sentences = [
      changed ? `${parts.join(" and ")} in ${plural(changed, "image")} changed` : "",
      good ? `${plural(good, "image")} marked good` : "",
      unmarked ? `${plural(unmarked, "image")} not good any more` : "",
      undone ? "You undid all that the saved file had: save again, and import the new file to undo it in the folder" : "",
      found.length ? "" : "Nothing changed",
      lost.length ? `Your changes of ${lost.slice(0, 3).map((key) => key.slice(key.indexOf(" ") + 1)).join(", ")}${lost.length > 3 ? ` and ${lost.length - 3} more` : ""} are not shown, as the labels changed since` : "",
      storage.works ? "" : "This browser does not store changes for local pages: save them before you close the page",
    ];
    return sentences.filter(Boolean).join(". ");
  },

  /** The keys of changes on labels that this page does not show any more, and that the folder does not have. */
  lost() {
    const open = page.complete ? [...storage.values].filter(([, value]) => value.steps?.length) : [];
    if (!open.length) return [];
    const records = new Map(page.records.map((record) => [record.image, record]));
    return open.map(([key, value]) => [key, value, records.get(key.slice(key.indexOf(" ") + 1))])
      .filter(([key, value, record]) => !(record && this.keyOf(record) === key) && !this.isImported(value, record)).map(([key]) => key);
  },

  /** Make room: forget what was saved a month ago, of labels that this page does not show any more. */
  tidy() {
    const shown = new Set(page.records.map((record) => this.keyOf(record)));
    const old = ([key, { saved, open }]) => saved < Date.now() - 30 * 24 * 3600 * 1000 && !open && !shown.has(key);
    storage.forget([...storage.values].filter(old).map(([key]) => key));
  },

  isSaved: () => ["[]", changes.file].includes(JSON.stringify(changes.content())),

  save() {
    const [content, saved] = [this.content(), Date.now()];
    const good = new Map(content.map((each) => [each.image, each.good]));
    for (const record of page.records) if (good.has(record.image)) this.edit(record, (kept) => ({ saved: kept.open === false ? kept.saved : saved, open: false, good: good.get(record.image) }));
    this.file = JSON.stringify(content);
    const name = `corrections-${stampOf(saved)}.json`;
    saveFile(name, JSON.stringify({ tool: "tipsseg", browser: storage.browser, saved, corrections: content }));
    byId("saved").textContent = `Saved at ${new Date(saved).toLocaleTimeString()}. Now run:`;
    byId("import").textContent = `tipsseg correct ${shellWord(page.run.name)} --from "$HOME/Downloads/${name}"\n${page.run.command}`;
    byId("importing").hidden = false;
  },
};

/** A time as names of files have it, such as 20261202-071245, in the time of the place. */
function stampOf(time) {
  const [at, two] = [new Date(time), (number) => String(number).padStart(2, "0")];
  return `${at.getFullYear()}${two(at.getMonth() + 1)}${two(at.getDate())}-${two(at.getHours())}${two(at.getMinutes())}${two(at.getSeconds())}`;
}

byId("save-corrections").addEventListener("click", () => {
  changes.save();
  viewer.showChanges();
});
byId("forget").addEventListener("click", () => {
  storage.forget(changes.lost());
  viewer.showChanges();
});
window.addEventListener("storage", ({ key, newValue }) => {
  if (!page.run || !storage.works || !key?.startsWith(storage.prefix()) || newValue === null) return;
  storage.update(key, newValue);
  if (!tools.points.length) viewer.applyChanges();
  refresh();
});
window.addEventListener("beforeunload", (event) => {
  if (page.run && !storage.works && !changes.isSaved()) event.preventDefault();
});

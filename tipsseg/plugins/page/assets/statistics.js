"use strict";
// Class statistics over all images, classes in no image, and the confusion matrix if the truth is known.

const BINS = 10;
const EXAMPLES = 3;
const WORST = 24;

/** Create a button with a thumbnail that opens the image. */
function exampleButton(record, what) {
  const text = `${record.image}: ${what}`;
  const view = element("img", { src: address("thumbnails", record.key, ".jpg"), alt: "", loading: "lazy" });
  return element("button", { type: "button", title: text, "aria-label": text, onclick: () => viewer.openRecord(record) }, view);
}

const statistics = {
  prepare() {
    const button = document.querySelector('nav [data-view="truth"]');
    button.hidden = !page.run.truth;
    if (page.run.doubted) byId("order").append(element("option", { value: "doubt", textContent: "likely errors in labels" }));
    if (page.run.scored) byId("order").append(element("option", { value: "truth", textContent: "lowest accuracy" }));
    byId("classes").replaceChildren(element("p", { textContent: "Loading the images." }));
  },

  draw() {
    const all = this.count();
    const found = page.run.classes.filter((each) => all.get(each.id).images.length);
    const never = page.run.classes.filter((each) => !all.get(each.id).images.length);
    const heads = ["Class", "Images", "Share of all pixels", "Confidence", "Images by mean confidence", "Lowest confidence", "Highest confidence"];
    const head = element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text, className: /est confidence$/.test(text) ? "left" : "" }))));
    const body = element("tbody", {}, ...found.map((each) => this.row(each, all.get(each.id))));
    const caption = element("caption", { textContent: "Classes. Confidence is the mean over all pixels of the class; those that a person drew count as certain" });
    const names = never.length ? never.map((each) => each.name).join(", ") : "none";
    byId("classes").replaceChildren(
      element("h2", { textContent: "Run" }),
      element("ul", { id: "summary" }, ...(page.run.summary || []).map((text) => element("li", { textContent: text }))),
      element("h2", { textContent: "Classes" }),
      element("table", {}, caption, head, body),
      element("h2", { textContent: "Classes in no image" }),
      element("p", { id: "never", textContent: names }),
    );
    if (page.run.truth) this.drawTruth(page.run.truth);
  },

  /** Sum up images, pixels, confidence and a histogram of images for each class, and the pixels of all images. */
  count() {
    const all = new Map(page.run.classes.map((each) => [each.id, { images: [], pixels: 0, sum: 0, bins: new Array(BINS).fill(0) }]));
    this.pixels = 0;
    for (const record of page.records) {
      if (record.size) this.pixels += record.size[0] * record.size[1];
      for (const [id, pixels, confidence] of changes.now(record).classes) {
        const of = all.get(id);
        if (!of) continue;
        of.images.push([confidence, record]);
        of.pixels += pixels;
        of.sum += pixels * confidence;
        of.bins[Math.min(BINS - 1, Math.floor(confidence * BINS))]++;
      }
    }
    return all;
  },

  row(known, of) {
    of.images.sort((a, b) => a[0] - b[0]);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, swatch(known.colour), known.name),
      element("td", { textContent: String(of.images.length) }),
      element("td", { textContent: `${((100 * of.pixels) / this.pixels).toFixed(2)} %` }),
      element("td", { textContent: percent(of.sum / of.pixels) }),
      element("td", {}, this.bars(of.bins)),
      element("td", {}, this.examples(of.images.slice(0, EXAMPLES))),
      element("td", {}, this.examples(of.images.slice(-EXAMPLES).reverse())),
    );
  },

  bars(bins) {
    const most = Math.max(...bins);
    const text = bins.map((number, index) => `${index / BINS} to ${(index + 1) / BINS}: ${number}`).join("; ");
    return element(
      "span",
      { className: "bars", role: "img", title: text, "aria-label": text },
      ...bins.map((number) => {
        const bar = element("i");
        bar.style.height = `${(100 * number) / most}%`;
        return bar;
      }),
    );
  },

  examples(images) {
    const buttons = images.map(([confidence, record]) => exampleButton(record, `confidence ${percent(confidence)}`));
    return element("div", { className: "examples" }, ...buttons);
  },

  drawTruth({ mean_iou: mean, pixel_accuracy: accuracy, classes, confusion: { columns, counts } }) {
    const head = element(
      "thead",
      {},
      element("tr", {}, ...["Ground truth", "IoU", ...columns].map((text) => element("th", { scope: "col", textContent: text }))),
    );
    const body = classes.map((each, place) => {
      const total = counts[place].reduce((sum, number) => sum + number, 0);
      const cells = counts[place].map((number) => {
        const share = total ? number / total : 0;
        const cell = element("td", { className: "share", title: `${number} pixels`, textContent: share >= 0.005 ? percent(share) : "" });
        cell.style.setProperty("--share", String(share));
        return cell;
      });
      const score = element("td", { textContent: each.iou === null ? "" : percent(each.iou) });
      return element("tr", {}, element("th", { scope: "row", textContent: each.name }), score, ...cells);
    });
    const caption = element("caption", { textContent: "Each row shows how one ground-truth class was labelled. Cells below half a percent are empty" });
    byId("truth").replaceChildren(
      element("p", { textContent: `Mean IoU ${percent(mean)}, pixel accuracy ${percent(accuracy)}` }),
      ...this.worst(),
      element("h2", { textContent: "Classes" }),
      element("table", {}, caption, head, element("tbody", {}, ...body)),
    );
  },

  /** List the images with the lowest pixel accuracy. */
  worst() {
    const scored = page.records.filter((each) => each.key && each.accuracy !== undefined);
    if (!scored.length) return [];
    scored.sort((a, b) => a.accuracy - b.accuracy);
    const cells = scored.slice(0, WORST).map((each) =>
      element("li", {}, exampleButton(each, `${percent(each.accuracy)} right`), element("span", { className: "soft", textContent: `${percent(each.accuracy)} right` })),
    );
    return [element("h2", { textContent: "Images with the lowest accuracy" }), element("ul", { id: "worst", className: "gallery" }, ...cells)];
  },
};

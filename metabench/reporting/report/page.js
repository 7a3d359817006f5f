// Unpacks the page: fills in the tables of classes, draws and colours the plots, hides methods in them.
"use strict";

function fillClasses(table, rows) {
  const cellOf = (value, place) => {
    const cell = document.createElement(place === 0 ? "th" : "td");
    if (place === 0) Object.assign(cell, { scope: "row", className: "left" });
    cell.textContent = value === null ? "–" : place > 1 ? value.toFixed(1) : value;
    return cell;
  };
  table.tBodies[0].append(
    ...rows.map((values) => {
      const row = document.createElement("tr");
      row.append(...values.map(cellOf));
      return row;
    }),
  );
}

function modelsOf(documents) {
  return documents.flatMap((plots) => [...plots.all_models]);
}

// Colours the plots like the page, in its light or dark scheme.
function colourPlots() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  for (const model of modelsOf(Bokeh.documents)) {
    const changes = {};
    for (const { attr } of model) {
      if (/^(axis_label_text|major_label_text|axis_line|major_tick_line|minor_tick_line)_color$/.test(attr)) changes[attr] = ink;
      else if (/^(grid_line|outline_line)_color$/.test(attr)) changes[attr] = line;
    }
    if (Object.keys(changes).length) model.setv(changes);
  }
}

function showMethod(name, shown) {
  for (const box of document.querySelectorAll("input[data-method]")) {
    if (box.dataset.method === name) box.checked = shown;
  }
  for (const model of modelsOf(Bokeh.documents)) {
    if (model.type === "GlyphRenderer" && model.name === name) model.visible = shown;
  }
}

async function draw(library, plots, roots) {
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  await Bokeh.embed.embed_items({ plots }, [{ docid: "plots", roots, root_ids: Object.keys(roots) }]);
  colourPlots();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colourPlots);
  for (const box of document.querySelectorAll("input[data-method]")) {
    box.addEventListener("change", () => showMethod(box.dataset.method, box.checked));
  }
}

async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { library, plots, roots, classes } = JSON.parse(await new Response(stream).text());
  for (const table of document.querySelectorAll("table[data-classes]")) {
    const fill = () => fillClasses(table, classes[table.dataset.classes]);
    table.closest("details").addEventListener("toggle", fill, { once: true });
  }
  if (library) await draw(library, plots, roots);
  document.documentElement.dataset.ready = "yes";
}

unpack();

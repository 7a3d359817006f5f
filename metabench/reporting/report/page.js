// Sorts and filters tables, hides columns and methods, unpacks and colours the plots. Controls are buttons and boxes,
// so the keyboard works without further code.
"use strict";

// ------------------------------------------------------------------------------------------------ tables

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  return text === "" || text === "–" ? null : isNaN(Number(text)) ? text.toLowerCase() : Number(text);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = Array.from(body.rows, (row) => [valueOf(row, header.cellIndex), row]);
  const empty = rows.filter(([value]) => value === null); // they come last in both orders
  const full = rows.filter(([value]) => value !== null).sort((a, b) => compare(a[0], b[0]));
  if (descending) full.reverse();
  body.append(...[...full, ...empty].map(([, row]) => row));
}

for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

const methods = document.getElementById("methods");
const filter = document.getElementById("filter");

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of methods.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${methods.tBodies[0].rows.length} shown`;
}

filter.addEventListener("input", applyFilter);
applyFilter();

for (const box of document.querySelectorAll("input[data-group]")) {
  const apply = () => methods.classList.toggle(`without-${box.dataset.group}`, !box.checked);
  box.addEventListener("change", apply);
  apply();
}

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

// ------------------------------------------------------------------------------------------------- plots

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

// Bokeh creates its documents some time after its code has run.
function whenDrawn() {
  if (Bokeh.documents.length === 0) return requestAnimationFrame(whenDrawn);
  colourPlots();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colourPlots);
  for (const box of document.querySelectorAll("input[data-method]")) {
    box.addEventListener("change", () => showMethod(box.dataset.method, box.checked));
  }
  ready();
}

function ready() {
  document.documentElement.dataset.ready = "yes";
}

async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { code, classes } = JSON.parse(await new Response(stream).text());
  for (const table of document.querySelectorAll("table[data-classes]")) {
    const fill = () => fillClasses(table, classes[table.dataset.classes]);
    table.closest("details").addEventListener("toggle", fill, { once: true });
  }
  if (code) {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    whenDrawn();
  } else {
    ready();
  }
}

unpack();

// Colours the plots like the page, in its light or dark scheme.
"use strict";

function colourPlots() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  for (const plots of Bokeh.documents) {
    for (const model of plots.all_models) {
      const changes = {};
      for (const { attr } of model) {
        if (/^(axis_label_text|major_label_text|label_text|axis_line|major_tick_line|minor_tick_line)_color$/.test(attr)) changes[attr] = ink;
        else if (/^(grid_line|outline_line)_color$/.test(attr)) changes[attr] = line;
      }
      if (model.type === "Legend") Object.assign(changes, { background_fill_color: null, border_line_color: null });
      if (Object.keys(changes).length) model.setv(changes);
    }
  }
}

// Bokeh creates its documents some time after the page has loaded.
function colourWhenLoaded() {
  if (Bokeh.documents.length) colourPlots();
  else requestAnimationFrame(colourWhenLoaded);
}

colourWhenLoaded();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colourPlots);

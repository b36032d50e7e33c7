// A Plotly chart that keeps its zoom across updates, reports clicks, and shows the shared selection.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const plotly = () => window.moduleName || window.Plotly; // gradio's own gr.Plot may overwrite window.Plotly
  // Plotly takes most of a second to run: the page is painted first, for those who read before they look.
  if (!page.plotlyAsked) {
    page.plotlyAsked = true;
    requestAnimationFrame(() => setTimeout(() => {
      const script = document.createElement("script");
      script.src = document.getElementById("mpq-plotly").href;
      document.head.append(script);
    }));
  }
  const DIGIT_WIDTH = 11, DIGIT_HEIGHT = 10, NARROW = 620;

  function baseLayout(width) {
    const line = page.css("--mpq-line"), text = page.css("--mpq-text-soft");
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { size: 11 }, automargin: false };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: page.css("--font") || "sans-serif", size: 12, color: text },
      hoverlabel: { bgcolor: page.css("--mpq-card"), bordercolor: page.css("--mpq-line"),
        font: { color: page.css("--mpq-text"), family: page.css("--font-mono"), size: 12 }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: text, activecolor: page.css("--mpq-accent") },
      margin: { l: width < NARROW ? 40 : 92, r: 12, t: 26, b: 42 }, showlegend: false, xaxis: axis, yaxis: axis,
    };
  }

  function merge(base, extra) {
    const out = { ...base };
    for (const [key, value] of Object.entries(extra || {})) {
      const plain = (item) => item && typeof item === "object" && !Array.isArray(item);
      out[key] = plain(value) && plain(base[key]) ? merge(base[key], value) : value;
    }
    return out;
  }

  // Whole numbers arrive as one byte a cell, 0 meaning "no such channel".
  function unpack(trace) {
    if (!trace.cells) return trace;
    const { b64, rows, columns } = trace.cells, bytes = page.bytes(b64);
    const z = Array.from({ length: rows }, (_, row) =>
      Array.from(bytes.subarray(row * columns, (row + 1) * columns), (value) => value || null));
    const { cells, ...rest } = trace;
    return { ...rest, z };
  }

  page.kinds.plot = ({ root, props, trigger, watch }) => {
    const chart = page.node("div", { class: "mpq-chart" });
    const status = page.node("div", { class: "mpq-sr", "aria-live": "polite" });
    root.append(chart, status);
    let figure = null, drawn = false, busy = false, again = false, width = 0;

    const rows = () => (figure && figure.meta && figure.meta.rows) || null;
    const pool = (row) => (figure.meta.pools || [])[row] || 1; // channels that share a column

    function selectionShapes() {
      const names = rows(), { layer, channel } = page.selection;
      if (!names || !layer || !names.includes(layer)) return [];
      const row = names.indexOf(layer);
      const box = (place, width) => [["#000", width + 2], ["#fff", width]].map(([color, size]) => // seen on any colour
        ({ type: "rect", y0: row - 0.5, y1: row + 0.5, fillcolor: "rgba(0,0,0,0)", line: { color, width: size }, ...place }));
      const shapes = box({ xref: "paper", x0: 0, x1: figure.meta.span || 1 }, 1);
      if (channel !== null && channel !== undefined) {
        const column = Math.floor(channel / pool(row));
        shapes.push(...box({ x0: column - 0.5, x1: column + 0.5 }, 2));
      }
      return shapes;
    }

    // Where the denoising step stands, in charts that run over the steps.
    function stepShapes() {
      const last = (figure && figure.meta && figure.meta.steps) || 0;
      if (!last || page.step === null) return [];
      const x = Math.min(page.step, last - 1);
      return [{ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: page.css("--mpq-mark"), width: 2, dash: "dot" } }];
    }

    // One drawing at a time: plotly finishes later, and two at once leave half of the first behind.
    async function draw() {
      if (!root.clientWidth) return; // in a tab that is closed: drawn when it opens
      if (busy) { again = true; return; }
      busy = true;
      try { do { again = false; await drawOnce(); } while (again); } finally { busy = false; }
    }

    async function drawOnce() {
      const next = page.payload(props.fig);
      if (!next || !plotly()) {
        root.classList.add("is-empty");
        if (drawn) { plotly().purge(chart); drawn = false; } // what was there belongs to something else
        return;
      }
      root.classList.remove("is-empty");
      figure = next;
      width = root.clientWidth;
      chart.style.height = `${(figure.meta && figure.meta.height) || root.dataset.height || 420}px`;
      const themed = page.themed(figure);
      const layout = merge(merge(baseLayout(width), themed.layout), { uirevision: (figure.meta && figure.meta.view) || "keep" });
      if (width < NARROW && rows()) {
        layout.yaxis = { ...layout.yaxis, ...(figure.meta.narrow_yaxis || {}) };
        if (layout.xaxis2) layout.xaxis2 = { ...layout.xaxis2, showticklabels: false }; // they would lie over each other
      }
      layout.shapes = [...(layout.shapes || []), ...selectionShapes(), ...stepShapes()];
      await page.react(plotly(), chart, themed.data.map(unpack), layout,
        { responsive: true, displaylogo: false, scrollZoom: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"] });
      if (!drawn) { drawn = true; listen(); }
      digits();
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    }

    // Numbers are written into the cells as soon as a zoom makes them large enough to read.
    function digits() {
      if (!figure.meta || !figure.meta.digits) return;
      const { xaxis, yaxis } = chart._fullLayout;
      const wide = xaxis._length / Math.abs(xaxis.range[1] - xaxis.range[0]);
      const high = yaxis._length / Math.abs(yaxis.range[1] - yaxis.range[0]);
      const wanted = wide >= DIGIT_WIDTH && high >= DIGIT_HEIGHT ? "%{z}" : "";
      if ((chart.data[0].texttemplate || "") !== wanted) plotly().restyle(chart, { texttemplate: wanted }, [0]);
    }

    function pick(row, column) {
      const layer = rows()[row];
      const size = figure.meta.sizes ? figure.meta.sizes[row] : Infinity;
      const channel = figure.meta.layer_only ? null : Math.max(0, Math.min(Math.round(column) * pool(row), size - 1));
      page.select(layer, channel);
      status.textContent = channel === null ? layer : `${layer}, channel ${channel}`;
      trigger("cell", { layer, channel });
    }

    function listen() {
      chart.on("plotly_click", (event) => {
        const point = event.points[0];
        if (rows() && point.curveNumber === 0) pick(point.pointIndex ? point.pointIndex[0] : point.y, point.x);
        else trigger("point", { x: point.x, y: point.y, curve: point.curveNumber, text: point.customdata ?? null });
      });
      chart.on("plotly_relayout", () => digits());
    }

    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", root.dataset.label || "chart");
    root.addEventListener("keydown", (event) => {
      const names = rows(), step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!names || !step || event.target !== root) return;
      event.preventDefault();
      const { layer, channel } = page.selection;
      const row = Math.max(0, names.indexOf(layer));
      const next = layer === null ? row : Math.max(0, Math.min(names.length - 1, row + step[0]));
      pick(next, Math.floor((channel || 0) / pool(next)) + step[1]);
    });

    new ResizeObserver(() => { if (root.clientWidth && root.clientWidth !== width) draw(); }).observe(root);
    page.on("theme", root, draw);
    page.on("selection", root, () => {
      if (drawn && rows()) plotly().relayout(chart, { shapes: [...((figure.layout && page.themed(figure.layout.shapes)) || []), ...selectionShapes()] });
    });
    page.on("step", root, () => { if (drawn && figure.meta && figure.meta.steps) plotly().relayout(chart, { shapes: stepShapes() }); });
    watch("fig", () => { width = 0; draw(); }); // 0: what is missed while hidden is drawn on opening
    draw();
  };
})();

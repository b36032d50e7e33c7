// Pictures of several runs from the same noise: a row for each seed, a column for each run, one zoom for all.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const FARTHEST = 8;

  page.kinds["ablation-matrix"] = ({ root, props, watch }) => {
    const { node } = page;
    const zoom = node("input", { type: "range", min: 1, max: FARTHEST, step: 0.25, value: 1, id: `${root.dataset.name}-zoom`, oninput: () => place() });
    const told = node("output", { class: "mpq-big" });
    const reset = node("button", { type: "button", class: "mpq-small", onclick: () => { zoom.value = "1"; view = { x: 0.5, y: 0.5 }; place(); } }, "Whole pictures");
    const bar = node("div", { class: "mpq-inline" }, node("label", { for: zoom.id }, "Zoom all pictures"), zoom, told, reset);
    const grid = node("div", { class: "mpq-matrix", tabindex: 0, role: "group", "aria-label": "Pictures of the runs; arrow keys move, plus and minus zoom" });
    const empty = node("p", { class: "mpq-hint" }, "No pictures yet: cells and comparisons have some, plans alone have none.");
    root.append(bar, grid, empty);
    let view = { x: 0.5, y: 0.5 }, held = null; // the point of every picture that is in the middle, as shares

    const load = (source) => new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => resolve(null);
      image.src = source;
    });

    async function draw() {
      const data = page.payload(props.sheets);
      const has = Boolean(data && data.columns.length);
      bar.hidden = grid.hidden = !has; empty.hidden = has;
      if (!has) return;
      const images = await Promise.all(data.columns.map((column) => load(column.src)));
      const heads = data.columns.map((column) => node("div", { class: "mpq-matrix-head", title: column.title }, column.title));
      const cells = [node("div", { class: "mpq-matrix-corner" }), ...heads];
      for (const row of data.rows) {
        cells.push(node("div", { class: "mpq-matrix-row" }, row.name, node("small", {}, `seed ${row.seed}`)));
        data.columns.forEach((column, index) => cells.push(tile(column, images[index], row)));
      }
      grid.style.setProperty("--columns", data.columns.length);
      grid.replaceChildren(...cells);
      root.dataset.columns = String(data.columns.length);
      place();
    }

    function tile(column, image, row) {
      const at = column.seeds.indexOf(row.seed), size = column.tile;
      if (at < 0 || !image) return node("div", { class: "mpq-tile is-missing" }, "not drawn");
      const canvas = node("canvas", { width: size, height: size, role: "img", "aria-label": `${column.title}, ${row.name}, seed ${row.seed}` });
      canvas.getContext("2d").drawImage(image, at * size, 0, size, size, 0, 0, size, size);
      return node("div", { class: "mpq-tile" }, canvas);
    }

    function place() {
      const scale = Number(zoom.value), edge = 0.5 / scale;
      view = { x: Math.min(Math.max(view.x, edge), 1 - edge), y: Math.min(Math.max(view.y, edge), 1 - edge) };
      grid.style.setProperty("--zoom", scale);
      grid.style.setProperty("--left", `${(0.5 - view.x) * 100}%`);
      grid.style.setProperty("--up", `${(0.5 - view.y) * 100}%`);
      told.textContent = `× ${scale}`;
      reset.hidden = scale === 1;
    }

    grid.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.target.closest("canvas")) return;
      if (!event.ctrlKey && zoom.value === "1" && event.deltaY > 0) return; // let the page scroll on
      event.preventDefault();
      zoom.value = String(Number(zoom.value) * (event.deltaY < 0 ? 1.25 : 0.8));
      place();
    }, { passive: false });
    grid.addEventListener("pointerdown", (event) => {
      if (zoom.value === "1" || !event.target.closest(".mpq-tile")) return;
      held = { x: event.clientX, y: event.clientY, size: event.target.closest(".mpq-tile").clientWidth };
      grid.setPointerCapture(event.pointerId);
    });
    grid.addEventListener("pointermove", (event) => {
      if (!held) return;
      const step = 1 / (held.size * Number(zoom.value));
      view = { x: view.x - (event.clientX - held.x) * step, y: view.y - (event.clientY - held.y) * step };
      held = { ...held, x: event.clientX, y: event.clientY };
      place();
    });
    for (const end of ["pointerup", "pointercancel"]) grid.addEventListener(end, () => { held = null; });
    grid.addEventListener("keydown", (event) => {
      const step = 0.1 / Number(zoom.value), by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
      const scale = { "+": 0.5, "=": 0.5, "-": -0.5 }[event.key];
      if (scale) zoom.value = String(Number(zoom.value) + scale);
      else if (by && zoom.value !== "1") view = { x: view.x + by[0], y: view.y + by[1] };
      else return;
      event.preventDefault();
      place();
    });
    watch("sheets", draw);
    draw();
  };
})();

// The layers of a network as a tree with a search box, and the models in memory with a button to unload each.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const FOUND = 120; // rows of a search that are shown; more are counted
  const COLUMNS = [["Layer", ""], ["Kind", "is-kind"], ["Parameters", ""], ["MACs", "is-macs"],
    ["Highest kurtosis", ""], ["Bits", "is-bits"]];

  page.kinds.tree = ({ root, props, trigger, watch }) => {
    const search = page.node("input", { type: "search", placeholder: "Search layers, such as attn or conv1",
      "aria-label": "Search layers", oninput: show });
    const count = page.node("span", { class: "mpq-hint", role: "status" });
    const head = page.node("div", { class: "mpq-tree-row is-head", "aria-hidden": "true" },
      ...COLUMNS.map(([name, kind]) => page.node("span", { class: kind }, name)));
    const body = page.node("ul", { class: "mpq-tree-body" });
    root.append(page.node("div", { class: "mpq-tree-tools" }, search, count),
      page.node("div", { class: "mpq-tree-table" }, head, body));
    let tree = null, leaves = [], top = 1;

    // Kurtosis 3 is a Gaussian: the bar begins there and is logarithmic, as the maps are.
    function peak(value) {
      if (value === null || value === undefined) return page.node("span", { class: "is-peak" });
      const share = Math.max(0, Math.log(value / 3)) / Math.max(Math.log(top / 3), 1e-9);
      return page.node("span", { class: "is-peak" }, page.node("i", { style: `width:${Math.min(1, share) * 60}%` }),
        page.number(value));
    }

    function cells(node, label) {
      const bits = node.bits || (node.layers ? `${node.layers} layers` : "");
      return [label, page.node("span", { class: "is-kind" }, node.kind || ""), page.node("span", {}, node.parameters),
        page.node("span", { class: "is-macs" }, node.macs), peak(node.peak),
        page.node("span", { class: `is-bits ${node.bits && node.bits !== "in the budget" ? "is-exempt" : ""}`,
          title: node.why || null }, bits)];
    }

    function leaf(node, name) {
      const button = page.node("button", { type: "button", class: "mpq-tree-row is-leaf", title: node.path,
        "data-path": node.path, onclick: () => { page.select(node.path, null); trigger("cell", { layer: node.path, channel: null }); } },
        ...cells(node, page.node("span", { class: "is-name" }, name)));
      return page.node("li", {}, button);
    }

    function branch(node) {
      if (!node.children) return leaf(node, node.name);
      const inner = page.node("ul", { hidden: true });
      const button = page.node("button", { type: "button", class: "mpq-tree-row is-branch", "aria-expanded": "false",
        "data-path": node.path, onclick: toggle }, ...cells(node, page.node("span", { class: "is-name" }, node.name)));
      function toggle() {
        const open = inner.hidden;
        if (open && !inner.childElementCount) {
          if (node.bits) inner.append(leaf(node, `${node.name} itself`));
          inner.append(...node.children.map(branch));
          mark();
        }
        inner.hidden = !open;
        button.setAttribute("aria-expanded", String(open));
      }
      return page.node("li", {}, button, inner);
    }

    function collect(node) {
      if (node.bits) leaves.push(node);
      (node.children || []).forEach(collect);
    }

    function show() {
      const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
      if (!tree) { body.replaceChildren(); count.textContent = ""; return; }
      if (!words.length) {
        body.replaceChildren(...tree.children.map(branch));
        count.textContent = `${tree.layers} layers`;
      } else {
        const found = leaves.filter((node) => words.every((word) =>
          `${node.path} ${node.kind} ${node.bits}`.toLowerCase().includes(word)));
        body.replaceChildren(...found.slice(0, FOUND).map((node) => leaf(node, node.path)));
        const more = found.length > FOUND ? `, the first ${FOUND} are shown` : "";
        count.textContent = `${found.length} of ${leaves.length} layers${more}`;
      }
      mark();
    }

    function mark() {
      for (const row of body.querySelectorAll("[data-path]")) {
        const chosen = page.selection.layer || "";
        const inside = chosen.startsWith(`${row.dataset.path}.`) && row.classList.contains("is-branch");
        row.classList.toggle("is-chosen", chosen === row.dataset.path || inside);
      }
    }

    function load() {
      tree = page.payload(props.tree);
      leaves = [];
      if (tree) tree.children.forEach(collect);
      top = Math.max(3.01, ...leaves.map((node) => node.peak || 0));
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
      show();
    }

    page.on("selection", root, mark);
    watch("tree", load);
    load();
  };

  page.kinds.shelf = ({ root, props, trigger, watch }) => {
    const bar = page.node("i");
    const words = page.node("p", { class: "mpq-hint", role: "status" });
    const list = page.node("ul", { class: "mpq-shelf" });
    root.append(page.node("span", { class: "mpq-part-bar", "aria-hidden": "true" }, bar), words, list);

    function show() {
      const shelf = page.payload(props.models) || { models: [], used: "nothing", limit: "", share: 0 };
      bar.style.width = `${shelf.share * 100}%`;
      words.textContent = `${shelf.used} in memory${shelf.limit ? `, room for ${shelf.limit}` : ""}`;
      list.replaceChildren(...shelf.models.map((model) => page.node("li", {},
        page.node("span", { class: "is-name" }, model.title), page.node("span", {}, model.size),
        page.node("button", { type: "button", class: "mpq-small", "aria-label": `Unload ${model.title}`,
          onclick: () => trigger("act", { key: model.key }) }, "Unload"))));
    }

    watch("models", show);
    show();
  };
})();

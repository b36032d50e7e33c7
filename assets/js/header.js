// The header: what is loaded, what is chosen, copy link, light or dark. It also keeps the address bar up to date.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};

  page.kinds.header = ({ root, props, trigger, watch }) => {
    const chips = page.node("div", { class: "mpq-chips", role: "status", "aria-label": "What is loaded and chosen" });
    const copy = page.node("button", { class: "mpq-small", type: "button", "data-does": "copy", onclick: copyLink }, "Copy link");
    const theme = page.node("button", { class: "mpq-small", type: "button", "data-does": "theme", onclick: toggleTheme,
      title: "Switch between light and dark" }, "Light / dark");
    // On the Learn page the way leads back, and there are no shortcuts to ask for.
    const learning = root.dataset.name === "learn-header";
    const way = page.node("a", { class: "mpq-small", href: learning ? "./" : "learn" }, learning ? "← Explorer" : "Learn");
    const help = page.node("button", { class: "mpq-small", type: "button", hidden: learning, "aria-label": "Help and keyboard shortcuts",
      onclick: () => page.emit("help") }, "?");
    const title = page.node("div", { class: "mpq-brand" },
      page.node("span", { class: "mpq-mark", "aria-hidden": "true" }, ...[8, 4, 2, 6, 3, 1, 4, 2, 8].map((bits) =>
        page.node("i", { class: `bits-${bits}` }))),
      page.node("h1", {}, "MPQ-DM Explorer"),
      page.node("p", {}, "Where do the bits of a diffusion model matter?"));
    root.append(title, chips, page.node("div", { class: "mpq-tools" }, way, copy, theme, help));

    async function copyLink() {
      try { await navigator.clipboard.writeText(location.href); copy.textContent = "Copied"; }
      catch { window.prompt("Copy this address", location.href); }
      setTimeout(() => { copy.textContent = "Copy link"; }, 1600);
    }

    function toggleTheme() {
      const dark = document.body.classList.toggle("dark");
      try { localStorage.setItem("mpqdm-theme", dark ? "dark" : "light"); } catch { /* private window */ }
    }

    function restoreTheme() {
      let kept = null;
      try { kept = localStorage.getItem("mpqdm-theme"); } catch { /* private window */ }
      const forced = new URLSearchParams(location.search).get("__theme");
      if (!forced && kept) document.body.classList.toggle("dark", kept === "dark");
    }

    function showChips() {
      const items = page.payload(props.chips) || [];
      chips.replaceChildren(...items.map(([name, value]) =>
        page.node("span", { class: "mpq-chip" }, page.node("small", {}, name), page.node("b", {}, value))));
    }

    function showState() {
      const state = page.payload(props.state);
      if (!state) return;
      const address = new URL(location.href), before = address.searchParams;
      const stays = ["__theme", "hide", "lesson"].filter((name) => before.get(name)).map((name) => [name, before.get(name)]);
      address.search = state.query;
      for (const [name, value] of stays) address.searchParams.set(name, value);
      history.replaceState(null, "", address);
      const step = new URLSearchParams(state.query).get("t");
      if (step !== null || page.step !== null) page.scrub(Number(step || 0));
    }

    // A table or a link chose a channel: the maps follow. A click on a map never comes back this way.
    function showSelection() {
      const chosen = page.payload(props.selected);
      if (chosen) page.select(chosen.layer, chosen.channel);
    }

    page.on("scrubbed", root, (at) => trigger("step", { at }));
    restoreTheme();
    watch("chips", showChips);
    watch("state", showState);
    watch("selected", showSelection);
    showChips();
    showState();
    showSelection();
  };
})();

// Help for a guest of the explorer: what a link hides, the banner of a lesson, keys, the help sheet, the tour.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const KEPT = "mpqdm-guide";
  const TYPING = "input, textarea, select, [contenteditable=true], [role=combobox], [role=listbox]";

  const read = () => { try { return JSON.parse(localStorage.getItem(KEPT) || "{}") || {}; } catch { return {}; } };
  const keep = (change) => {
    try { localStorage.setItem(KEPT, JSON.stringify({ ...read(), ...change })); } catch { /* private window */ }
  };
  const tabButton = (name) => document.querySelector(`#tab-${name}-button`);
  const tabButtons = () => [...document.querySelectorAll("#tabs [role=tab]")].filter((tab) => tab.offsetParent);

  page.kinds.guide = ({ root, props, watch }) => {
    const { node } = page;
    let guide = null, say = null, sheet = null, card = null, at = -1, before = null;

    function load() {
      const next = page.payload(props.guide);
      if (!next || guide) return;
      guide = next;
      say = page.speaker(guide.words);
      hide(guide.hide);
      if (guide.lesson) banner(guide.lesson);
      page.on("help", root, toggleHelp);
      document.addEventListener("keydown", onKey);
      offer();
    }

    // Selectors come from the server's own list; the link only chooses among them.
    function hide(selectors) {
      if (!selectors.length) return;
      document.head.append(node("style", {}, `${selectors.join(", ")} { display: none !important; }`));
    }

    function banner(lesson) {
      const made = node("section", { class: "guide-banner", "aria-label": say("lesson", lesson) },
        node("b", {}, say("lesson", lesson)), node("span", {}, lesson.text),
        node("a", { href: `learn?lesson=${lesson.number}` }, say("back")),
        node("button", { type: "button", class: "mpq-small", onclick: () => made.remove() }, say("close")));
      root.append(made);
    }

    // ---- keys
    function onKey(event) {
      if (!root.isConnected) return document.removeEventListener("keydown", onKey);
      if (event.key === "Escape") { closeHelp(); endTour(); return; }
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || read().keys === false) return;
      if (event.target.closest && event.target.closest(TYPING)) return;
      const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
      const found = digit ? "tab" : (guide.shortcuts.find((entry) => entry.key === event.key) || {}).action;
      if (!found) return;
      event.preventDefault();
      run(found, digit);
    }

    function run(action, digit) {
      const tabs = tabButtons(), now = tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
      const open = (tab) => tab && (tab.click(), tab.focus());
      const tools = (label) => [...document.querySelectorAll("#header .mpq-tools button")].find((button) => label(button));
      ({
        help: toggleHelp,
        tab: () => open(tabs[digit - 1]),
        previous: () => open(tabs[now - 1]),
        next: () => open(tabs[now + 1]),
        copy: () => tools((button) => button.dataset.does === "copy").click(),
        theme: () => tools((button) => button.dataset.does === "theme").click(),
        learn: () => { location.href = "learn"; },
        tour: startTour,
      })[action]?.();
    }

    // ---- the help sheet
    function toggleHelp() { sheet ? closeHelp() : openHelp(); }

    function openHelp() {
      endTour();
      before = document.activeElement;
      const on = node("input", { type: "checkbox", id: "guide-keys", checked: read().keys !== false, onchange: () => keep({ keys: on.checked }) });
      sheet = node("dialog", { class: "guide-sheet", "aria-labelledby": "guide-title", onclose: closeHelp },
        node("h2", { id: "guide-title" }, say("help")),
        node("dl", {}, ...guide.shortcuts.flatMap((entry) => [node("dt", {}, node("kbd", {}, entry.key)), node("dd", {}, entry.text)])),
        node("label", { class: "learn-check", for: "guide-keys" }, on, say("keys_on")),
        node("p", { class: "learn-facts" }, say("help_off")),
        node("div", { class: "learn-onward" },
          node("button", { type: "button", class: "learn-button", onclick: closeHelp }, say("close")),
          node("button", { type: "button", class: "mpq-small", onclick: startTour }, say("start_tour")),
          node("a", { href: "learn" }, say("to_lessons"))));
      root.append(sheet);
      sheet.showModal();
    }

    function closeHelp() {
      if (!sheet) return;
      const old = sheet;
      sheet = null;
      old.remove();
      if (before && before.isConnected) before.focus();
    }

    // ---- the tour
    function offer() {
      const asked = new URLSearchParams(guide.search).get("tour");
      if (asked === "1") return startTour();
      if (asked === "0" || navigator.webdriver || read().toured || guide.lesson || guide.hide.length) return;
      put(say("tour"), say("invitation"), [[say("no"), endTour, "mpq-small"], [say("yes"), startTour, "learn-button"]]);
    }

    function put(title, text, buttons, count = "") {
      card?.remove();
      card = node("section", { class: "guide-card", tabindex: -1, role: "region", "aria-label": say("tour") },
        node("small", {}, count), node("h2", {}, title), node("p", { "aria-live": "polite" }, text),
        node("div", { class: "guide-buttons" }, ...buttons.map(([label, action, look]) => node("button", { type: "button", class: look, onclick: action }, label))));
      root.append(card);
    }

    function startTour() {
      closeHelp();
      at = -1;
      step(1);
    }

    // Steps whose tab is hidden or missing are left out.
    function step(by) {
      let next = at + by;
      while (guide.tour[next] && !tabButton(guide.tour[next].tab)?.offsetParent) next += by;
      if (!guide.tour[next]) return by > 0 ? endTour() : undefined;
      at = next;
      const stop = guide.tour[at], last = at === guide.tour.length - 1;
      const tab = tabButton(stop.tab);
      if (tab.getAttribute("aria-selected") !== "true") tab.click();
      put(stop.title, stop.text, [[say("stop"), endTour, "mpq-small"], ...(at ? [[say("previous"), () => step(-1), "mpq-small"]] : []),
        [last ? say("finish") : say("next"), () => (last ? endTour() : step(1)), "learn-button"]], say("step", { number: at + 1, all: guide.tour.length }));
      card.focus({ preventScroll: true });
      point(stop.target, at);
    }

    // The target may not be there yet: its tab is only now being drawn.
    function point(selector, step) {
      document.querySelectorAll(".guide-target").forEach((old) => old.classList.remove("guide-target"));
      if (at !== step || !card) return;
      const target = document.querySelector(selector);
      if (!target || !target.offsetParent) return void setTimeout(() => point(selector, step), 60);
      target.classList.add("guide-target");
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      target.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
    }

    function endTour() {
      if (!card) return;
      card.remove();
      card = null;
      at = -1;
      keep({ toured: true });
      document.querySelectorAll(".guide-target").forEach((old) => old.classList.remove("guide-target"));
    }

    watch("guide", load);
    load();
  };
})();

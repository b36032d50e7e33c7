// The link a teacher builds: shown, copied, tried.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};

  page.kinds.link = ({ root, props, watch }) => {
    const { node } = page;
    const address = node("input", { type: "text", readonly: true, class: "teacher-address", onfocus: () => address.select() });
    const open = node("a", { class: "learn-next", target: "_blank", rel: "noopener" }), status = node("p", { class: "learn-facts", role: "status" });
    const copy = node("button", { type: "button", class: "learn-button", onclick: async () => {
      try { await navigator.clipboard.writeText(address.value); status.textContent = say("copied"); }
      catch { address.select(); status.textContent = say("failed"); }
    } });
    let say = null;

    function show() {
      const link = page.payload(props.link);
      if (!link) return;
      say = page.speaker(link.words);
      address.value = new URL(`./?${link.query}`, location.href).href;
      address.setAttribute("aria-label", say("title"));
      copy.textContent = say("copy");
      open.textContent = say("open");
      open.href = address.value;
      status.textContent = "";
      if (!root.firstChild) root.append(node("h2", { class: "teacher-title" }, say("title")), address, node("div", { class: "learn-onward" }, copy, open), status);
    }
    watch("link", show);
    show();
  };
})();

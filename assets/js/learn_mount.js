// Runs when a view without charts appears. The words a Python listener may attach to: 'ask'
// Views wait for their scripts: gradio loads scripts in any order and a second view does not wait.
(function start() {
  const { kind, needs, chapters } = element.querySelector(".mpq-view").dataset, page = window.mpqdm;
  const there = page && page.mount && page.kinds && page.kinds[kind] && needs.split(" ").every((name) => !name || page[name]);
  if (there && (window.mpqdmChapters || []).length >= Number(chapters)) page.mount({ element, props, trigger, watch });
  else setTimeout(start, 25);
})();

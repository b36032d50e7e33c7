// Runs when a linked view appears. The words a Python listener may attach to: 'cell' 'point' 'rows' 'act' 'step'
// Gradio loads each script once, and a second view does not wait for a script that the first still loads.
(function start() {
  const { kind } = element.querySelector(".mpq-view").dataset;
  const page = window.mpqdm, ready = page && page.mount && page.kinds && page.kinds[kind];
  const plotly = window.moduleName || window.Plotly || kind === "header";
  if (ready && plotly) page.mount({ element, props, trigger, watch });
  else setTimeout(start, 25);
})();

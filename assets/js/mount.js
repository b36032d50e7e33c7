// Runs when a linked view appears. The words a Python listener may attach to: 'cell' 'point' 'rows' 'act'
window.mpqdm.mount({ element, props, trigger, watch });

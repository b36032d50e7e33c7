// The lessons: a list on the left, one lesson on the right, progress kept in this browser.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const KEPT = "mpqdm-learn";

  function chapters() {
    if (!page.lessons || page.lessonsOpened) return;
    page.lessonsOpened = true;
    window.mpqdmChapters.forEach((open) => open(page));
  }
  function readDone() {
    try { return new Set(JSON.parse(localStorage.getItem(KEPT) || "{}").done || []); }
    catch { return new Set(); } // a private window, or something else under this name
  }
  function keepDone(done) {
    try { localStorage.setItem(KEPT, JSON.stringify({ done: [...done] })); } catch { /* private window */ }
  }

  page.kinds.lessons = ({ root, props, watch }) => {
    const { node } = page;
    let course = null, current = 1, done = readDone();

    function load() {
      const next = page.payload(props.course);
      if (!next || course) return;
      course = next;
      chapters();
      const asked = Number(new URLSearchParams(location.search).get("lesson"));
      open(course.lessons.some((lesson) => lesson.number === asked) ? asked : course.start, "keep");
    }

    function open(number, history) {
      current = number;
      const address = new URL(location.href);
      address.searchParams.set("lesson", String(number));
      if (history === "push") window.history.pushState(null, "", address);
      show();
      if (history === "push") {
        root.querySelector(".learn-lesson").focus({ preventScroll: true });
        root.scrollIntoView({ block: "start" });
      }
    }

    const link = (number, attributes, ...inside) => node("a", { href: `?lesson=${number}`, ...attributes, onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(number, "push");
    } }, ...inside);

    function show() {
      const say = page.speaker(course.words);
      const items = course.lessons.map((lesson) => node("li", { class: done.has(lesson.id) ? "is-done" : "" },
        link(lesson.number, { "aria-current": lesson.number === current ? "page" : null },
          node("span", { class: "learn-number", "aria-hidden": "true" }, done.has(lesson.id) ? "✓" : String(lesson.number)),
          node("span", {}, lesson.title, node("span", { class: "mpq-sr" }, done.has(lesson.id) ? ` (${say("done")})` : "")))));
      const count = course.lessons.filter((lesson) => done.has(lesson.id)).length;
      const nav = node("nav", { class: "learn-nav", "aria-label": say("lessons") },
        node("p", { class: "learn-progress" }, say("progress", { done: count, all: course.lessons.length })),
        node("div", { class: "learn-meter", "aria-hidden": "true" }, node("i", { style: `width:${(100 * count) / course.lessons.length}%` })),
        node("ol", {}, ...items));
      root.replaceChildren(node("div", { class: "learn" }, nav, article(course.lessons.find((lesson) => lesson.number === current), say)));
    }

    function article(lesson, say) {
      const words = node("div", { class: "learn-words" });
      words.innerHTML = lesson.html; // made by the server from its own files
      words.querySelectorAll('a[href^="term:"]').forEach((term) => explain(term, say));
      const widget = node("div", { class: "learn-widget" });
      const status = node("p", { class: "learn-status", role: "status" });
      const task = node("section", { class: "learn-task", "aria-label": say("task") },
        node("h3", {}, say("task")), node("p", {}, lesson.task), status,
        node("details", {}, node("summary", {}, say("hint")), node("p", {}, lesson.hint)));
      const tell = () => {
        const reached = done.has(lesson.id);
        task.classList.toggle("is-done", reached);
        status.textContent = reached ? `✓ ${lesson.done}` : say("not_yet");
      };
      const goal = (reached) => {
        if (!reached || done.has(lesson.id)) return;
        done.add(lesson.id);
        keepDone(done);
        tell();
        mark(lesson);
      };
      const following = course.lessons.find((other) => other.number === lesson.number + 1);
      const made = node("article", { class: "learn-lesson", tabindex: -1, "data-lesson": lesson.id, "aria-labelledby": "lesson-title" },
        node("p", { class: "learn-kicker" }, say("which", { number: lesson.number, all: course.lessons.length })),
        node("h2", { id: "lesson-title" }, lesson.title), words, widget, task,
        node("div", { class: "learn-onward" },
          node("a", { class: "learn-open", href: `./?${lesson.query}` }, say("open")),
          following ? link(following.number, { class: "learn-next" }, say("next", { title: following.title })) : node("span", { class: "learn-facts" }, say("last"))),
        node("p", { class: "learn-facts" }, lesson.explore),
        node("details", { class: "learn-source" }, node("summary", {}, say("formula")),
          node("p", { class: "learn-formula" }, lesson.formula), node("p", {}, lesson.source)));
      page.lessons[lesson.widget](page.toolbox(widget, lesson, goal));
      tell();
      return made;
    }

    // A term opens its explanation under the paragraph.
    function explain(term, say) {
      const entry = course.glossary[term.getAttribute("href").slice(5)];
      const note = node("p", { class: "learn-note", hidden: true }, node("b", {}, entry.name), ` ${entry.text}`);
      const button = node("button", { type: "button", class: "learn-term", "aria-expanded": "false", title: say("explain"), onclick: () => {
        note.hidden = !note.hidden;
        button.setAttribute("aria-expanded", String(!note.hidden));
      } }, term.textContent);
      term.closest("p, li").after(note);
      term.replaceWith(button);
    }

    // The list on the left, without drawing the lesson again: a slider may be in the visitor's hand.
    function mark(lesson) {
      const say = page.speaker(course.words), count = course.lessons.filter((other) => done.has(other.id)).length;
      const item = root.querySelectorAll(".learn-nav li")[course.lessons.indexOf(lesson)];
      item.classList.add("is-done");
      item.querySelector(".learn-number").textContent = "✓";
      item.querySelector(".mpq-sr").textContent = ` (${say("done")})`;
      root.querySelector(".learn-progress").textContent = say("progress", { done: count, all: course.lessons.length });
      root.querySelector(".learn-meter i").style.width = `${(100 * count) / course.lessons.length}%`;
    }

    addEventListener("popstate", () => {
      if (!root.isConnected || !course) return;
      const asked = Number(new URLSearchParams(location.search).get("lesson"));
      if (course.lessons.some((lesson) => lesson.number === asked)) open(asked, "keep");
    });
    watch("course", load);
    load();
  };
})();

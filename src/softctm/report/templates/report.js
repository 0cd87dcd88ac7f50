"use strict";
// The page's behavior. Every count and score is computed beforehand, one set for each stop of the
// confidence slider: the script shows and hides, it does not compute.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIDE = 1024;
  const MAX_ZOOM = 8;
  const OUTCOMES = { tp: "true positive", fp: "false positive", fn: "false negative", cell: "cell" };
  const CLASSES = ["BC", "TC"];
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);

  const element = (name, attributes = {}, parent = null) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  };

  // ------------------------------------------------------------------ sortable tables
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent.trim();
        const number = (row) => Number.parseFloat(text(row).replaceAll(",", "").replace("−", "-"));
        const compare = (a, b) => {
          const [left, right] = column === 0 ? [NaN, NaN] : [number(a), number(b)];
          if (Number.isNaN(left) !== Number.isNaN(right)) return Number.isNaN(left) ? 1 : -1;
          const order = Number.isNaN(left) ? text(a).localeCompare(text(b), "en", { numeric: true }) : left - right;
          return down ? -order : order;
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  const viewer = byId("viewer");
  if (!viewer) return;

  const stage = byId("stage");
  const slider = byId("threshold");
  const tabs = [...document.querySelectorAll("#pairs [role=tab]")];
  const layers = {
    cellImage: byId("cell-image"), tissueImage: byId("tissue-image"), marks: byId("marks"),
    cellRegions: byId("cell-regions"), tissueRegions: byId("tissue-regions"), frame: byId("frame"),
  };
  let shown = -1;
  let marks = [];

  // ------------------------------------------------------------------ one pair
  // A prediction is shown up to its own stop (`until`); the true cell that it finds is a false negative from the next on.
  const addMark = (outcome, [x, y, label, stop, score], range) => {
    const name = CLASSES[label - 1];
    const group = element("g", { class: `mark ${outcome} ${name}` }, layers.marks);
    group.style.transform = `translate(${x}px, ${y}px) scale(var(--mark-scale))`;
    for (const part of ["halo", "ink"]) element("use", { class: part, href: `#shape-${outcome}` }, group);
    group.dataset.tip = `${name}, ${OUTCOMES[outcome]}` +
      `${score === undefined ? "" : `, confidence ${score}`}, at (${x}, ${y})`;
    marks.push({ group, from: range[0], until: range[1] });
  };

  const drawRegions = (parent, pair) => {
    parent.replaceChildren();
    for (const region of pair.regions) {
      element("path", { class: `region ${region.source} ${region.kind}`, d: region.path }, parent);
    }
  };

  const show = (index, focus = false) => {
    shown = (index + data.pairs.length) % data.pairs.length;
    const pair = data.pairs[shown];
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === shown));
      tab.tabIndex = i === shown ? 0 : -1;
    });
    if (focus) tabs[shown].focus();
    tabs[shown].parentElement.scrollLeft =
      tabs[shown].offsetLeft - tabs[shown].parentElement.clientWidth / 2 + tabs[shown].offsetWidth / 2;
    byId("panel").setAttribute("aria-labelledby", tabs[shown].id);
    layers.cellImage.setAttribute("href", pair.cell);
    layers.tissueImage.setAttribute("href", pair.tissue);
    const [left, top] = pair.window;
    for (const part of layers.frame.children) {
      part.setAttribute("x", left);
      part.setAttribute("y", top);
    }
    drawRegions(layers.tissueRegions, pair);
    drawRegions(layers.cellRegions, pair);
    layers.cellRegions.setAttribute("transform", `scale(4) translate(${-left} ${-top})`);
    layers.marks.replaceChildren();
    marks = [];
    for (const point of pair.truth ?? []) addMark("fn", point.slice(0, 3), [point[3] + 1, Infinity]);
    for (const point of pair.cells) {
      const outcome = pair.truth ? (point[5] ? "tp" : "fp") : "cell";
      addMark(outcome, point, [0, point[3]]);
    }
    byId("pair-name").textContent = pair.title;
    byId("tip").textContent = "";
    resetView();
    cut();
  };

  // ------------------------------------------------------------------ confidence
  const fill = (id, row) => {
    const table = byId(id);
    for (const cell of table.querySelectorAll("[data-key]")) {
      const [group, key] = cell.dataset.key.split(".");
      cell.textContent = key === undefined ? row[group] : row[group][key];
    }
  };

  const cut = () => {
    const stop = slider.valueAsNumber;
    for (const mark of marks) mark.group.toggleAttribute("hidden", stop < mark.from || stop > mark.until);
    const pair = data.pairs[shown];
    fill("pair-scores", pair.stops[stop]);
    fill("all-scores", data.stops[stop]);
    const value = (stop / (data.stops.length - 1)).toFixed(2);
    byId("threshold-value").textContent = value;
    slider.setAttribute("aria-valuetext", `at least ${value}: ${data.stops[stop].summary}`);
    byId("cursor").setAttribute("x1", stop);
    byId("cursor").setAttribute("x2", stop);
  };

  const curve = data.stops.map((row, stop) => `${stop},${(100 - 100 * row.curve).toFixed(2)}`);
  byId("curve").setAttribute("points", curve.join(" "));
  slider.addEventListener("input", cut);
  for (const button of viewer.querySelectorAll("[data-stop]")) {
    button.addEventListener("click", () => {
      slider.value = button.dataset.stop;
      cut();
    });
  }

  // ------------------------------------------------------------------ layers
  for (const box of viewer.querySelectorAll("input[data-layer]")) {
    const apply = () => viewer.classList.toggle(`hide-${box.dataset.layer}`, !box.checked);
    box.addEventListener("change", apply);
    apply();
  }

  // ------------------------------------------------------------------ zoom and pan
  const view = { x: 0, y: 0, side: SIDE };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const applyView = () => {
    view.side = clamp(view.side, SIDE / MAX_ZOOM, SIDE);
    view.x = clamp(view.x, 0, SIDE - view.side);
    view.y = clamp(view.y, 0, SIDE - view.side);
    stage.setAttribute("viewBox", `${view.x} ${view.y} ${view.side} ${view.side}`);
    // Marks grow more slowly than the image, so that a closer look uncovers what lies beneath them, and shrink
    // more slowly on a small screen.
    const small = clamp(600 / (stage.clientWidth || 600), 1, 1.8);
    stage.style.setProperty("--mark-scale", small * (view.side / SIDE) ** 0.6);
    stage.classList.toggle("zoomed", view.side < SIDE);
    const [left, top] = data.pairs[shown].window;
    const seen = byId("seen");
    seen.setAttribute("x", left + view.x / 4);
    seen.setAttribute("y", top + view.y / 4);
    seen.setAttribute("width", view.side / 4);
    seen.setAttribute("height", view.side / 4);
  };
  window.addEventListener("resize", applyView);
  function resetView() {
    Object.assign(view, { x: 0, y: 0, side: SIDE });
    applyView();
  }
  const zoom = (factor, u = 0.5, v = 0.5) => {
    const side = clamp(view.side / factor, SIDE / MAX_ZOOM, SIDE);
    view.x += (view.side - side) * u;
    view.y += (view.side - side) * v;
    view.side = side;
    applyView();
  };
  const pan = (dx, dy) => {
    view.x += dx * view.side;
    view.y += dy * view.side;
    applyView();
  };
  byId("zoom-in").addEventListener("click", () => zoom(1.5));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("zoom-reset").addEventListener("click", resetView);
  stage.addEventListener("wheel", (event) => {
    // Scrolling without a key belongs to the page; with Ctrl (or a pinch on a touchpad) it zooms.
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...at);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    const box = stage.getBoundingClientRect();
    zoom(2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (view.side === SIDE || event.button !== 0) return;
    drag = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (drag) {
      const width = stage.getBoundingClientRect().width;
      pan((drag[0] - event.clientX) / width, (drag[1] - event.clientY) / width);
      drag = [event.clientX, event.clientY];
      return;
    }
    byId("tip").textContent = event.target.closest?.(".mark")?.dataset.tip ?? "";
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });

  // ------------------------------------------------------------------ keyboard
  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  byId("pairs").addEventListener("keydown", (event) => {
    let target = null;
    if (event.key in steps) target = shown + steps[event.key];
    if (event.key === "Home") target = 0;
    if (event.key === "End") target = data.pairs.length - 1;
    if (target === null) return;
    event.preventDefault();
    show(target, true);
  });
  const pans = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && event.key in pans) pan(...pans[event.key]);
    else if (event.key === "ArrowLeft") show(shown - 1);
    else if (event.key === "ArrowRight") show(shown + 1);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") resetView();
    else return;
    event.preventDefault();
  });
  tabs.forEach((tab, index) => tab.addEventListener("click", () => show(index)));
  for (const link of document.querySelectorAll("a[data-pair]")) {
    link.addEventListener("click", () => show(Number(link.dataset.pair)));
  }

  show(0);
})();

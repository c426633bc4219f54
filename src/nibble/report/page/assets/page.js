"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const element = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  let run = 0;

  // ---- charts: specifications come from Python, colours from the style sheet --------------------------------------

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function theme() {
    const [ink, muted, line] = ["--ink", "--muted", "--line"].map(colour);
    const text = { labelColor: muted, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: null, continuousWidth: 300 },
      axis: { ...text, gridColor: line, domainColor: line, tickColor: line, titlePadding: 8 },
      legend: text,
      point: { color: colour("--trained") },
      range: { category: ["--float", "--trained", "--untrained", "--front"].map(colour) },
      style: {
        front: { color: colour("--front"), strokeWidth: 2, strokeDash: [5, 3] },
        name: { color: ink, fontSize: 12, fontWeight: 600 },
        phase: { color: ink },
        "phase-name": { color: muted, fontSize: 11 },
        other: { color: muted, strokeWidth: 1, strokeOpacity: 0.25 },
        published: { stroke: muted, size: 80 },
        curve: { color: colour("--trained"), strokeWidth: 2 },
        band: { color: colour("--trained"), fillOpacity: 0.2 },
        bin: { color: colour("--trained") },
        assigned: { fill: "#ffffff", stroke: "#1c2127", strokeWidth: 1.5, size: 50 },
      },
    };
  }

  const views = new Map(); // place -> the promise of the view there; each waits for the one before it

  function draw(place, datasets, size = {}) {
    const spec = { ...page.charts[place.dataset.chart], ...size, datasets };
    const actions = { export: true, source: false, compiled: false, editor: false };
    const drawn = Promise.resolve(views.get(place)).then((before) => {
      before?.finalize();
      return vegaEmbed(place, spec, { renderer: "svg", config: theme(), actions });
    });
    views.set(place, drawn);
    return drawn;
  }

  const chart = (name) => document.querySelector(`[data-chart="${name}"]`);
  const costs = ["size", "memory", "speed"].filter(chart); // older records know no memory
  const points = (pairs) => pairs.map(([step, value]) => ({ step, value }));

  function drawComparison() {
    return [
      ...costs.map((name) => draw(chart(name), { rows: page.rows, published: page.published })),
      ...all('[data-chart="damage"]').map(drawDamage),
    ];
  }

  function drawDamage(place) {
    const table = page.damage[place.dataset.index];
    const every = Object.entries(table.damage).flatMap(([layer, widths]) =>
      Object.entries(widths).map(([bits, damage]) => ({ layer, bits, damage })),
    );
    const least = Math.max(...every.map((one) => one.damage), 1e-12) * 1e-4; // less is drawn as none
    const damage = every.map((one) => ({
      ...one,
      shown: Math.max(one.damage, least),
      chosen: table.assignment !== null && table.assignment[one.layer] === Number(one.bits),
    }));
    return draw(place, { damage }, { height: 15 * Object.keys(table.damage).length });
  }

  function drawCurves() {
    const own = page.runs[run];
    const phases = own.phases.map((phase, number) => ({ ...phase, shade: number % 2 ? 0.1 : 0.04 }));
    const others = (metric) =>
      page.runs.flatMap((other, number) => (number === run ? [] : points(other[metric]).map((p) => ({ ...p, run: number }))));
    const bands = own.sqnr.map(([step, low, median, high]) => ({ step, low, median, high }));
    const wanted = {
      loss: { show: own.loss.length > 0, data: { curve: points(own.loss), others: others("loss") } },
      wer: { show: own.errors.length > 1, data: { curve: points(own.errors), others: others("errors") } },
      sqnr: { show: bands.length > 0, data: { curve: bands } },
    };
    element("no-curves").hidden = own.loss.length > 0;
    return Object.entries(wanted).map(([name, { show, data }]) => {
      chart(name).closest("figure").hidden = !show;
      return show ? draw(chart(name), { ...data, phases }) : null;
    });
  }

  function drawLayer() {
    const { largest, weights, bits, lowest, together, codes } = page.runs[run].layers[element("layer-choice").value];
    const width = (2 * largest) / weights.length;
    const bins = weights.map((share, number) => {
      const from = -largest + number * width;
      return { from, to: from + width, at: from + width / 2, share };
    });
    const caption = element("codes-caption");
    chart("codes").hidden = !codes;
    caption.textContent = codes ? `Its codes, at ${bits} bits${together > 1 ? `, ${together} to a bar` : ""}.` : "In float: no codes.";
    const bars = (codes ?? []).map((share, number) => {
      const at = lowest + number * together;
      return { from: at - 0.42, to: at + together - 0.58, at, share };
    });
    return [draw(chart("weights"), { bins }), codes ? draw(chart("codes"), { bins: bars }) : null];
  }

  // ---- one run ----------------------------------------------------------------------------------------------------

  function word([reference, hypothesis, kind]) {
    const shown = document.createElement("span");
    shown.className = `word ${kind}`;
    const add = (tag, text) => shown.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
    if (kind === "same") shown.textContent = reference;
    else {
      add("span", `${kind}: `).className = "hidden";
      if (reference) add("del", reference);
      if (hypothesis) add("ins", hypothesis);
    }
    return shown;
  }

  function showUtterances() {
    for (const card of all("[data-utterance]")) {
      const pairs = page.runs[run].heard[card.dataset.utterance] ?? [];
      const errors = pairs.filter((pair) => pair[2] !== "same").length;
      card.querySelector(".errors").textContent = `${errors} ${errors === 1 ? "error" : "errors"}`;
      card.querySelector(".alignment").replaceChildren(...pairs.map(word));
    }
  }

  function select(number) {
    run = number;
    const { layers, command, config, origin } = page.runs[run];
    element("run-choice").value = run;
    for (const button of all(".seed")) button.setAttribute("aria-pressed", Number(button.dataset.run) === run);
    const choice = element("layer-choice");
    const before = choice.value;
    choice.replaceChildren(...Object.keys(layers).map((name) => new Option(name)));
    if (before in layers) choice.value = before;
    element("command").textContent = command || "not started by train.py";
    element("config").textContent = config;
    element("origin").textContent = origin;
    showUtterances();
    return [...drawCurves(), ...drawLayer()];
  }

  function choose(number) {
    select(number);
    history.replaceState(null, "", `#run=${encodeURIComponent(page.runs[run].name)}`); // a link to this run
  }

  // ---- the table --------------------------------------------------------------------------------------------------

  function sort(button) {
    const heading = button.closest("th");
    const column = [...heading.parentNode.children].indexOf(heading);
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of all("thead th", element("systems"))) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = element("systems").tBodies[0];
    const value = (row) => row.children[column].dataset.value;
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === ""); // what has no value stays below
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  }

  function pick(row) {
    for (const name of costs) views.get(chart(name)).then(({ view }) => view.signal("picked", row).runAsync());
  }

  // ---- what the user does -----------------------------------------------------------------------------------------

  for (const button of all("thead button")) button.addEventListener("click", () => sort(button));
  for (const row of all("tr[data-row]")) {
    for (const event of ["mouseenter", "focusin"]) row.addEventListener(event, () => pick(Number(row.dataset.row)));
    for (const event of ["mouseleave", "focusout"]) row.addEventListener(event, () => pick(-1));
  }
  for (const button of all(".seed")) {
    button.addEventListener("click", () => {
      choose(Number(button.dataset.run));
      element("run").scrollIntoView();
      element("run-choice").focus({ preventScroll: true });
    });
  }
  element("run-choice").addEventListener("change", (event) => choose(Number(event.target.value)));
  element("layer-choice").addEventListener("change", drawLayer);
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = element(button.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
        element("status").textContent = "Copied.";
        button.firstChild.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(element(button.dataset.copy)); // not allowed: Ctrl-C copies what is selected
        element("status").textContent = "Selected; copy it with the keyboard.";
        button.firstChild.textContent = "Selected";
      }
      setTimeout(() => (button.firstChild.textContent = "Copy"), 2000);
    });
  }
  for (const card of all("[data-utterance]")) {
    const [sound, head] = [card.querySelector("audio"), card.querySelector(".head")];
    sound.addEventListener("timeupdate", () => {
      head.hidden = false;
      head.style.left = `${(100 * sound.currentTime) / sound.duration}%`;
    });
  }

  const [, linked] = /^#run=(.+)$/.exec(location.hash) ?? [];
  const found = page.runs.findIndex((one) => linked && one.name === decodeURIComponent(linked));
  const drawn = [...drawComparison(), ...select(found < 0 ? page.first : found)];
  if (found >= 0) element("run").scrollIntoView();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawComparison();
    drawCurves();
    drawLayer();
  });
  Promise.all(drawn).then(() => document.documentElement.setAttribute("data-ready", "")); // for tests
})();

"use strict";
// Charts: the numbers at the pointer, as a table, as CSV; methods that are left out.
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), held = figure.querySelector(".values");
  if (!svg || !held) continue;
  const { from, to, left, right, lines, places } = JSON.parse(held.textContent);
  const readout = figure.querySelector(".readout");
  const cursor = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
  cursor.setAttribute("class", "cursor");
  const shown = (line) => !document.querySelector(`.legend [data-m="${line.m}"][aria-pressed="false"]`);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), width = svg.viewBox.baseVal.width, height = svg.viewBox.baseVal.height;
    const at = ((event.clientX - box.left) / box.width) * width;
    const wanted = from + ((at - left) / (right - left)) * (to - from);
    const steps = lines.flatMap((line) => line.x);
    const step = steps.reduce((best, x) => (Math.abs(x - wanted) < Math.abs(best - wanted) ? x : best), steps[0]);
    const place = left + ((step - from) / (to - from || 1)) * (right - left);
    cursor.setAttribute("d", `M${place} 0V${height}`);
    const told = lines.filter((line) => shown(line) && line.x.includes(step));
    readout.textContent = `${places.length ? places[step] : `step ${step}`}: ` + told.map((line) => `${line.n} ${line.y[line.x.indexOf(step)]}`).join(", ");
  });
  svg.addEventListener("pointerleave", () => { cursor.removeAttribute("d"); readout.textContent = ""; });
  figure.querySelector(".numbers")?.addEventListener("toggle", (event) => {
    if (event.target.childElementCount > 1) return;
    const table = event.target.appendChild(document.createElement("table"));
    table.tabIndex = 0;
    const head = table.createTHead().insertRow();
    for (const name of ["step", ...lines.map((line) => line.n)]) {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.textContent = name;
    }
    const body = table.createTBody();
    for (const step of [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b)) {
      const row = body.insertRow();
      row.insertCell().textContent = step;
      for (const line of lines) row.insertCell().textContent = line.y[line.x.indexOf(step)] ?? "";
    }
  });
}
for (const button of document.querySelectorAll(".legend [data-m]"))
  button.addEventListener("click", () => {
    const off = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!off));
    for (const part of document.querySelectorAll(`#metrics .method[data-m="${button.dataset.m}"]`)) part.classList.toggle("off", off);
  });
document.getElementById("csv")?.addEventListener("click", () => {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const rows = ["metric,method,step,value"];
  for (const figure of document.querySelectorAll("#metrics figure"))
    for (const line of JSON.parse(figure.querySelector(".values").textContent).lines)
      line.x.forEach((step, i) => rows.push([quoted(figure.querySelector("title").textContent), quoted(line.n), step, line.y[i]].join(",")));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\n") + "\n"], { type: "text/csv" }));
  link.download = "metrics.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

// Completions: unpacked when they are looked at; shown as text alone, whatever is in them.
const index = JSON.parse(document.getElementById("index")?.textContent ?? "[]");
if (index.length) browse();

function browse() {
  const at = (id) => document.getElementById(id);
  const [run, step, problem, verdict, text] = ["f-run", "f-step", "f-problem", "f-verdict", "f-text"].map(at);
  const list = at("list"), detail = at("detail"), MOST = 300;
  const unpacked = new Map();
  let found = [], chosen = 0, shading = "entropy", turn = 0;

  const unpack = (id) => {
    if (!unpacked.has(id)) unpacked.set(id, (async () => {
      const bytes = Uint8Array.from(atob(at(id).textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      return JSON.parse(await new Response(stream).text());
    })());
    return unpacked.get(id);
  };
  const options = (select, pairs) => {
    const kept = select.value;
    select.replaceChildren(...pairs.map(([value, name]) => new Option(name, value)));
    if (pairs.some(([value]) => value === kept)) select.value = kept;
  };
  const element = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.append(text);
    if (name) made.className = name;
    return made;
  };
  // Marks that turn or hide text are written out.
  const HIDDEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff])/;
  const put = (parent, text, word) => {
    for (const part of text.split(HIDDEN)) {
      if (part.length === 1 && HIDDEN.test(part)) {
        const code = part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
        parent.append(element("span", `U+${code}`, "mark"));
      } else if (!word) parent.append(part);
      else {
        let rest = part;
        for (let i; (i = rest.toLowerCase().indexOf(word)) >= 0; rest = rest.slice(i + word.length))
          parent.append(rest.slice(0, i), element("mark", rest.slice(i, i + word.length)));
        parent.append(rest);
      }
    }
  };

  const stepsOf = (number) => (number === "" ? index.flatMap((one) => one.steps) : index[number].steps);
  const fillSteps = () => {
    const steps = [...new Set(stepsOf(run.value).map((one) => one.step))].sort((a, b) => a - b);
    options(step, [["", "all shown here"], ...steps.map((one) => [String(one), one === 0 ? "evaluation" : String(one)])]);
  };

  async function search() {
    const mine = ++turn, word = text.value.toLowerCase();
    const wanted = index.flatMap((one, number) =>
      run.value === "" || run.value === String(number)
        ? one.steps.filter((s) => step.value === "" || step.value === String(s.step)).map((s) => ({ run: one.name, ...s }))
        : []);
    const steps = await Promise.all(wanted.map(async (s) => ({ ...s, held: await unpack(s.id) })));
    if (mine !== turn) return; // something else is asked for by now
    const all = steps.flatMap((s) => s.held.rows.map((row) => ({ row, prompt: s.held.prompts[row.p], of: s })));
    options(problem, [["", "all"], ...[...new Set(all.map((one) => one.prompt.id))].sort().map((id) => [id, id])]);
    options(verdict, [["", "all"], ...[...new Set(all.map((one) => one.row.v ?? "not run"))].sort().map((v) => [v, v])]);
    found = all.filter((one) =>
      (!problem.value || one.prompt.id === problem.value) &&
      (!verdict.value || (one.row.v ?? "not run") === verdict.value) &&
      (!word || one.row.t.toLowerCase().includes(word) || one.prompt.t.toLowerCase().includes(word) || one.prompt.id.toLowerCase().includes(word)));
    const cut = steps.filter((s) => s.rows < s.of);
    at("found").textContent = `${found.length} of ${all.length} completions` +
      (found.length > MOST ? `, the first ${MOST} listed` : "") +
      (cut.length ? `; of ${cut.length} step${cut.length > 1 ? "s" : ""} the first ${cut[0].rows} of ${cut[0].of} are in this page` : "");
    list.replaceChildren(...found.slice(0, MOST).map(entry));
    choose(0, false);
  }

  const entry = ({ row, prompt, of }, number) => {
    const item = element("li");
    item.id = `row-${number}`;
    item.role = "option";
    const passed = row.v === "passed";
    item.append(element("span", passed ? "✓ " : row.v ? "✗ " : "· ", passed ? "pass" : row.v ? "fail" : ""));
    put(item, prompt.id);
    const reward = row.r === undefined ? "" : `, reward ${Number(row.r).toPrecision(4)}`;
    item.append(element("small", `${of.run}${of.step ? `, step ${of.step}` : ""}, sample ${row.s}${reward}`));
    item.addEventListener("click", () => choose(number, false));
    return item;
  };

  function choose(number, scroll) {
    chosen = Math.max(0, Math.min(number, list.childElementCount - 1));
    for (const item of list.children) item.setAttribute("aria-selected", String(item.id === `row-${chosen}`));
    if (!found.length) {
      list.removeAttribute("aria-activedescendant");
      return detail.replaceChildren(element("p", "No completion is like that."));
    }
    list.setAttribute("aria-activedescendant", `row-${chosen}`);
    if (scroll) list.children[chosen].scrollIntoView({ block: "nearest" });
    show(found[chosen]);
  }

  function show({ row, prompt, of }) {
    const facts = element("dl"), word = text.value.toLowerCase();
    const fact = (name, value) => {
      if (value === undefined || value === "") return;
      const there = element("dd");
      put(there, String(value));
      facts.append(element("dt", name), there);
    };
    const title = element("h3");
    put(title, `${prompt.id}, sample ${row.s}`);
    fact("verdict", (row.v ?? "not run").replaceAll("_", " "));
    if (row.why !== (row.v ?? "").replaceAll("_", " ")) fact("why", row.why);
    const left = row.tests ? (row.of ?? row.tests.length) - row.tests.length : 0;
    if (row.tests?.length) {
      const counts = new Map();
      for (const one of row.tests) counts.set(one, (counts.get(one) ?? 0) + 1);
      fact("tests", [...counts].map(([name, n]) => `${n} ${name.replaceAll("_", " ")}`).join(", ") + (left > 0 ? `, ${left} not run` : ""));
    } else if (left > 0) fact("tests", `${left}, not run`);
    fact("reward", short(row.r));
    for (const [name, value] of Object.entries(row.terms ?? {})) fact(name, short(value));
    fact("advantage", short(row.a));
    fact("length", row.n === undefined ? "" : `${row.n} tokens${row.x ? ", cut off" : ""}`);
    const parts = [title, facts];
    const completion = element("pre");
    completion.id = "completion";
    completion.tabIndex = 0;
    if (row.shades) parts.push(shades(row, completion, word));
    else put(completion, row.t, word);
    if (row.more) completion.append(element("span", ` … ${row.more} characters more`, "mark"));
    parts.push(completion);
    if (row.code !== undefined) parts.push(folded("Program", Array.isArray(row.code) ? row.t.slice(...row.code) : row.code));
    if (prompt.tests.length) parts.push(testsOf(row, prompt.tests));
    if (prompt.t) parts.push(folded("Prompt", prompt.t));
    detail.replaceChildren(...parts);
  }

  const short = (value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value);

  const testsOf = (row, tests) => {
    const made = element("details"), table = element("table"), head = table.createTHead().insertRow();
    for (const name of ["test", "verdict", "input", "expected"]) {
      const cell = head.appendChild(element("th", name));
      cell.scope = "col";
    }
    const body = table.createTBody();
    tests.forEach(([input, output], i) => {
      const line = body.insertRow(), said = row.tests?.[i];
      line.insertCell().append(String(i + 1));
      line.insertCell().append(element("span", said ? `${said === "passed" ? "✓" : "✗"} ${said.replaceAll("_", " ")}` : "not run", said ? (said === "passed" ? "pass" : "fail") : ""));
      for (const text of [input, output]) put(line.insertCell().appendChild(element("code")), text);
    });
    made.append(element("summary", tests.length < (row.of ?? 0) ? `The first ${tests.length} tests` : "Tests"), table);
    return made;
  };

  const folded = (name, text) => {
    const made = element("details"), held = element("pre");
    held.tabIndex = 0;
    put(held, text);
    made.append(element("summary", name), held);
    return made;
  };

  function shades(row, completion, word) {
    const bytes = Uint8Array.from(atob(row.shades), (c) => c.charCodeAt(0)), n = row.ends.length;
    const kinds = {
      entropy: ["entropy", (i) => Math.min(1, (8 * bytes[n + i]) / 255 / 4)], // 4 nats are as dark as it gets
      probability: ["1 − probability of the token", (i) => 1 - bytes[i] / 255],
      disparity: ["1 − probability disparity", (i) => 1 - bytes[2 * n + i] / 255],
      none: ["nothing", () => 0],
    };
    const label = element("label", "Shade by "), select = element("select");
    select.append(...Object.entries(kinds).map(([value, [name]]) => new Option(name, value)));
    select.value = shading;
    const fill = () => {
      completion.replaceChildren();
      let start = 0;
      for (let i = 0; i < n; i++) {
        const token = element("span", undefined, "t"), piece = row.t.slice(start, (start += row.ends[i]));
        token.style.setProperty("--a", kinds[shading][1](i).toFixed(2));
        token.title = `probability ${(bytes[i] / 255).toFixed(2)}, entropy ${((8 * bytes[n + i]) / 255).toFixed(2)}, disparity ${(bytes[2 * n + i] / 255).toFixed(2)}`;
        put(token, piece, word);
        completion.append(token);
      }
      put(completion, row.t.slice(start), word);
    };
    select.addEventListener("change", () => { shading = select.value; fill(); });
    fill();
    label.append(select, " (darker is less certain)");
    const made = element("p");
    made.append(label);
    return made;
  }

  options(run, [...index.map((one, number) => [String(number), one.name]), ["", "all runs"]]);
  run.value = "0";
  fillSteps();
  step.value = String(Math.max(...stepsOf("0").map((one) => one.step)));
  run.addEventListener("change", () => { fillSteps(); search(); });
  for (const select of [step, problem, verdict]) select.addEventListener("change", search);
  let waiting;
  text.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("keydown", (event) => {
    const moves = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, Home: 0, End: list.childElementCount - 1, PageDown: chosen + 10, PageUp: chosen - 10 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key], true);
  });
  search().catch((error) => { at("found").textContent = `This browser cannot unpack the completions: ${error}`; });
}

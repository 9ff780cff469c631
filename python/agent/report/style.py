"""The style sheet and the script of a report, to be put into the page. Data only.

The page is whole without the script: it moves a cursor over the charts and saves the result.
"""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16191d; --soft: #5d6670; --rule: #e2e6ea;
  --blue: #1f6fb5; --orange: #c4560a; --green: #16794c; --purple: #8a3f8f; --red: #c0272d;
  --amber: #96680a; --phase0: #00000008; --phase1: #00000000; --wash: 12%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1215; --card: #171b20; --ink: #e6e9ec; --soft: #98a2ad; --rule: #2a3037;
    --blue: #5aa9e6; --orange: #f0913d; --green: #4cc38a; --purple: #c98bd0; --red: #ff6b6b;
    --amber: #e0b04a; --phase0: #ffffff0a; --phase1: #ffffff00; --wash: 18%;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header p { margin: 0; color: var(--soft); }
h1 { margin: 0 0 4px; font-size: 24px; font-weight: 650; letter-spacing: -0.01em; }
h2 { margin: 40px 0 12px; font-size: 17px; font-weight: 650; }
section > p.about { margin: -8px 0 12px; color: var(--soft); }
.verdict, .card, .sheet, figure {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
.verdict { margin: 24px 0 0; padding: 18px 22px; border-left: 6px solid var(--tone); }
.verdict strong { color: var(--tone); font-size: 20px; }
.verdict p { margin: 4px 0 0; }
.verdict ul { margin: 10px 0 0; padding-left: 20px; }
.pass { --tone: var(--green); } .fail { --tone: var(--red); } .invalid { --tone: var(--amber); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px; }
.card { padding: 12px 16px 14px; }
.card span { display: block; color: var(--soft); font-size: 13px; }
.card b { display: block; font-size: 24px; font-weight: 600; line-height: 1.3; }
.sheet { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 8px 16px; text-align: left; vertical-align: top;
  border-top: 1px solid var(--rule); }
tr:first-child > * { border-top: 0; }
thead th { color: var(--soft); font-size: 13px; font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.note { color: var(--soft); }
tr.bad td.n, .missed { color: var(--red); font-weight: 600; }
.met { color: var(--green); font-weight: 600; } .unknown { color: var(--soft); }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 0 20px; }
figure { margin: 0 0 14px; padding: 14px 16px 8px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 18px; align-items: baseline; }
figcaption b { font-weight: 600; margin-right: auto; }
figcaption span { color: var(--soft); font-size: 13px; white-space: nowrap; }
figcaption output { color: var(--ink); font-weight: 600; display: inline-block; min-width: 5.5em; }
figcaption i { display: inline-block; width: 14px; height: 4px; border-radius: 2px;
  margin-right: 6px; vertical-align: middle; background: var(--tone); }
svg { display: block; width: 100%; height: auto; margin-top: 4px; overflow: visible; }
svg text { font-size: 12px; fill: var(--soft); paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; stroke-linejoin: round; }
svg text.x, svg text.phase { text-anchor: middle; }
svg text.y, svg text.marked { text-anchor: end; }
svg .grid { stroke: var(--rule); } svg .tick { stroke: var(--soft); }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .cursor { stroke: var(--ink); opacity: 0; }
svg .phase0 { fill: var(--phase0); } svg .phase1 { fill: var(--phase1); }
svg .line { fill: none; stroke: var(--tone); stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
svg .wide { fill: none; stroke: var(--tone); stroke-width: 7; opacity: 0.45; }
svg .percentile { stroke: var(--ink); stroke-dasharray: 3 3; opacity: 0.6; }
svg .area { fill: color-mix(in srgb, var(--tone) var(--wash), transparent); stroke: none; }
svg .bar { fill: var(--blue); }
.blue { --tone: var(--blue); } .orange { --tone: var(--orange); } .green { --tone: var(--green); }
.purple { --tone: var(--purple); } .red { --tone: var(--red); }
.show svg .cursor { opacity: 0.5; }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; padding: 6px 14px; cursor: pointer; }
button:hover { border-color: var(--soft); }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 16px 12px 40px; }
  .two { grid-template-columns: 1fr; }
}
@media print {
  body { background: none; }
  figure, .card { break-inside: avoid; }
  button { display: none; }
}
"""

# LEFT, RIGHT and WIDTH of the charts come as numbers in the data.
JAVASCRIPT = """
"use strict";
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const page = read("charts"), times = page.times;
  const charts = [...document.querySelectorAll("svg[data-chart]")];
  const count = v => Math.round(v).toLocaleString("en");
  const digits = v => String(Number(v.toPrecision(3)));
  const duration = v => v >= 1 ? digits(v) + " s" : v >= 0.001 ? digits(v * 1e3) + " ms"
    : digits(v * 1e6) + " \\u00b5s";
  const units = { count, duration, cores: v => v.toFixed(2) };
  const outputs = [...document.querySelectorAll("output[data-of]")];
  const resting = outputs.map(output => output.textContent);
  const clear = () => {
    document.body.classList.remove("show");
    outputs.forEach((output, i) => { output.textContent = resting[i]; });
  };
  const show = event => {
    const box = event.currentTarget.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * page.width;
    const end = times[times.length - 1];
    const at = (x - page.left) / (page.right - page.left) * end;
    if (at < 0 || at > end * 1.005) { clear(); return; }
    let near = 0;
    times.forEach((t, i) => { if (Math.abs(t - at) < Math.abs(times[near] - at)) near = i; });
    const line = page.left + times[near] / end * (page.right - page.left);
    document.body.classList.add("show");
    for (const chart of charts) {
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("x1", line);
      cursor.setAttribute("x2", line);
    }
    for (const output of outputs) {
      const [unit, values] = page.series[output.dataset.of] || [];
      if (!unit) { output.textContent = "at " + digits(times[near]) + " s"; continue; }
      const value = values[near];
      output.textContent = value === null ? "\\u2013" : units[unit](value);
    }
  };
  for (const chart of charts) {
    chart.addEventListener("pointermove", show);
    chart.addEventListener("pointerleave", clear);
  }
  const button = document.getElementById("save");
  button.hidden = false;
  button.addEventListener("click", () => {
    const text = document.getElementById("result").textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "result.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
"""

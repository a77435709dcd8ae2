/** What a report looks like, on a screen by day and by night, on a phone, and on paper. */

export const reportStyle = `
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f4f5f7; --ink: #1b1f24; --faint: #57606a; --edge: #d0d7de;
  --pass: #116329; --warn: #7d4e00; --fail: #b3101f; --skip: #57606a; --error: #8b1a8b;
  --band: #eaeef2; --band-other: #f6f8fa; --mark: #b3101f;
  --s0: #0b62c4; --s1: #b35900; --s2: #1a7f37; --s3: #a0268c; --s4: #007a87; --s5: #9a6700;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --raised: #161b22; --ink: #e6edf3; --faint: #9da7b3; --edge: #30363d;
    --pass: #56d364; --warn: #e3b341; --fail: #ff7b72; --skip: #9da7b3; --error: #e78af0;
    --band: #1c2330; --band-other: #12171f; --mark: #ff7b72;
    --s0: #6cb6ff; --s1: #f0883e; --s2: #56d364; --s3: #e78af0; --s4: #4dd0d8; --s5: #e3b341;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem;
  background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 1.6rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--edge); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
a { color: var(--s0); }
.faint { color: var(--faint); }
.badge {
  display: inline-block; padding: 0 .5em; border: 1.5px solid currentcolor; border-radius: .3em;
  font-size: .8rem; font-weight: 700; letter-spacing: .03em; white-space: nowrap;
}
.verdict { font-size: 1.1rem; vertical-align: middle; }
.PASS, .passed { color: var(--pass); } .WARN, .warned { color: var(--warn); }
.FAIL, .failed { color: var(--fail); } .ERROR, .lost, .aborted { color: var(--error); }
.SKIP, .cancelled, .open { color: var(--skip); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .75rem 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
tr { border-bottom: 1px solid var(--edge); }
td { overflow-wrap: anywhere; min-width: 4rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .82rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre {
  margin: .25rem 0; padding: .6rem; background: var(--raised); border: 1px solid var(--edge);
  border-radius: .3rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; min-width: 34rem; }
.chart { overflow-x: auto; }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--edge); stroke-width: 1; }
.band rect { fill: var(--band); } .band.b1 rect { fill: var(--band-other); }
.mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 6 4; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
circle.line { stroke-width: 3; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0;
  margin: .25rem 0; font-size: .8rem; color: var(--faint); }
.legend li { overflow-wrap: anywhere; }
.key { display: inline-block; width: 1.2em; height: 0; margin-right: .4em; vertical-align: middle;
  border-top: 3px solid; }
.s0, .s6 { stroke: var(--s0); border-color: var(--s0); }
.s1, .s7 { stroke: var(--s1); border-color: var(--s1); }
.s2, .s8 { stroke: var(--s2); border-color: var(--s2); }
.s3, .s9 { stroke: var(--s3); border-color: var(--s3); }
.s4, .s10 { stroke: var(--s4); border-color: var(--s4); }
.s5, .s11 { stroke: var(--s5); border-color: var(--s5); }
.s6, .s7, .s8, .s9, .s10, .s11 { stroke-dasharray: 5 3; border-top-style: dashed; }
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dt { margin-top: .4rem; }
}
@media print {
  :root {
    --ground: #fff; --raised: #fff; --ink: #000; --faint: #444; --edge: #bbb;
    --pass: #0a5a20; --warn: #6b4300; --fail: #a00; --skip: #444; --error: #707;
    --band: #eee; --band-other: #f8f8f8; --mark: #a00;
    --s0: #0b62c4; --s1: #b35900; --s2: #1a7f37; --s3: #a0268c; --s4: #007a87; --s5: #9a6700;
  }
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, .chart { overflow: visible; } svg { min-width: 0; }
  h2, h3, figcaption { break-after: avoid; }
  tr, figure, dl { break-inside: avoid; }
  thead { display: table-header-group; }
}
`;

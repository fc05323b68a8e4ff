//! The page's style sheet: light and dark by the reader's preference, print, phone width.

pub(super) const STYLE: &str = r#"
:root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1c2024;--soft:#5c6670;--line:#d9dde1;--card:#fff;
--good:#17754c;--bad:#b3261e;--warn:#8a5a00;--on:#2f6db5;--claim:#c9d8ea;--h:#0f5132;--o:#2f6db5;--a:#8a6fb3;--s:#b08a3c}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa5b0;--line:#333a41;--card:#1b1f23;
--good:#58c08d;--bad:#ff8a80;--warn:#e8b44c;--on:#6aa5e8;--claim:#2b3d52;--h:#58c08d;--o:#6aa5e8;--a:#b79ae0;--s:#d8b46a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;margin:0 0 .25rem;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2.5rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .25rem}
p{margin:.4rem 0}.soft{color:var(--soft)}code{font-size:.85em;overflow-wrap:anywhere}
.banner{border-left:.4rem solid var(--bad);background:var(--card);padding:.75rem 1rem;margin:1rem 0}
.banner.valid{border-color:var(--good)}.banner strong{font-size:1.15rem}
.figures{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}
.figures div{background:var(--card);border:1px solid var(--line);padding:.75rem 1rem;min-width:9rem;flex:1}
.figures b{display:block;font-size:1.5rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;background:var(--card)}
th,td{text-align:left;padding:.35rem .5rem;border-bottom:1px solid var(--line);vertical-align:top}th{font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.two{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:center}.two>*{flex:1;min-width:17rem}
svg{max-width:30rem;width:100%;height:auto}svg text{fill:var(--fg);font-size:11px}
.ring{fill:none;stroke:var(--line)}.shape{fill:var(--on);fill-opacity:.25;stroke:var(--on);stroke-width:2}
.heat{white-space:nowrap}.cell{display:inline-block;width:1.35rem;height:1.1rem;border:1px solid var(--line);margin-right:2px;
font-size:.7rem;line-height:1rem;text-align:center}
.cell.on{background:var(--on);border-color:var(--on);color:var(--bg)}.cell.held{background:var(--claim)}.cell.goal{outline:2px solid var(--warn)}
.invalid .cell.on{background:var(--soft);border-color:var(--soft)}.invalid .shape{fill:var(--soft);stroke:var(--soft)}
.bar{display:flex;height:.9rem;min-width:6rem;background:var(--line)}.bar i{display:block}
.t0{background:var(--s)}.t1{background:var(--a)}.t2{background:var(--o)}.t3{background:var(--h)}
.key i{display:inline-block;width:.8rem;height:.8rem;margin:0 .3rem 0 .8rem}
.error{color:var(--bad)}.warn{color:var(--warn)}
details{border-bottom:1px solid var(--line);padding:.3rem 0}summary{cursor:pointer}
details>div{padding:.25rem 0 .5rem 1rem}
@media (max-width:38rem){body{font-size:15px}main{padding:1rem .6rem 3rem}.figures{gap:.5rem}.figures div{flex:1 1 40%;min-width:8rem}.figures b{font-size:1.2rem}th,td{padding:.3rem}}
@media print{:root{--bg:#fff;--fg:#000;--card:#fff;--soft:#444}main{max-width:none;padding:0}h2,tr,details{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}.cell,.bar,.bar i,.key i{print-color-adjust:exact}}
"#;

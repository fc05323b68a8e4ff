//! The page's style sheet: light and dark by the reader's preference, print, phone width.
//!
//! Text has a contrast of at least 4.5 against its background in both, which `cargo xtask browser`
//! measures. Nothing is told by colour alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) const STYLE: &str = r#"
:root{color-scheme:light dark;--bg:#f6f5f1;--fg:#1b1f23;--soft:#545c64;--line:#d5d3cb;--card:#fff;--link:#17507a;
--good:#17663f;--bad:#a3231a;--warn:#7a4d00;--on:#1d5b86;--onfg:#fff;--held:#c5dae9;--h:#17663f;--o:#2f74ac;--a:#7a5ea6;--s:#a3782a}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e7e9eb;--soft:#a7b0b8;--line:#3a4148;--card:#1c2024;--link:#8cc3ea;
--good:#6ccf9c;--bad:#ff9a8f;--warn:#e9bd62;--on:#7db7e0;--onfg:#101418;--held:#2c4457;--h:#6ccf9c;--o:#7db7e0;--a:#bda2e6;--s:#d8b46a}}
.invalid{--on:#5d646b;--onfg:#fff}
@media (prefers-color-scheme:dark){.invalid{--on:#9aa2a9;--onfg:#101418}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;overflow-wrap:anywhere}
main{max-width:62rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1,h2{font-family:Charter,"Bitstream Charter",Georgia,Cambria,serif;line-height:1.2}
h1{font-size:2.1rem;margin:0}h2{font-size:1.4rem;margin:3rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--fg)}
h3{font-size:1rem;margin:1.5rem 0 .35rem}p{margin:.4rem 0}ul,ol{padding-left:1.25rem;margin:.4rem 0}li{margin:.2rem 0}
a{color:var(--link)}.soft,.kicker{color:var(--soft)}.kicker{margin:0;letter-spacing:.04em}code{font:.86em/1.4 ui-monospace,Menlo,Consolas,monospace}
.banner{border-left:.45rem solid var(--bad);background:var(--card);padding:.8rem 1rem;margin:1.25rem 0}
.banner strong{font-size:1.3rem;color:var(--bad)}.banner.valid{border-color:var(--good)}.banner.valid strong{color:var(--good)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:1.25rem 0}
.figures div{background:var(--card);border:1px solid var(--line);padding:.8rem 1rem;display:flex;flex-direction:column-reverse;justify-content:flex-end}
.figures dt{color:var(--soft)}.figures dd{margin:0;font-size:1.5rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.invalid .figures dd{color:var(--soft)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin:1rem 0;font-size:.92rem}
.greyed{border:1px dashed var(--bad);color:var(--bad);padding:.35rem .7rem;background:var(--card)}
table{border-collapse:collapse;width:100%;background:var(--card);font-size:.95rem}
th,td{text-align:left;padding:.4rem .55rem;border-bottom:1px solid var(--line);vertical-align:top}
thead th{font-weight:600;color:var(--soft);border-bottom:2px solid var(--line);overflow-wrap:normal}tbody th{font-weight:650;background:var(--bg)}
.stack td{min-width:5.6rem}.stack td.n{min-width:0}.nb{white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:1rem 1.5rem;align-items:center}
figure{margin:0}.radar{display:block;width:100%;max-width:32rem;height:auto}.radar text{fill:var(--fg);font-size:13px}
.ring{fill:none;stroke:var(--line)}.shape{fill:var(--on);fill-opacity:.28;stroke:var(--on);stroke-width:2.5}
.goal{fill:none;stroke:var(--warn);stroke-width:2;stroke-dasharray:5 4}
.key{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}.key li{display:flex;align-items:center;gap:.45rem}
.cells{display:inline-flex;gap:2px;vertical-align:middle}
.c{display:inline-block;flex:none;width:1.4rem;height:1.35rem;border:1px solid var(--line);background:var(--card);color:var(--soft);font:.75rem/1.25rem system-ui,sans-serif;text-align:center}
.c.on{background:var(--on);border-color:var(--on);color:var(--onfg)}.c.held{background:var(--held);color:var(--fg)}
.c.gap{border:2px dashed var(--warn);line-height:1.1rem}.c.said{box-shadow:0 3px 0 var(--fg)}
.heat td{vertical-align:middle}.heat td:nth-child(2){white-space:nowrap;width:1%}.heat a{text-decoration-thickness:1px;text-underline-offset:2px}
.bar{display:block;width:100%;min-width:5rem;height:.85rem;margin:.3rem 0;background:var(--line)}.key .bar{width:1.1rem;min-width:1.1rem;margin:0}
.t0{fill:var(--s)}.t1{fill:var(--a)}.t2{fill:var(--o)}.t3{fill:var(--h)}.lost{fill:var(--bad)}
.error{color:var(--bad)}.warn{color:var(--warn)}
details{border-bottom:1px solid var(--line)}summary{cursor:pointer;padding:.45rem 0}summary .cells{margin-right:.5rem}details>div{padding:.1rem 0 1rem 1rem}
@media (max-width:44rem){body{font-size:15px}main{padding:1.1rem .7rem 3rem}h1{font-size:1.6rem}h2{margin-top:2.2rem}
.figures{grid-template-columns:1fr 1fr}.figures dd{font-size:1.2rem}.c{width:1.15rem}th,td{padding:.35rem .3rem}details>div{padding-left:.3rem}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack,.stack tbody,.stack tr,.stack td{display:block}.stack tr{border-bottom:1px solid var(--line);padding:.35rem .5rem}
.stack td,.stack td.n{min-width:0;border:0;padding:.1rem 0;text-align:left}.stack td:empty{display:none}
.stack td[data-name]:before{content:attr(data-name) ": ";color:var(--soft)}}
@media print{:root,.invalid{color-scheme:light;--bg:#fff;--fg:#000;--card:#fff;--soft:#444;--line:#bbb;--link:#000;--good:#17663f;--bad:#a3231a;--warn:#7a4d00;--held:#c5dae9;--onfg:#fff;--h:#17663f;--o:#2f74ac;--a:#7a5ea6;--s:#a3782a}
:root{--on:#1d5b86}.invalid{--on:#5d646b}
body{font-size:10.5pt}main{max-width:none;padding:0}nav{display:none}h2,h3{break-after:avoid}tr,li,summary,figure{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}*{print-color-adjust:exact}}
"#;

/// The style sheet as a source of a content security policy.
pub(super) fn style_source() -> String {
    format!("sha256-{}", STANDARD.encode(amc_crypto::sha256(STYLE.as_bytes()).0))
}

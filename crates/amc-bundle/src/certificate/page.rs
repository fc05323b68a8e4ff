//! The certificate as one HTML page: nothing to load, no script, one sheet in print. Every figure comes
//! from a certificate that verified.

use std::fmt::Write as _;

use amc_crypto::PublicKey;

use super::VerifiedCertificate;

const STYLE: &str = r#"
:root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1c2024;--soft:#5c6670;--line:#d9dde1;--good:#17754c}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa5b0;--line:#333a41;--good:#58c08d}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif}
main{max-width:48rem;margin:0 auto;padding:2rem 1rem;border-top:.5rem solid var(--good)}
h1{font-size:1.7rem;margin:0;overflow-wrap:anywhere}h2{font-size:1rem;margin:1.6rem 0 .3rem}
p{margin:.3rem 0}.soft{color:var(--soft)}code{font-size:.8rem;overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}
.figures div{border:1px solid var(--line);padding:.6rem .9rem;flex:1 1 8rem}.figures b{display:block;font-size:1.4rem}
table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{text-align:left;padding:.2rem .5rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
@page{size:A4;margin:10mm 12mm}
@media print{:root{--bg:#fff;--fg:#000;--soft:#444}body{font-size:8.5pt;line-height:1.25}
main{max-width:none;padding:.4rem 0;border-top-color:var(--good);print-color-adjust:exact}h1{font-size:1.3rem}
h2{font-size:.8rem;margin:.6rem 0 .1rem;break-after:avoid}p{margin:.1rem 0}.figures{margin:.4rem 0;gap:.4rem}
.figures div{padding:.2rem .5rem}.figures b{font-size:1rem}table{font-size:7.5pt}code{font-size:7pt}
th,td{padding:.05rem .5rem .05rem 0}tr{break-inside:avoid}}
"#;

/// The page.
pub fn page(certificate: &VerifiedCertificate) -> String {
    let mut out = String::new();
    write_all(&mut out, certificate).expect("writing into a string cannot fail");
    out
}

fn write_all(out: &mut String, certificate: &VerifiedCertificate) -> std::fmt::Result {
    let (says, report) = (&certificate.predicate, &certificate.bundle.report);
    let agent = escaped(says.agent.as_str());
    let security = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    writeln!(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">")?;
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{security}\">")?;
    writeln!(out, "<title>Certificate of {agent}</title><style>{STYLE}</style></head><body><main>")?;
    writeln!(out, "<p class=\"soft\">Certificate of agent maturity</p><h1>{agent}</h1>")?;
    let workspace = escaped(says.workspace.as_str());
    writeln!(out, "<p>of {workspace}, valid from {} to {}</p>", escaped(&says.not_before), escaped(&says.not_after))?;
    writeln!(out, "<div class=\"figures\">")?;
    writeln!(out, "<div><b>{}</b>overall, of 5</div>", level(report.overall_bp))?;
    writeln!(out, "<div><b>{}</b>IntegrityIndex</div>", percent(report.integrity_bp))?;
    writeln!(out, "<div><b>{}</b>status</div>", report.status)?;
    writeln!(out, "<div><b>{}</b>label</div></div>", report.label)?;
    writeln!(out, "<h2>Layers</h2><table>")?;
    for layer in &report.layers {
        writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(&layer.title), level(layer.level_bp))?;
    }
    let days = report.window_s / 86_400;
    writeln!(out, "</table><h2>What it rests on</h2><table>")?;
    let counted = report.sessions.iter().filter(|session| session.counted).count();
    let evidence = &certificate.bundle.evidence;
    let witnesses =
        |names: &[(String, u64)]| names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let rows = [
        ("Window", format!("{days} days up to {}", report.as_of)),
        ("Sessions counted", format!("{counted} of {}", report.sessions.len())),
        ("Evidence", format!("{} events of a log of {}", evidence.events, evidence.size)),
        (
            "Cosigned by",
            format!("{}; {}", witnesses(&evidence.witnesses), witnesses(&certificate.bundle.audit.witnesses)),
        ),
        ("Question bank", format!("{} version {}, sha256 {}", report.bank.id, report.bank.version, report.bank.sha256)),
    ];
    rows.iter().try_for_each(|(name, value)| row(out, name, value))?;
    writeln!(
        out,
        "</table><h2>The policy that it passed</h2><table><tr><th>Rule</th><th>Wanted</th><th>Found</th></tr>"
    )?;
    for rule in certificate.rules.rules.iter().filter(|rule| rule.wanted != crate::gate::NOT_ASKED) {
        let cells = [&rule.rule, &rule.wanted, &rule.found].map(|text| escaped(text));
        writeln!(out, "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", cells[0], cells[1], cells[2])?;
    }
    writeln!(
        out,
        "</table><h2>How to check</h2><p>This page proves nothing by itself. Get the .amccert file, pin the \
                   issuer's key by a way of your own, and run <code>amc cert verify FILE.amccert</code>.</p><table>"
    )?;
    let key: PublicKey = certificate.bundle.key;
    let rows = [
        ("Certificate", says.certificate_id.to_string()),
        ("Run", says.run_id.to_string()),
        ("Issuer", says.issuer.clone()),
        ("Issuer's key", key.dsse_key_id()),
        ("certificate.dsse.json", format!("sha256 {}", certificate.sha256)),
        ("Policy", format!("version {}, sha256 {}", says.policy.version, says.policy.sha256)),
    ];
    rows.iter().try_for_each(|(name, value)| row(out, name, value))?;
    writeln!(out, "</table></main></body></html>")
}

fn row(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "<tr><th>{}</th><td><code>{}</code></td></tr>", escaped(name), escaped(value))
}

/// A level in basis points as text, rounded down: 32,599 is `3.25`.
pub(super) fn level(bp: u32) -> String {
    format!("{}.{:02}", bp / 10_000, bp % 10_000 / 100)
}

fn percent(bp: u32) -> String {
    format!("{}.{:02} %", bp / 100, bp % 100)
}

/// Text for an element or an attribute in double quotes, without control characters.
pub(super) fn escaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

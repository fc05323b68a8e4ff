//! The badge: a small SVG whose every figure comes from a certificate that verified.

use super::VerifiedCertificate;
use super::page::{escaped, level};

/// Average advance of a character at 11 px, for the width of a field, in tenths of a pixel.
const CHAR_WIDTH_TENTHS: usize = 67;

/// The badge as SVG: the agent, its level, and until when that is certified.
pub fn badge(certificate: &VerifiedCertificate) -> String {
    let report = &certificate.bundle.report;
    let day = certificate.predicate.not_after.get(..10).unwrap_or_default();
    let left = format!("AMC {}", report.agent);
    let right = format!("level {} of 5, {}, until {day}", level(report.overall_bp), report.label);
    let width = |text: &str| text.chars().count() * CHAR_WIDTH_TENTHS / 10 + 12;
    let (first, second) = (width(&left), width(&right));
    let total = first + second;
    let (left, right) = (escaped(&left), escaped(&right));
    let id = &certificate.predicate.certificate_id;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" height=\"20\" role=\"img\" aria-label=\"{left}: \
         {right}\"><title>{left}: {right} ({id})</title><rect width=\"{total}\" height=\"20\" rx=\"3\" fill=\"#17754c\"/>\
         <path d=\"M3 0h{}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z\" fill=\"#3b444b\"/><g fill=\"#fff\" \
         text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\"><text x=\"{}\" \
         y=\"14\" textLength=\"{}\">{left}</text><text x=\"{}\" y=\"14\" textLength=\"{}\">{right}</text></g></svg>\n",
        first - 3,
        first / 2,
        first - 12,
        first + second / 2,
        second - 12
    )
}

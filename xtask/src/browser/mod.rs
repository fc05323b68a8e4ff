//! `cargo xtask browser`: the report's page in a real browser, Debian's chromium, headless.
//!
//! The pages of the showcase workspaces, as they are, in light and dark, on a phone and on a desk: no request, no
//! console message, no sideways scrolling, contrast of every text by WCAG AA, every label of a drawing inside it, and
//! printing shows what is folded. A certificate's page likewise, and on one sheet of A4. A page with one of each defect
//! comes first, and each has to be found in it. Without chromium it says so and checks nothing.

mod devtools;

use crate::stage;
use crate::workspace::{self, Workspace, cargo};
use crate::{Failure, process, tools};
use devtools::Browser;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs the check.
///
/// # Errors
/// A page has a defect, a planted defect was not found, or the browser did not answer.
pub fn command(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.first() {
        return Err(Failure::new(format!("browser takes no argument, not `{unknown}`")));
    }
    if !tools::debian(&["chromium", "--version"], &["chromium"])? {
        println!("SKIPPED: browser: chromium is missing; as root: apt-get install chromium");
        return Ok(());
    }
    let workspace = Workspace::read(&workspace::root())?;
    let dir = stage::same_dir(&workspace, "browser")?;
    let pages = dir.join("pages");
    let mut example = cargo(&workspace.root);
    example.args(["run", "--quiet", "--locked", "-p", "amc-scoring", "--example", "pages", "--"]).arg(&pages);
    process::pass_through(&mut example)?;
    let mut browser = Browser::start(&dir)?;
    planted(&mut browser, &dir)?;
    let mut defects = Vec::new();
    for page in PAGES {
        let path = pages.join(page).with_extension("html");
        for view in VIEWS {
            let found = look(&mut browser, &path, view)?;
            let (texts, least) = (&found["texts"], &found["least_contrast"]);
            println!("{page:<8} {:>4} px {:<5} {texts} texts, least contrast {least}", view.width, view.scheme);
            defects.extend(defects_of(&found).into_iter().map(|what| format!("{page}, {view}: {what}")));
        }
        defects.extend(print(&mut browser, &path)?.into_iter().map(|what| format!("{page}, printed: {what}")));
    }
    let sheet = certificate(&workspace, &pages)?;
    for view in VIEWS {
        let found = defects_of(&look(&mut browser, &sheet, view)?);
        defects.extend(found.into_iter().map(|what| format!("certificate, {view}: {what}")));
    }
    defects.extend(print(&mut browser, &sheet)?.into_iter().map(|what| format!("certificate, printed: {what}")));
    if second_sheet(&mut browser) {
        defects.push("certificate, printed: it takes more than one sheet of A4".into());
    }
    browser.open(&pages.join("valid.html"))?;
    if !second_sheet(&mut browser) {
        return Err(Failure::new("a report has more than one sheet, and the browser says that it has one"));
    }
    browser.close()?;
    if defects.is_empty() { Ok(()) } else { Err(Failure::new(defects.join("\n"))) }
}

/// The page of a certificate whose policy sets every key, as a test writes it.
fn certificate(workspace: &Workspace, dir: &Path) -> Result<PathBuf, Failure> {
    let mut write = cargo(&workspace.root);
    write.args(["test", "--locked", "--quiet", "-p", "amc-bundle", "--test", "it", "certs::the_page_of_a_policy"]);
    process::capture(write.env("AMC_WRITE_PAGES", dir), process::NEVER)?.success()?;
    Ok(dir.join("certificate.html"))
}

/// Whether there is a second sheet of A4: the browser refuses to print a page that there is not.
fn second_sheet(browser: &mut Browser) -> bool {
    let a4 = json!({"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": true, "pageRanges": "2"});
    browser.call("Page.printToPDF", &a4).is_ok()
}

/// What the example writes.
const PAGES: [&str; 3] = ["valid", "invalid", "hostile"];

/// A width and a colour scheme.
#[derive(Clone, Copy)]
struct View {
    width: u32,
    scheme: &'static str,
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} px, {}", self.width, self.scheme)
    }
}

const VIEWS: [View; 6] = [
    View { width: 360, scheme: "light" },
    View { width: 360, scheme: "dark" },
    View { width: 390, scheme: "light" },
    View { width: 390, scheme: "dark" },
    View { width: 1280, scheme: "light" },
    View { width: 1280, scheme: "dark" },
];

/// Runs in the page and gives what it measured.
const MEASURE: &str = include_str!("measure.js");
/// One of each defect; its `name` attributes are what must be found.
const BROKEN: &str = include_str!("broken.html");
/// The kinds of defects that the broken page has.
const PLANTED: [&str; 8] =
    ["overflow", "contrast", "contrast of ::before", "label outside", "labels overlap", "script", "request", "console"];

/// Opens a page and measures it; requests and console messages are among what is found.
fn look(browser: &mut Browser, path: &Path, view: View) -> Result<Value, Failure> {
    let size = json!({"width": view.width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", &size)?;
    let scheme = json!({"media": "", "features": [{"name": "prefers-color-scheme", "value": view.scheme}]});
    browser.call("Emulation.setEmulatedMedia", &scheme)?;
    let mut heard = browser.open(path)?;
    let mut found = browser.evaluate(MEASURE)?;
    heard.extend(browser.heard());
    if found["scheme"] != view.scheme || found["width"] != view.width {
        return Err(Failure::new(format!("the browser did not show the page as {view}: {found}")));
    }
    let defects = found["defects"].as_array_mut().ok_or_else(|| Failure::new("measure.js gave no defects"))?;
    defects.extend(heard.into_iter().map(Value::String));
    Ok(found)
}

fn defects_of(found: &Value) -> Vec<String> {
    found["defects"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The check itself is checked: each planted defect has to be found.
fn planted(browser: &mut Browser, dir: &Path) -> Result<(), Failure> {
    let path = dir.join("broken.html");
    fs::write(&path, BROKEN)?;
    let found = defects_of(&look(browser, &path, VIEWS[0])?);
    let missed: Vec<&str> =
        PLANTED.into_iter().filter(|kind| !found.iter().any(|what| what.starts_with(&format!("{kind}: ")))).collect();
    if missed.is_empty() {
        println!("each of {} planted defects was found", PLANTED.len());
        return Ok(());
    }
    Err(Failure::new(format!("planted and not found: {}\nfound: {}", missed.join(", "), found.join("\n       "))))
}

/// Printing works, on paper of usual size, and shows what is folded on the screen.
fn print(browser: &mut Browser, path: &Path) -> Result<Vec<String>, Failure> {
    browser.open(path)?;
    let paper = json!({"width": 794, "height": 1123, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", &paper)?;
    browser.call("Emulation.setEmulatedMedia", &json!({"media": "print", "features": []}))?;
    let folded = "[...document.querySelectorAll('details > div')].filter(div => div.offsetHeight === 0).length";
    let folded = browser.evaluate(folded)?;
    let mut defects = Vec::new();
    if folded != 0 {
        defects.push(format!("{folded} folded parts stay folded on paper"));
    }
    let pdf = browser.call("Page.printToPDF", &json!({"printBackground": true}))?;
    // Base64 of `%PDF-`; a page with text has more than a few kilobytes.
    let data = pdf["data"].as_str().unwrap_or_default();
    if !data.starts_with("JVBERi0") || data.len() < 20_000 {
        defects.push(format!("the PDF has {} characters of Base64", data.len()));
    }
    Ok(defects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_refused() {
        assert!(command(&["page.html".into()]).is_err());
    }

    #[test]
    fn defects_are_read_from_what_was_measured() {
        assert_eq!(defects_of(&json!({"defects": ["a", 1, "b"]})), ["a", "b"]);
        assert!(defects_of(&json!({})).is_empty());
    }
}

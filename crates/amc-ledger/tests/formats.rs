//! The format pages name what the code knows.

use amc_core::kinds::KINDS;

#[test]
fn every_kind_stands_in_the_registry() {
    let page = include_str!("../../../docs/formats/kinds.md");
    for (number, name) in KINDS {
        let heading = format!("\n## {number} `{name}`\n");
        assert!(page.contains(&heading), "docs/formats/kinds.md has a section {number} `{name}`");
        let row = format!("\n| {number} | [`{name}`](#{number}-{name}) | ");
        assert!(page.contains(&row), "docs/formats/kinds.md lists kind {number} `{name}`");
    }
    let sections = page.lines().filter(|line| line.starts_with("## ") && line.contains('`')).count();
    assert_eq!(sections, KINDS.len(), "docs/formats/kinds.md has no section of a kind that does not exist");
}

//! Writes the pages of the showcase workspaces into a directory, for `cargo xtask browser`.

#![expect(dead_code, reason = "the world of the tests has more than the pages need")]

#[path = "../tests/scoring/showcase.rs"]
mod showcase;
#[path = "../tests/scoring/world.rs"]
mod world;

use std::path::PathBuf;

use amc_scoring::{Report, render};

fn main() -> std::io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("name the directory to write the pages into"));
    };
    std::fs::create_dir_all(&dir)?;
    let write =
        |name: &str, report: &Report| std::fs::write(dir.join(name).with_extension("html"), render::html(report));
    write("valid", &showcase::valid())?;
    write("invalid", &showcase::invalid())?;
    write("hostile", &showcase::hostile())
}

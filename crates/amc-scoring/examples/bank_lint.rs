//! Lints the shipped bank, or the file that is named: prints what is wrong and ends with 1, or what
//! was looked at and 0. `cargo xtask bank-lint` runs it.

#![expect(dead_code, reason = "the world of the tests has more than the lint needs")]

#[path = "../tests/scoring/lint.rs"]
mod lint;
#[path = "../tests/scoring/showcase.rs"]
mod showcase;
#[path = "../tests/scoring/world.rs"]
mod world;

use std::error::Error;
use std::process::ExitCode;

use amc_scoring::{Bank, SHIPPED_BANK};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let bytes = std::env::args_os().nth(1).map(std::fs::read).transpose()?;
    let bank = Bank::parse(bytes.as_deref().unwrap_or(SHIPPED_BANK))?;
    let violations = lint::violations(&bank, &showcase::exemplary(&bank), &lint::PENDING);
    for violation in &violations {
        println!("{violation}");
    }
    let (questions, levels) = (bank.questions.len(), 5 * bank.questions.len());
    println!("bank {} version {}: {questions} questions, {levels} levels with their neighbours", bank.id, bank.version);
    for (name, item) in lint::PENDING {
        println!("pending: {name}, until {item}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

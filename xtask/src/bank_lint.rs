//! `cargo xtask bank-lint`: whether the question bank is honest, by an example of `amc-scoring`.
//!
//! Every fact that a gate names has a detector and a fixture, or is listed with what brings it; every level of every
//! question is reached by what it asks for and missed with one fact, session or day less; no gate of level 4 or 5 rests
//! on documents alone; and a workspace of good work reaches whatever can be reached.

use crate::workspace::{self, cargo};
use crate::{Failure, process};

/// Lints the shipped bank, or the file that is named.
///
/// # Errors
/// The bank does not parse, or has a violation; each is printed.
pub fn command(args: &[String]) -> Result<(), Failure> {
    if args.len() > 1 {
        return Err(Failure::new("bank-lint takes one file or nothing"));
    }
    let mut example = cargo(&workspace::root());
    example.args(["run", "--quiet", "--locked", "-p", "amc-scoring", "--example", "bank_lint", "--"]);
    if let Some(file) = args.first() {
        example.arg(std::path::absolute(file)?);
    }
    process::pass_through(&mut example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_are_refused() {
        assert!(command(&["a".into(), "b".into()]).is_err());
    }
}

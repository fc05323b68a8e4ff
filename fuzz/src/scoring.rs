//! Question banks, claims, targets, and reports.

use std::sync::OnceLock;

use amc_core::AgentId;
use amc_scoring::{Bank, Claims, Report, SHIPPED_BANK, Target};

fn shipped() -> &'static Bank {
    static BANK: OnceLock<Bank> = OnceLock::new();
    BANK.get_or_init(|| Bank::parse(SHIPPED_BANK).expect("the shipped bank"))
}

/// A bank that parses answers for every question that it lists.
pub(crate) fn bank(data: &[u8]) {
    let Ok(bank) = Bank::parse(data) else { return };
    assert!(bank.questions.iter().all(|question| bank.question(&question.id).is_some()));
}

/// Claims and targets name questions of the bank only.
pub(crate) fn claims(data: &[u8]) {
    let _ = Claims::parse(data, shipped());
    let agent = AgentId::new("bot").expect("a plain name");
    let _ = Target::parse(data, &agent, shipped());
}

/// A report has one form.
pub(crate) fn report(data: &[u8]) {
    if let Ok(report) = Report::from_bytes(data) {
        assert_eq!(report.to_bytes(), data);
    }
}

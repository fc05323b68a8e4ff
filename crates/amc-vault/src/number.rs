//! Which of a role's logs a key is for. A role has one log; when that one is broken and given up,
//! the next is its successor: `<workspace>/evidence`, then `<workspace>/evidence/2`, `/3` and so on.

use std::fmt;

use amc_core::WorkspaceName;
use amc_core::kinds::Role;

/// The number of a role's log, from 1. A key is named after its log, so this and the role are all
/// that may be chosen about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogNumber(u32);

impl LogNumber {
    /// The log that `init` opens.
    pub const FIRST: LogNumber = LogNumber(1);

    /// The number of a successor; `None` below 2.
    pub const fn successor(number: u32) -> Option<Self> {
        if number < 2 { None } else { Some(LogNumber(number)) }
    }

    /// The log after this one; `None` at the end of the numbers.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(LogNumber(number)),
            None => None,
        }
    }

    /// The number in an origin that has one spelling only: none for the first log, then `/2` on.
    pub fn of_origin(origin: &str) -> Option<Self> {
        let mut parts = origin.splitn(3, '/');
        WorkspaceName::new(parts.next()?).ok()?;
        let log = parts.next()?;
        let known = [Role::Monitor, Role::Auditor].iter().any(|role| role.log_name() == log);
        let number = match parts.next() {
            None => Some(LogNumber::FIRST),
            Some(text) => {
                text.parse().ok().and_then(LogNumber::successor).filter(|number| number.0.to_string() == text)
            }
        };
        number.filter(|_| known)
    }

    /// The origin of this log of `role`.
    pub(crate) fn origin(self, workspace: &WorkspaceName, role: Role) -> String {
        match self {
            LogNumber::FIRST => format!("{workspace}/{}", role.log_name()),
            LogNumber(number) => format!("{workspace}/{}/{number}", role.log_name()),
        }
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_say_their_number_in_one_spelling() {
        let workspace = WorkspaceName::new("acme-1").expect("a name");
        for (number, origin) in [(1, "acme-1/evidence"), (2, "acme-1/evidence/2"), (10, "acme-1/evidence/10")] {
            assert_eq!(LogNumber(number).origin(&workspace, Role::Monitor), origin);
            assert_eq!(LogNumber::of_origin(origin), Some(LogNumber(number)), "{origin}");
        }
        for origin in ["", "acme-1", "acme-1/", "acme-1/other", "acme-1/evidence/", "acme-1/evidence/1"] {
            assert_eq!(LogNumber::of_origin(origin), None, "{origin}");
        }
        for origin in ["acme-1/evidence/02", "acme-1/evidence/+2", "acme-1/evidence/2/3", "/evidence", "A/audit/2"] {
            assert_eq!(LogNumber::of_origin(origin), None, "{origin}");
        }
        assert_eq!(LogNumber::successor(1), None);
        assert_eq!(LogNumber::FIRST.next(), LogNumber::successor(2));
        assert_eq!(LogNumber(u32::MAX).next(), None);
    }
}

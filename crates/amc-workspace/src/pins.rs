//! Adding a role's keys to the text of a trust policy, whose other lines stay as their owner wrote them.

use amc_core::kinds::Role;

/// The policy with the role's log and witness pinned before the groups, and the witness a member of
/// the group `roles`, where there is one. Whoever uses it parses it first.
pub fn with_role(policy: &str, role: Role, log_key: &str, witness_key: &str) -> String {
    let pins = format!("log {log_key}\nwitness {role}-witness {witness_key}\n");
    let mut text = String::with_capacity(policy.len() + pins.len());
    let mut pins = Some(pins);
    for line in policy.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if matches!(first, "group" | "quorum") {
            text += &pins.take().unwrap_or_default();
        }
        text += line;
        if line.split_whitespace().take(2).eq(["group", "roles"]) {
            text += &format!(" {role}-witness");
        }
        text.push('\n');
    }
    text + &pins.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_joins_the_group_of_roles_and_nothing_else_changes() {
        let old = "# ours\nlog a\nwitness auditor-witness b\ngroup roles any auditor-witness\nquorum roles\n";
        let new = "# ours\nlog a\nwitness auditor-witness b\nlog LOG\nwitness monitor-witness WITNESS\n\
                   group roles any auditor-witness monitor-witness\nquorum roles\n";
        assert_eq!(with_role(old, Role::Monitor, "LOG", "WITNESS"), new);
        let other = "log a\ngroup rolesakin any x\nquorum none\n";
        let joined = with_role(other, Role::Auditor, "LOG", "WITNESS");
        assert_eq!(joined, "log a\nlog LOG\nwitness auditor-witness WITNESS\ngroup rolesakin any x\nquorum none\n");
    }
}

//! Lengths of time on the command line: a number and a unit, such as `14d`.

/// Seconds of a text such as `90s`, `15m`, `24h`, `14d` or `2w`; never zero.
///
/// # Errors
/// What is wrong, for the one who typed it.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time such as 14d; use a number and s, m, h, d or w");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = number.parse().ok().filter(|_| digits);
    number.and_then(|number| number.checked_mul(unit)).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_bounds() {
        for (text, wanted) in [("1s", 1), ("15m", 900), ("24h", 86_400), ("14d", 1_209_600), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Ok(wanted));
        }
        for wrong in ["", "d", "14", "0d", "+1d", "-1d", "1.5h", "1y", "14 d", "é", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

//! RFC 3339 text for nanoseconds since the Unix epoch, always UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;
/// Nanoseconds in a UTC day.
pub const NS_PER_DAY: i64 = 86_400 * NS_PER_S;

/// A text that is not an RFC 3339 time between the years 1678 and 2261.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-01-31T12:00:00Z")]
pub struct TimestampError(pub String);

/// RFC 3339 in UTC; the fraction is left out where it is zero.
pub fn to_rfc3339(wall_ns: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_ns))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .expect("an i64 of nanoseconds lies between the years 1678 and 2261, which RFC 3339 can write")
}

/// Nanoseconds since the epoch of an RFC 3339 text with any offset.
///
/// # Errors
/// [`TimestampError`] when the text is not RFC 3339 or does not fit.
pub fn from_rfc3339(text: &str) -> Result<i64, TimestampError> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimestampError(text.to_owned()))?;
    i64::try_from(moment.unix_timestamp_nanos()).map_err(|_| TimestampError(text.to_owned()))
}

/// The number of the UTC day that holds this moment (1970-01-01 is day 0).
pub const fn utc_day(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(NS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(from_rfc3339(&to_rfc3339(ns)), Ok(ns));
        }
        assert_eq!(to_rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(from_rfc3339("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(from_rfc3339("yesterday").is_err());
    }

    #[test]
    fn days_before_the_epoch_are_negative() {
        assert_eq!(utc_day(-1), -1);
        assert_eq!(utc_day(0), 0);
        assert_eq!(utc_day(NS_PER_DAY), 1);
    }
}

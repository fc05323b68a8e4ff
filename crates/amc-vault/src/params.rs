//! scrypt's cost parameters (RFC 7914) and the bounds within which AMC takes them.
//!
//! The lower bounds keep a stolen vault expensive to guess; the upper ones keep a forged vault from
//! taking the machine's memory. Both hold when a compartment is written and when it is opened, and
//! they are looked at before scrypt allocates.

use std::fmt;

/// scrypt's parameters: N (a power of two), r and p. Memory is 128 · N · r bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScryptParams {
    pub(crate) log_n: u8,
    pub(crate) r: u32,
    pub(crate) p: u32,
}

/// The range that a vault accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    min: ScryptParams,
    max: ScryptParams,
}

impl Bounds {
    /// What every shipped program uses: N from 2^17 to 2^20, r from 8 to 16, p from 1 to 4; so
    /// 128 MiB at least and 2 GiB at most.
    pub(crate) const SHIPPED: Bounds =
        Bounds { min: ScryptParams { log_n: 17, r: 8, p: 1 }, max: ScryptParams { log_n: 20, r: 16, p: 4 } };

    /// Cheap enough to open a vault thousands of times. Exists in this crate's own tests only.
    #[cfg(test)]
    pub(crate) const FOR_TESTS: Bounds =
        Bounds { min: ScryptParams { log_n: 1, r: 1, p: 1 }, max: Bounds::SHIPPED.max };

    /// Whether the parameters are within these bounds.
    pub(crate) fn hold(&self, params: ScryptParams) -> bool {
        (self.min.log_n..=self.max.log_n).contains(&params.log_n)
            && (self.min.r..=self.max.r).contains(&params.r)
            && (self.min.p..=self.max.p).contains(&params.p)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { min, max } = self;
        write!(f, "N 2^{} to 2^{}, r {} to {}, p {} to {}", min.log_n, max.log_n, min.r, max.r, min.p, max.p)
    }
}

impl ScryptParams {
    /// Takes log2(N), r and p; `None` when they are outside the bounds that a vault accepts (N from
    /// 2^17 to 2^20, r from 8 to 16, p from 1 to 4).
    pub fn new(log_n: u8, r: u32, p: u32) -> Option<Self> {
        let params = ScryptParams { log_n, r, p };
        Bounds::SHIPPED.hold(params).then_some(params)
    }

    /// N, the number of blocks.
    pub fn n(self) -> u64 {
        1u64.checked_shl(u32::from(self.log_n)).unwrap_or(u64::MAX)
    }

    /// r, the block size.
    pub const fn r(self) -> u32 {
        self.r
    }

    /// p, how often it is done.
    pub const fn p(self) -> u32 {
        self.p
    }

    /// One block of two: nobody may open a vault like this but this crate's own tests.
    #[cfg(test)]
    pub(crate) const fn for_tests() -> Self {
        Bounds::FOR_TESTS.min
    }
}

/// N = 2^17, r = 8, p = 1: the least that is accepted, a third of a second and 128 MiB.
impl Default for ScryptParams {
    fn default() -> Self {
        Bounds::SHIPPED.min
    }
}

impl fmt::Display for ScryptParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scrypt N 2^{}, r {}, p {}", self.log_n, self.r, self.p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_bounds_refuse_what_is_cheap_and_what_is_huge() {
        assert_eq!(ScryptParams::new(17, 8, 1), Some(ScryptParams::default()));
        assert!(ScryptParams::new(20, 16, 4).is_some());
        for (name, log_n, r, p) in [
            ("N too small", 16, 8, 1),
            ("r too small", 17, 7, 1),
            ("p zero", 17, 8, 0),
            ("N too large", 21, 8, 1),
            ("N beyond a machine word", 255, 8, 1),
            ("r too large", 17, 17, 1),
            ("p too large", 17, 8, 5),
            ("p huge", 17, 8, u32::MAX),
        ] {
            assert_eq!(ScryptParams::new(log_n, r, p), None, "{name}");
        }
    }
}

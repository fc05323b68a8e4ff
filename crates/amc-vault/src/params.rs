//! scrypt's cost parameters (RFC 7914) and the bounds within which AMC takes them.
//!
//! The lower bounds keep a stolen vault expensive to guess; the upper ones keep a forged vault from
//! taking the machine's memory. Both hold when a compartment is written and when it is opened, and
//! they are looked at before scrypt allocates.

use std::fmt;
use std::time::{Duration, Instant};

/// scrypt's parameters: N (a power of two), r and p. Memory is 128 · N · r bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScryptParams {
    pub(crate) log_n: u8,
    pub(crate) r: u32,
    pub(crate) p: u32,
}

/// How long one opening may take on the machine that chose its cost.
const OPENING_MAX: Duration = Duration::from_secs(1);

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

    /// Memory that one opening takes, in bytes.
    pub fn memory_bytes(self) -> u64 {
        u64::from(self.r).saturating_mul(128).saturating_mul(self.n())
    }

    /// The largest N for which opening takes about a second and a quarter of `memory_bytes` on this
    /// machine, and never less than the default. Measures the default once.
    pub fn calibrated(memory_bytes: u64) -> Self {
        let began = Instant::now();
        ScryptParams::default().spend();
        Self::chosen(began.elapsed(), memory_bytes)
    }

    /// The largest N, going by how long the default took: time and memory grow in proportion to N.
    fn chosen(default_took: Duration, memory_bytes: u64) -> Self {
        let (mut chosen, mut takes) = (ScryptParams::default(), default_took);
        loop {
            takes *= 2;
            let dearer = ScryptParams { log_n: chosen.log_n + 1, ..chosen };
            if takes > OPENING_MAX || dearer.memory_bytes() > memory_bytes / 4 || !Bounds::SHIPPED.hold(dearer) {
                return chosen;
            }
            chosen = dearer;
        }
    }

    /// Each parameter at least as large as that of `other`.
    #[must_use]
    pub(crate) fn at_least(self, other: ScryptParams) -> Self {
        ScryptParams { log_n: self.log_n.max(other.log_n), r: self.r.max(other.r), p: self.p.max(other.p) }
    }

    /// scrypt at this cost, for nothing but the time that it takes.
    fn spend(self) {
        let params = scrypt::Params::new(self.log_n, self.r, self.p).expect("within bounds that scrypt accepts");
        scrypt::scrypt(b"time", b"salt", &params, &mut [0; 32]).expect("32 bytes are a valid length");
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
    fn the_cost_goes_up_with_the_machine_and_never_below_the_default() {
        const GIB: u64 = 1 << 30;
        for (took_ms, memory_bytes, log_n) in [
            (300, 64 * GIB, 18),
            (499, 64 * GIB, 18),
            (501, 64 * GIB, 17),
            (9_000, 64 * GIB, 17),
            (1, 64 * GIB, 20),
            (0, u64::MAX, 20),
            (1, 2 * GIB, 19),
            (1, GIB / 2, 17),
            (1, 0, 17),
        ] {
            let chosen = ScryptParams::chosen(Duration::from_millis(took_ms), memory_bytes);
            assert_eq!(chosen, ScryptParams { log_n, r: 8, p: 1 }, "{took_ms} ms, {memory_bytes} bytes");
        }
        let (cheap, dear) = (ScryptParams { log_n: 17, r: 16, p: 1 }, ScryptParams { log_n: 19, r: 8, p: 2 });
        assert_eq!(cheap.at_least(dear), ScryptParams { log_n: 19, r: 16, p: 2 });
        assert_eq!(ScryptParams::default().memory_bytes(), 128 << 20);
    }

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

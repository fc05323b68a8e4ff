//! The clock, as a trait: libraries take it as an argument and never read the time themselves.

/// One reading of the machine's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instant {
    /// Wall time, nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// `CLOCK_BOOTTIME`, nanoseconds since boot; it counts while the machine sleeps.
    pub boot_ns: u64,
    /// The kernel's boot id: two readings of `boot_ns` compare only under the same one.
    pub boot_id: [u8; 16],
}

/// A source of [`Instant`]s.
pub trait Clock: Send + Sync {
    /// Reads all clocks at once.
    fn now(&self) -> Instant;
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

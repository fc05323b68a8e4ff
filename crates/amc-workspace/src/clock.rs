//! The machine's clock, for the binaries; libraries take it as an argument.

use amc_core::{Clock, Instant};
use rustix::time::{ClockId, clock_gettime};

/// Wall time, `CLOCK_BOOTTIME` and the kernel's boot id.
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot_id: [u8; 16],
}

impl SystemClock {
    /// Reads the boot id once.
    ///
    /// # Errors
    /// When `/proc/sys/kernel/random/boot_id` cannot be read or is no UUID.
    pub fn new() -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits = text.trim().replace('-', "");
        let bytes = amc_core::digest::unhex(&digits).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|boot_id| SystemClock { boot_id }).ok_or_else(|| std::io::Error::other("the boot id is no UUID"))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let wall = clock_gettime(ClockId::Realtime);
        let boot = clock_gettime(ClockId::Boottime);
        let boot_ns = boot.tv_sec.cast_unsigned() * 1_000_000_000 + boot.tv_nsec.cast_unsigned();
        Instant { wall_ns: wall.tv_sec * 1_000_000_000 + wall.tv_nsec, boot_ns, boot_id: self.boot_id }
    }
}

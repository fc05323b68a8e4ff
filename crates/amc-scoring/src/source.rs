//! Where a score reads events from. It reads them more than once, so that they need not all be in memory.

use std::borrow::Cow;

use amc_evidence::VerifiedEvent;

/// Why a source could not be read to its end.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// The events of the evidence log, or those of them that a run reads.
pub trait EvidenceSource {
    /// Hands over every event in the order of the log, each once. Every reading gives the same.
    ///
    /// # Errors
    /// Reading failed, or gave something else than the time before.
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError>;
}

/// Events in memory, in whatever order.
impl EvidenceSource for [VerifiedEvent] {
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError> {
        let place = |event: &VerifiedEvent| (event.event.index, event.hash);
        if self.is_sorted_by(|a, b| a.event.index < b.event.index) {
            self.iter().for_each(|event| take(Cow::Borrowed(event)));
            return Ok(());
        }
        let mut events: Vec<&VerifiedEvent> = self.iter().collect();
        events.sort_by_key(|event| place(event));
        events.dedup_by_key(|event| event.event.index);
        events.into_iter().for_each(|event| take(Cow::Borrowed(event)));
        Ok(())
    }
}

/// As what it refers to.
impl<S: EvidenceSource + ?Sized> EvidenceSource for &S {
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError> {
        (**self).read(take)
    }
}

/// As a slice.
impl EvidenceSource for Vec<VerifiedEvent> {
    fn read(&self, take: &mut dyn FnMut(Cow<'_, VerifiedEvent>)) -> Result<(), SourceError> {
        self.as_slice().read(take)
    }
}

//! From [`Unverified`] to [`Verified`], in one place.
//!
//! A [`Verified`] value exists only where a check was made: its field is private, it has no
//! `Deserialize`, and [`Unverified::verify`] is the only function that makes one. What is needed
//! to decide (pinned keys, the time) is the [`Check`] that is passed in.

use std::ops::Deref;

/// A value as it was received. Nothing may rely on it before [`Unverified::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Marks a received value as unverified.
    pub const fn new(value: T) -> Self {
        Unverified(value)
    }

    /// The value, to show it to a person or to find out which check applies; never to act on it.
    pub const fn peek(&self) -> &T {
        &self.0
    }

    /// Runs the check and gives a [`Verified`] value when it passes.
    ///
    /// # Errors
    /// What the check found.
    pub fn verify<C: Check<T>>(self, check: &C) -> Result<Verified<C::Output>, C::Error> {
        check.check(self.0).map(Verified)
    }
}

/// A trust root (and a time, where it matters) that can tell a good `T` from a bad one.
pub trait Check<T> {
    /// What is known after the check.
    type Output;
    /// Why the check failed.
    type Error;

    /// Decides on `value`.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn check(&self, value: T) -> Result<Self::Output, Self::Error>;
}

/// A value that passed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value, without the mark.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

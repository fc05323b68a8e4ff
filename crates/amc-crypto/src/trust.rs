//! From [`Unverified`] to [`Verified`], in one place.
//!
//! A [`Verified`] value exists only where a check was made: its field is private, it has no
//! `Deserialize`, and [`Unverified::verify`], with its counterpart for many values, is the only function that makes one. What is needed
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

    /// Runs the check over many values, each decided for itself; in their order.
    pub fn verify_all<C: CheckAll<T>>(
        values: Vec<Unverified<T>>,
        check: &C,
    ) -> Vec<Result<Verified<C::Output>, C::Error>> {
        let values = values.into_iter().map(|value| value.0).collect();
        check.check_all(values).into_iter().map(|decided| decided.map(Verified)).collect()
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

/// A [`Check`] that decides on many values faster than on one after the other.
pub trait CheckAll<T>: Check<T> {
    /// Decides on each of `values`; as many results, in the same order.
    fn check_all(&self, values: Vec<T>) -> Vec<Result<Self::Output, Self::Error>>;
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

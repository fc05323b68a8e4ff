//! The steps by which a vault file is replaced, as a trait, so that tests can make each one fail.
//!
//! Write a temporary file beside the vault, flush it, rename it over the vault, flush the
//! directory. Whatever happens in between, the path names the old vault or the new one, whole.

use std::io;

use crate::error::VaultError;

/// One vault's place: the file, its temporary neighbour and their directory.
pub(crate) trait Storage {
    /// The vault's bytes, or `None` when there is no file. Refuses modes that are open to others.
    fn read(&self) -> Result<Option<Vec<u8>>, VaultError>;
    /// Makes an empty temporary file of mode 0600; one that a crash left behind is removed.
    fn create_temp(&mut self) -> io::Result<()>;
    /// Writes all bytes into the temporary file.
    fn write_temp(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Flushes the temporary file.
    fn sync_temp(&mut self) -> io::Result<()>;
    /// Renames the temporary file over the vault.
    fn rename_temp(&mut self) -> io::Result<()>;
    /// Flushes the directory.
    fn sync_dir(&mut self) -> io::Result<()>;
    /// Removes the temporary file after a step that failed; nothing depends on it.
    fn discard_temp(&mut self);
}

/// A step of [`replace`] that failed.
pub(crate) struct StepFailed {
    pub(crate) action: &'static str,
    pub(crate) source: io::Error,
}

/// Replaces the vault by `bytes`: old or new after a crash at any point, new after `Ok`.
pub(crate) fn replace(storage: &mut dyn Storage, bytes: &[u8]) -> Result<(), StepFailed> {
    let step = |action| move |source| StepFailed { action, source };
    storage.create_temp().map_err(step("create a temporary file beside"))?;
    let renamed = storage
        .write_temp(bytes)
        .map_err(step("write the temporary file beside"))
        .and_then(|()| storage.sync_temp().map_err(step("flush the temporary file beside")))
        .and_then(|()| storage.rename_temp().map_err(step("rename the temporary file to")));
    if let Err(failed) = renamed {
        storage.discard_temp();
        return Err(failed);
    }
    storage.sync_dir().map_err(step("flush the directory of the new"))
}

//! Other passphrases and other keys for a compartment.
//!
//! A key changes in three steps, so that a crash between any two leaves something that can be gone
//! on with: the next key is put beside the old one ([`Vault::prepare_rotation`]); the old key signs,
//! in the role's log, the event that names the next one (not here); the next one takes the old one's
//! place, and the old one is erased ([`Vault::finish_rotation`]). Which key is in force in between is
//! what the log says.

use amc_core::kinds::{KeyPurpose, Role};
use amc_crypto::PublicKey;

use crate::contents::Contents;
use crate::disk::Disk;
use crate::error::VaultError;
use crate::keys::{RoleKeys, public_of};
use crate::params::ScryptParams;
use crate::passphrase::Passphrase;
use crate::seal;
use crate::secret::Secret32;
use crate::storage::Storage;
use crate::vault::{Vault, read};

impl Vault {
    /// Puts compartments under another passphrase, all of them in one write. `params` are taken
    /// where they cost more than the compartment's own. Copies of the old file still open with the
    /// old passphrase.
    ///
    /// # Errors
    /// [`VaultError::NotEvery`] when the old passphrase opens some of several and not all; others as
    /// [`Vault::unlock`]. Nothing is changed then.
    pub fn change_passphrase(
        &self,
        roles: &[Role],
        old: &Passphrase,
        new: &Passphrase,
        params: ScryptParams,
    ) -> Result<(), VaultError> {
        self.change_passphrase_in(&mut Disk::for_writing(&self.path)?, roles, old, new, params)
    }

    /// Puts a next key beside the one of this purpose; where one is there already, from a rotation
    /// that did not get further, it is that one. Gives the keys with the next one among them.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn prepare_rotation(
        &self,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
    ) -> Result<RoleKeys, VaultError> {
        self.prepare_rotation_in(&mut Disk::for_writing(&self.path)?, role, passphrase, purpose)
    }

    /// The next key, whose public half is `public`, takes the place of the one of this purpose, which
    /// is erased. Where that happened already nothing is written.
    ///
    /// # Errors
    /// [`VaultError::NotRotating`] when the next key is another one or there is none; others as
    /// [`Vault::unlock`].
    pub fn finish_rotation(
        &self,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
        public: PublicKey,
    ) -> Result<(), VaultError> {
        self.finish_rotation_in(&mut Disk::for_writing(&self.path)?, role, passphrase, purpose, public)
    }

    /// A new key in the place of the one of this purpose, which is erased, as is a next one. Nothing
    /// vouches for the new key: this is for a key that somebody stole. Gives the new public half.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn replace_key(
        &self,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
    ) -> Result<PublicKey, VaultError> {
        self.replace_key_in(&mut Disk::for_writing(&self.path)?, role, passphrase, purpose)
    }

    /// The public half of a role's key, as the compartment holds it.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn public_key(
        &self,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
    ) -> Result<PublicKey, VaultError> {
        Ok(public_of(self.open(role, passphrase)?.seeds_mut(purpose).0))
    }

    pub(crate) fn change_passphrase_in(
        &self,
        storage: &mut dyn Storage,
        roles: &[Role],
        old: &Passphrase,
        new: &Passphrase,
        params: ScryptParams,
    ) -> Result<(), VaultError> {
        let mut file = read(storage, &self.path)?;
        // All are tried, so that the time that it takes does not tell which one did not open.
        let opened: Vec<_> = roles.iter().map(|role| self.open_in(&file, *role, old)).collect();
        let several = opened.len() > 1;
        for contents in opened {
            let contents: Contents = contents.map_err(|error| match error {
                VaultError::WrongPassphrase { .. } if several => VaultError::NotEvery(self.path.clone()),
                error => error,
            })?;
            let own = file.get(contents.role).expect("the compartment was just opened").params;
            file.put(seal::seal(&contents, new, own.at_least(params))?);
        }
        self.write(storage, &file)
    }

    pub(crate) fn prepare_rotation_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
    ) -> Result<RoleKeys, VaultError> {
        let fresh = Secret32::random()?;
        let contents = self.edit_in(storage, role, passphrase, |contents| {
            contents.seeds_mut(purpose).1.get_or_insert(fresh);
            Ok(())
        })?;
        Ok(RoleKeys::new(contents))
    }

    pub(crate) fn finish_rotation_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
        public: PublicKey,
    ) -> Result<(), VaultError> {
        let not_rotating = || VaultError::NotRotating { path: self.path.clone(), role };
        let mut contents = self.open_in(&read(storage, &self.path)?, role, passphrase)?;
        if let (seed, None) = contents.seeds_mut(purpose) {
            return if public_of(seed) == public { Ok(()) } else { Err(not_rotating()) };
        }
        let finish = |contents: &mut Contents| {
            let (seed, next) = contents.seeds_mut(purpose);
            *seed = next.take().filter(|next| public_of(next) == public).ok_or_else(not_rotating)?;
            Ok(())
        };
        self.edit_in(storage, role, passphrase, finish).map(drop)
    }

    pub(crate) fn replace_key_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        purpose: KeyPurpose,
    ) -> Result<PublicKey, VaultError> {
        let fresh = Secret32::random()?;
        let public = public_of(&fresh);
        let replace = |contents: &mut Contents| {
            let (seed, next) = contents.seeds_mut(purpose);
            (*seed, *next) = (fresh, None);
            Ok(())
        };
        self.edit_in(storage, role, passphrase, replace)?;
        Ok(public)
    }
}

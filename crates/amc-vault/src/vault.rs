//! What a program does with a vault: make it, look at it, unlock it, change its secrets. Other
//! passphrases and other keys are in `rekey`.

use std::fmt;
use std::path::{Path, PathBuf};

use amc_core::WorkspaceName;
use amc_core::kinds::Role;

use crate::contents::{Contents, SECRETS_MAX};
use crate::disk::Disk;
use crate::error::VaultError;
use crate::file::{Compartment, VaultFile};
use crate::keys::{AuditorKeys, MonitorKeys, RoleKeys};
use crate::params::{Bounds, ScryptParams};
use crate::passphrase::Passphrase;
use crate::seal;
use crate::secret::{SecretName, SecretValue};
use crate::storage::{self, Storage};

/// A vault's place and the workspace whose keys it should hold. Holds no secret and no open file:
/// every operation reads the file anew.
#[derive(Clone)]
pub struct Vault {
    pub(crate) path: PathBuf,
    workspace: WorkspaceName,
    bounds: Bounds,
}

/// What can be told of a vault without a passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultStatus {
    /// The compartments, in the file's order.
    pub compartments: Vec<CompartmentStatus>,
}

/// What can be told of a compartment without its passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompartmentStatus {
    /// Whose it is.
    pub role: Role,
    /// Its cost parameters, as the file says.
    pub params: ScryptParams,
    /// Whether its checksum holds. Says nothing of somebody who altered both.
    pub intact: bool,
}

impl Vault {
    /// A vault at `path`, in a directory of mode 0700, for the keys of `workspace`. Opens nothing.
    pub fn at(path: impl Into<PathBuf>, workspace: WorkspaceName) -> Self {
        Vault { path: path.into(), workspace, bounds: Bounds::SHIPPED }
    }

    /// As [`Vault::at`], with costs that let a test open a vault thousands of times.
    #[cfg(test)]
    pub(crate) fn for_tests(path: impl Into<PathBuf>, workspace: WorkspaceName) -> Self {
        Vault { bounds: Bounds::FOR_TESTS, ..Vault::at(path, workspace) }
    }

    /// The roles that have a compartment, in the file's order; none where there is no file.
    ///
    /// # Errors
    /// As [`Vault::status`].
    pub fn roles(&self) -> Result<Vec<Role>, VaultError> {
        match Vault::status(&self.path) {
            Ok(status) => Ok(status.compartments.iter().map(|compartment| compartment.role).collect()),
            Err(VaultError::Missing(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The compartments of the vault at `path`, without a passphrase.
    ///
    /// # Errors
    /// [`VaultError`] when the file is missing, open to others, or no vault.
    pub fn status(path: &Path) -> Result<VaultStatus, VaultError> {
        let file = read(&Disk::for_reading(path)?, path)?;
        let status = |compartment: &Compartment| CompartmentStatus {
            role: compartment.role,
            params: compartment.params,
            intact: compartment.is_intact(),
        };
        Ok(VaultStatus { compartments: file.compartments.iter().map(status).collect() })
    }

    /// Makes a vault with new keys for one role.
    ///
    /// # Errors
    /// [`VaultError::Exists`] when a file is there; it is left as it is.
    pub fn create(&self, role: Role, passphrase: &Passphrase, params: ScryptParams) -> Result<RoleKeys, VaultError> {
        self.create_in(&mut Disk::for_writing(&self.path)?, role, passphrase, params)
    }

    /// Adds a compartment with new keys for another role. The other compartment's bytes stay.
    ///
    /// # Errors
    /// [`VaultError::CompartmentExists`] when the role has one; it is left as it is.
    pub fn add_compartment(
        &self,
        role: Role,
        passphrase: &Passphrase,
        params: ScryptParams,
    ) -> Result<RoleKeys, VaultError> {
        self.add_compartment_in(&mut Disk::for_writing(&self.path)?, role, passphrase, params)
    }

    /// Unlocks a role's compartment. Takes about a third of a second and 128 MiB, as scrypt should.
    ///
    /// # Errors
    /// [`VaultError::WrongPassphrase`] when it does not open; others when the vault is missing,
    /// open to others, damaged, or another workspace's.
    pub fn unlock(&self, role: Role, passphrase: &Passphrase) -> Result<RoleKeys, VaultError> {
        Ok(RoleKeys::new(self.open(role, passphrase)?))
    }

    /// Unlocks the monitor's compartment.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn unlock_monitor(&self, passphrase: &Passphrase) -> Result<MonitorKeys, VaultError> {
        Ok(MonitorKeys::new(self.open(Role::Monitor, passphrase)?))
    }

    /// Unlocks the auditor's compartment.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn unlock_auditor(&self, passphrase: &Passphrase) -> Result<AuditorKeys, VaultError> {
        Ok(AuditorKeys::new(self.open(Role::Auditor, passphrase)?))
    }

    /// Puts a secret into the monitor's compartment, in the place of an older one of that name.
    ///
    /// # Errors
    /// [`VaultError::TooManySecrets`] beyond [`SECRETS_MAX`]; others as [`Vault::unlock`].
    pub fn set_secret(&self, passphrase: &Passphrase, name: SecretName, value: SecretValue) -> Result<(), VaultError> {
        self.edit_in(&mut Disk::for_writing(&self.path)?, Role::Monitor, passphrase, |contents| {
            contents.secrets.0.insert(name, value);
            if contents.secrets.0.len() > SECRETS_MAX { Err(VaultError::TooManySecrets) } else { Ok(()) }
        })
        .map(drop)
    }

    /// The names of the secrets in the monitor's compartment, sorted.
    ///
    /// # Errors
    /// As [`Vault::unlock`].
    pub fn list_secrets(&self, passphrase: &Passphrase) -> Result<Vec<SecretName>, VaultError> {
        Ok(self.open(Role::Monitor, passphrase)?.secrets.names().cloned().collect())
    }

    /// Removes a secret from the monitor's compartment.
    ///
    /// # Errors
    /// [`VaultError::NoSecret`] when there is none of this name; others as [`Vault::unlock`].
    pub fn remove_secret(&self, passphrase: &Passphrase, name: &SecretName) -> Result<(), VaultError> {
        self.edit_in(&mut Disk::for_writing(&self.path)?, Role::Monitor, passphrase, |contents| {
            contents.secrets.0.remove(name).map(drop).ok_or_else(|| VaultError::NoSecret(name.clone()))
        })
        .map(drop)
    }

    pub(crate) fn create_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        params: ScryptParams,
    ) -> Result<RoleKeys, VaultError> {
        if storage.read()?.is_some() {
            return Err(VaultError::Exists(self.path.clone()));
        }
        self.generate(storage, VaultFile::empty(), role, passphrase, params)
    }

    pub(crate) fn add_compartment_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        params: ScryptParams,
    ) -> Result<RoleKeys, VaultError> {
        let file = read(storage, &self.path)?;
        if file.get(role).is_some() {
            return Err(VaultError::CompartmentExists { path: self.path.clone(), role });
        }
        self.generate(storage, file, role, passphrase, params)
    }

    fn generate(
        &self,
        storage: &mut dyn Storage,
        mut file: VaultFile,
        role: Role,
        passphrase: &Passphrase,
        params: ScryptParams,
    ) -> Result<RoleKeys, VaultError> {
        let contents = Contents::generate(role, self.workspace.clone())?;
        file.put(seal::seal(&contents, passphrase, params)?);
        self.write(storage, &file)?;
        Ok(RoleKeys::new(contents))
    }

    /// Opens a compartment, changes what it holds, and writes it under the same passphrase and cost.
    pub(crate) fn edit_in(
        &self,
        storage: &mut dyn Storage,
        role: Role,
        passphrase: &Passphrase,
        change: impl FnOnce(&mut Contents) -> Result<(), VaultError>,
    ) -> Result<Contents, VaultError> {
        let mut file = read(storage, &self.path)?;
        let mut contents = self.open_in(&file, role, passphrase)?;
        let params = file.get(role).expect("the compartment was just opened").params;
        change(&mut contents)?;
        file.put(seal::seal(&contents, passphrase, params)?);
        self.write(storage, &file)?;
        Ok(contents)
    }

    pub(crate) fn open(&self, role: Role, passphrase: &Passphrase) -> Result<Contents, VaultError> {
        self.open_in(&read(&Disk::for_reading(&self.path)?, &self.path)?, role, passphrase)
    }

    pub(crate) fn open_in(
        &self,
        file: &VaultFile,
        role: Role,
        passphrase: &Passphrase,
    ) -> Result<Contents, VaultError> {
        let path = || self.path.clone();
        let compartment = file.get(role).ok_or_else(|| VaultError::NoCompartment { path: path(), role })?;
        let contents = seal::open(compartment, passphrase, &self.bounds, &self.path)?;
        if contents.workspace != self.workspace {
            let (found, wanted) = (contents.workspace.to_string(), self.workspace.to_string());
            return Err(VaultError::OtherWorkspace { path: path(), role, found, wanted });
        }
        Ok(contents)
    }

    pub(crate) fn write(&self, storage: &mut dyn Storage, file: &VaultFile) -> Result<(), VaultError> {
        let written = storage::replace(storage, &file.encode());
        written.map_err(|failed| VaultError::Io {
            action: failed.action,
            path: self.path.clone(),
            source: failed.source,
        })
    }
}

pub(crate) fn read(storage: &dyn Storage, path: &Path) -> Result<VaultFile, VaultError> {
    let bytes = storage.read()?.ok_or_else(|| VaultError::Missing(path.to_owned()))?;
    VaultFile::parse(&bytes, path)
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).field("workspace", &self.workspace).finish_non_exhaustive()
    }
}

//! Crashes at every step of a write: afterwards the vault is the old one or the new one, whole.
//!
//! [`Model`] is a file system that keeps apart what programs see and what a disk has: file contents
//! reach the disk at a flush of the file, names at a flush of the directory, and before that any
//! mixture may be found after a crash.

use std::collections::BTreeMap;
use std::io;

use amc_core::kinds::Role;

use super::{Home, phrase};
use crate::storage::{Storage, replace};
use crate::{ScryptParams, SecretName, SecretValue, VaultError};

type Names = BTreeMap<&'static str, usize>;
const VAULT: &str = "vault";
const TEMP: &str = "temp";

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    on_disk: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The step is not done, or half done, and the process is dead.
    DeadBefore,
    /// The step is done and the process is dead.
    DeadAfter,
    /// The step is not done; an error comes back and the process lives.
    Error,
}

#[derive(Clone, Default)]
pub(super) struct Model {
    contents: Vec<Content>,
    names_seen: Names,
    names_on_disk: Names,
    fault: Option<(usize, Fault)>,
    step: usize,
    dead: bool,
    /// A disk that says it has flushed a file and has not.
    flush_lies: bool,
}

impl Model {
    fn holding(vault: Option<&[u8]>) -> Self {
        let mut model = Model::default();
        if let Some(bytes) = vault {
            model.contents.push(Content { seen: bytes.to_vec(), on_disk: bytes.to_vec() });
            model.names_seen.insert(VAULT, 0);
            model.names_on_disk.insert(VAULT, 0);
        }
        model
    }

    fn with_fault(mut self, step: usize, fault: Fault) -> Self {
        self.fault = Some((step, fault));
        self
    }

    /// Runs a step, or fails it. `done` does the whole step, `half` what may be done of it.
    fn step(&mut self, done: impl FnOnce(&mut Self), half: impl FnOnce(&mut Self)) -> io::Result<()> {
        let failed = || Err(io::Error::other("injected"));
        if self.dead {
            return failed();
        }
        let fault = self.fault.and_then(|(step, fault)| (step == self.step).then_some(fault));
        self.step += 1;
        match fault {
            None => {
                done(self);
                Ok(())
            }
            Some(Fault::Error) => failed(),
            Some(Fault::DeadBefore) => {
                half(self);
                self.dead = true;
                failed()
            }
            Some(Fault::DeadAfter) => {
                done(self);
                self.dead = true;
                failed()
            }
        }
    }

    /// What may stand under the vault's name after a crash now.
    fn after_crash(&self) -> Vec<Option<Vec<u8>>> {
        let mut found = vec![];
        for names in [&self.names_seen, &self.names_on_disk] {
            let content = names.get(VAULT).map(|index| &self.contents[*index]);
            found.push(content.map(|content| content.seen.clone()));
            found.push(content.map(|content| content.on_disk.clone()));
            found.push(content.map(|content| {
                let unflushed = content.seen.len() - content.on_disk.len();
                content.seen[..content.on_disk.len() + unflushed / 2].to_vec()
            }));
        }
        found
    }

    fn temp(&mut self) -> &mut Content {
        &mut self.contents[self.names_seen[TEMP]]
    }
}

impl Storage for Model {
    fn read(&self) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.names_seen.get(VAULT).map(|index| self.contents[*index].seen.clone()))
    }

    fn create_temp(&mut self) -> io::Result<()> {
        let done = |model: &mut Self| {
            model.contents.push(Content::default());
            model.names_seen.insert(TEMP, model.contents.len() - 1);
        };
        self.step(done, |_| {})
    }

    fn write_temp(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        self.step(|model| model.temp().seen.extend_from_slice(bytes), |model| model.temp().seen.extend_from_slice(half))
    }

    fn sync_temp(&mut self) -> io::Result<()> {
        let done = |model: &mut Self| {
            if !model.flush_lies {
                let temp = model.temp();
                temp.on_disk.clone_from(&temp.seen);
            }
        };
        self.step(done, |_| {})
    }

    fn rename_temp(&mut self) -> io::Result<()> {
        let done = |model: &mut Self| {
            let temp = model.names_seen.remove(TEMP).expect("a temporary file");
            model.names_seen.insert(VAULT, temp);
        };
        self.step(done, |_| {})
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.step(|model| model.names_on_disk = model.names_seen.clone(), |_| {})
    }

    fn discard_temp(&mut self) {
        if !self.dead {
            self.names_seen.remove(TEMP);
        }
    }
}

/// Steps of [`replace`].
const STEPS: usize = 5;

/// Runs a write with every fault at every step and looks at everything a crash may leave.
fn every_crash_leaves_old_or_new(old: Option<&[u8]>, new: &[u8]) {
    for step in 0..STEPS {
        for fault in [Fault::DeadBefore, Fault::DeadAfter, Fault::Error] {
            let mut model = Model::holding(old).with_fault(step, fault);
            assert!(replace(&mut model, new).is_err(), "step {step} exists");
            for found in model.after_crash() {
                let whole = found.as_deref() == old || found.as_deref() == Some(new);
                assert!(whole, "step {step}, {fault:?}: neither the old vault nor the new one");
            }
            if fault == Fault::Error {
                replace(&mut model, new).unwrap_or_else(|_| panic!("step {step}: the next write succeeds"));
            }
        }
    }
    let mut model = Model::holding(old);
    assert!(replace(&mut model, new).is_ok());
    assert_eq!(model.step, STEPS);
    for found in model.after_crash() {
        assert_eq!(found.as_deref(), Some(new), "what was reported as written is on disk");
    }
}

#[test]
fn replacing_a_vault() {
    every_crash_leaves_old_or_new(Some(b"the old vault"), b"the new vault, longer");
}

#[test]
fn creating_a_vault() {
    every_crash_leaves_old_or_new(None, b"the first vault");
}

#[test]
fn the_model_finds_a_missing_flush() {
    let mut model = Model { flush_lies: true, ..Model::holding(Some(b"old")) };
    assert!(replace(&mut model, b"new").is_ok());
    assert!(model.after_crash().contains(&Some(vec![])), "an unflushed file is found empty");
}

#[test]
fn after_every_crash_the_compartments_open() {
    let home = Home::with_both();
    let old = home.bytes();
    let name = SecretName::provider("openai").expect("a name");
    for step in 0..STEPS {
        for fault in [Fault::DeadBefore, Fault::DeadAfter] {
            let mut model = Model::holding(Some(&old)).with_fault(step, fault);
            let written = home.vault().edit_in(&mut model, Role::Monitor, &phrase("monitor"), |contents| {
                contents.secrets.0.insert(name.clone(), SecretValue::new(b"sk".to_vec()).expect("a value"));
                Ok(())
            });
            assert!(matches!(written.map(drop), Err(VaultError::Io { .. })));
            for found in model.after_crash() {
                home.overwrite(&found.expect("a vault"));
                let keys = home.vault().unlock_monitor(&phrase("monitor")).expect("the monitor's opens");
                let is_new = keys.secrets.get(&name).is_some();
                assert_eq!(is_new, home.bytes() != old, "step {step}, {fault:?}");
                home.vault().unlock_auditor(&phrase("auditor")).expect("the auditor's opens");
            }
        }
    }
}

/// Runs a change of the vault in `home` with a crash at every step of its write. `check` is called
/// with the vault that the crash left in place, and told whether it is the changed one. The vault is
/// as before in the end.
pub(super) fn every_crash_of(home: &Home, change: impl Fn(&mut Model) -> Result<(), VaultError>, check: impl Fn(bool)) {
    let old = home.bytes();
    let (mut saw_old, mut saw_new) = (false, false);
    for step in 0..STEPS {
        for fault in [Fault::DeadBefore, Fault::DeadAfter, Fault::Error] {
            let mut model = Model::holding(Some(&old)).with_fault(step, fault);
            assert!(matches!(change(&mut model), Err(VaultError::Io { .. })), "step {step}, {fault:?}");
            for found in model.after_crash() {
                let found = found.expect("a vault");
                home.overwrite(&found);
                check(found != old);
                saw_old |= found == old;
                saw_new |= found != old;
            }
        }
    }
    assert!(saw_old && saw_new, "crashes before and after the rename were seen");
    home.overwrite(&old);
}

#[test]
fn a_new_compartment_beside_an_old_one() {
    let home = Home::new();
    home.vault().create(Role::Monitor, &phrase("monitor"), ScryptParams::for_tests()).expect("created");
    let old = home.bytes();
    for step in 0..STEPS {
        let mut model = Model::holding(Some(&old)).with_fault(step, Fault::DeadBefore);
        let add = home.vault().add_compartment_in(&mut model, Role::Auditor, &phrase("a"), ScryptParams::for_tests());
        assert!(add.is_err(), "step {step}");
        for found in model.after_crash() {
            home.overwrite(&found.expect("a vault"));
            home.vault().unlock(Role::Monitor, &phrase("monitor")).expect("the old compartment opens");
        }
    }
}

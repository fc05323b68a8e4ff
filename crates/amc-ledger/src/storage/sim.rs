//! A disk that forgets: writes and names that were not flushed are lost, torn or kept in part when
//! it crashes, as a seed decides. Any operation can be made to fail, or to be the last one.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Lock, LockError, Storage, StoredFile};

/// Writes reach the disk in units of this size, each on its own.
const SECTOR_BYTES: usize = 512;

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Power is lost within this operation.
    Crash,
    /// It fails, and what it should have done is done in part at most.
    Fail(io::ErrorKind),
}

/// The simulated disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<Machine>>);

struct Machine {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last flush of their directory, in order.
    name_changes: Vec<NameChange>,
    random: u64,
    /// Operations that change something, so far.
    changes: u64,
    fault: Option<(u64, Fault)>,
    down: bool,
    locked: bool,
    /// Bytes that fit, contents and reservations together.
    capacity: usize,
    /// What was done, for messages.
    pub(crate) trace: Vec<String>,
}

#[derive(Default, Clone)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Room that was taken ahead.
    reserved: usize,
    /// Sectors and lengths that changed since the last flush.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

enum NameChange {
    Link { path: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Sim(Arc::new(Mutex::new(Machine {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            random: seed | 1,
            changes: 0,
            fault: None,
            down: false,
            locked: false,
            capacity: usize::MAX,
            trace: Vec::new(),
        })))
    }

    fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far that changed something.
    pub(crate) fn changes(&self) -> u64 {
        self.machine().changes
    }

    /// The last operations.
    pub(crate) fn trace(&self) -> String {
        self.machine().trace.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n  ")
    }

    /// Makes the operation with this number (from now on, 0 is the next) fail.
    pub(crate) fn fault_at(&self, number: u64, fault: Fault) {
        let mut machine = self.machine();
        machine.fault = Some((machine.changes + number, fault));
    }

    /// Whether the fault has happened.
    pub(crate) fn is_down(&self) -> bool {
        self.machine().down
    }

    /// Bytes that are taken now.
    pub(crate) fn used(&self) -> usize {
        self.machine().used()
    }

    /// Makes the disk this small or large.
    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.machine().capacity = bytes;
    }

    pub(crate) fn clear_fault(&self) {
        self.machine().fault = None;
    }

    /// The disk after a power loss and a reboot: what was flushed, and some of what was not.
    pub(crate) fn reboot(&self, seed: u64) -> Sim {
        let mut machine = self.machine();
        machine.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut names = machine.durable_names.clone();
        let changes = machine.name_changes.len();
        let kept = machine.pick(changes + 1);
        for change in &machine.name_changes[..kept] {
            change.apply(&mut names);
        }
        let mut inodes = std::mem::take(&mut machine.inodes);
        for inode in &mut inodes {
            for change in std::mem::take(&mut inode.pending) {
                machine.keep_some(&mut inode.durable, change);
            }
            inode.content.clone_from(&inode.durable);
        }
        let random = machine.random;
        Sim(Arc::new(Mutex::new(Machine {
            inodes,
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            random,
            changes: 0,
            fault: None,
            down: false,
            locked: false,
            capacity: usize::MAX,
            trace: Vec::new(),
        })))
    }

    /// An independent copy of this disk, as it stands.
    pub(crate) fn copy(&self) -> Sim {
        let machine = self.machine();
        Sim(Arc::new(Mutex::new(Machine {
            inodes: machine.inodes.clone(),
            names: machine.names.clone(),
            durable_names: machine.durable_names.clone(),
            name_changes: Vec::new(),
            random: machine.random,
            changes: 0,
            fault: None,
            down: false,
            locked: false,
            capacity: usize::MAX,
            trace: Vec::new(),
        })))
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn dir(&self) -> &str {
        match self {
            NameChange::Link { path, .. } => parent(path),
            NameChange::Rename { to, .. } => parent(to),
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Machine {
    /// xorshift: any sequence will do, as long as a seed gives the same one again.
    fn pick(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 11).unwrap_or(0) % below
    }

    /// Half of the time everything or nothing of a change survives, else each sector by itself.
    fn keep_some(&mut self, durable: &mut Vec<u8>, change: Change) {
        let mode = self.pick(4);
        match change {
            Change::Len(len) => {
                if mode != 0 {
                    durable.resize(len, 0);
                }
            }
            Change::Write { offset, bytes } => match mode {
                0 => {}
                1 => put(durable, offset, &bytes),
                _ => {
                    let end = offset + bytes.len();
                    let mut at = offset;
                    while at < end {
                        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                        if self.pick(2) == 0 {
                            put(durable, at, &bytes[at - offset..next - offset]);
                        }
                        at = next;
                    }
                }
            },
        }
    }

    /// Counts an operation; `Err` when it fails or the machine is down.
    fn change(&mut self, what: &str) -> io::Result<()> {
        if self.down {
            return Err(io::Error::other("the machine is down"));
        }
        let number = self.changes;
        self.changes += 1;
        self.trace.push(format!("{number}: {what}"));
        match self.fault {
            Some((at, Fault::Crash)) if at == number => {
                self.down = true;
                Err(io::Error::other("the machine is down"))
            }
            Some((at, Fault::Fail(kind))) if at == number => Err(io::Error::new(kind, "simulated")),
            _ => Ok(()),
        }
    }

    fn used(&self) -> usize {
        let named: std::collections::BTreeSet<usize> = self.names.values().copied().collect();
        named.into_iter().map(|inode| self.inodes[inode].content.len().max(self.inodes[inode].reserved)).sum()
    }

    /// Whether a file may grow to this end; reserved room is its own.
    fn fits(&self, inode: usize, end: usize) -> io::Result<()> {
        let own = self.inodes[inode].content.len().max(self.inodes[inode].reserved);
        if end > own && self.capacity < usize::MAX && end - own > self.capacity.saturating_sub(self.used()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&self, path: &str) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

struct SimFile {
    sim: Sim,
    inode: usize,
    path: String,
}

impl Sim {
    fn file(&self, inode: usize, path: &str) -> Arc<dyn StoredFile> {
        Arc::new(SimFile { sim: self.clone(), inode, path: path.to_owned() })
    }
}

impl Storage for Sim {
    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let machine = self.machine();
        let inside = machine.names.keys().filter(|path| parent(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.machine().inode(path)?;
        Ok(self.file(inode, path))
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.open(path)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut machine = self.machine();
        machine.change(&format!("create {path}"))?;
        let inode = match machine.inode(path) {
            Ok(inode) => {
                machine.inodes[inode].content.clear();
                machine.inodes[inode].pending.push(Change::Len(0));
                inode
            }
            Err(_) => {
                machine.inodes.push(Inode::default());
                let inode = machine.inodes.len() - 1;
                machine.names.insert(path.to_owned(), inode);
                machine.name_changes.push(NameChange::Link { path: path.to_owned(), inode });
                inode
            }
        };
        Ok(self.file(inode, path))
    }

    fn create_dir(&self, _path: &str) -> io::Result<()> {
        if self.machine().down { Err(io::Error::other("the machine is down")) } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.change(&format!("rename {from} to {to}"))?;
        let inode = machine.inode(from)?;
        let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode };
        change.apply(&mut machine.names);
        machine.name_changes.push(change);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.change(&format!("flush the directory {dir:?}"))?;
        let changes = std::mem::take(&mut machine.name_changes);
        for change in changes {
            if change.dir() == dir {
                change.apply(&mut machine.durable_names);
            } else {
                machine.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, _path: &str) -> Result<Box<dyn Lock>, LockError> {
        let mut machine = self.machine();
        if machine.locked {
            return Err(LockError::Held("4711".into()));
        }
        machine.locked = true;
        Ok(Box::new(SimLock(self.clone())))
    }
}

struct SimLock(Sim);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.machine().locked = false;
    }
}

impl StoredFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sim.machine().inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let machine = self.sim.machine();
        let content = &machine.inodes[self.inode].content;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let read = buffer.len().min(content.len() - start);
        buffer[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.sim.machine();
        let offset = usize::try_from(offset).expect("small files");
        let was_down = machine.down;
        machine.fits(self.inode, offset + bytes.len())?;
        let fault = machine.change(&format!("write {}+{offset} {} bytes", self.path, bytes.len()));
        // A write that fails, or during which power is lost, may have got anywhere.
        let done = match &fault {
            Ok(()) => bytes.len(),
            Err(_) if was_down => return fault,
            Err(_) => machine.pick(bytes.len() + 1),
        };
        let inode = &mut machine.inodes[self.inode];
        put(&mut inode.content, offset, &bytes[..done]);
        inode.pending.push(Change::Write { offset, bytes: bytes[..done].to_vec() });
        fault
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = self.sim.machine();
        machine.change(&format!("cut {} to {len}", self.path))?;
        let len = usize::try_from(len).expect("small files");
        let inode = &mut machine.inodes[self.inode];
        inode.content.resize(len, 0);
        inode.pending.push(Change::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.sim.machine();
        let fault = machine.change(&format!("flush {}", self.path));
        if fault.is_err() && !machine.down {
            // The page cache forgets what it could not write and calls it clean.
            machine.inodes[self.inode].pending.clear();
        }
        fault?;
        let inode = &mut machine.inodes[self.inode];
        inode.durable = inode.content.clone();
        inode.pending.clear();
        Ok(())
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut machine = self.sim.machine();
        machine.change(&format!("reserve {}", self.path))?;
        let end = usize::try_from(offset + len).expect("small files");
        machine.fits(self.inode, end)?;
        let inode = &mut machine.inodes[self.inode];
        inode.reserved = inode.reserved.max(end);
        Ok(())
    }
}

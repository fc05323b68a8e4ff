//! Process 1 of new namespaces: what the agent sees of the machine, then the agent as a child.

use std::io;

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};

use crate::plan::Call;
use crate::{enter, mounts, wait};

/// Mounts, starts the last step, reaps until it ends.
pub(crate) fn inside(call: &Call) -> io::Result<u8> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    mounts::set_up(&call.plan)?;
    enter::stop_mounting()?;
    std::env::set_current_dir(&call.plan.work_dir)?;
    wait::run_to_end(&mut call.next("become"))
}

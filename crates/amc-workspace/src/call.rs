//! Reading the command line, the same in every binary: a call that makes no sense ends with 2, and
//! with `--json` it too answers with the one object.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser};

use crate::answer::{self, Failure};

/// The flags that every verb of every binary takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The workspace's directory (else $AMC_HOME, else the nearest .amc upward).
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Answer with one JSON object.
    #[arg(long, global = true)]
    pub json: bool,
    /// Read the passphrase from this file; - is standard input.
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Parses this process's arguments.
///
/// # Errors
/// The exit code, after help, version or what is wrong was printed.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    C::try_parse_from(&arguments).map_err(|error| refuse::<C>(&arguments, &error))
}

fn refuse<C: CommandFactory>(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json(arguments) {
        let shown = error.render().to_string();
        let message = shown.strip_prefix("error: ").unwrap_or(&shown).trim_end();
        return answer::finish(&verb::<C>(arguments), true, Err(Failure::wrong(message)));
    }
    // Whoever reads stopped reading; the exit code still tells.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The arguments that are ours: those after `--` belong to the command that is to be started.
fn ours(arguments: &[OsString]) -> impl Iterator<Item = &OsString> {
    arguments.iter().skip(1).take_while(|argument| *argument != "--")
}

fn wants_json(arguments: &[OsString]) -> bool {
    ours(arguments).any(|argument| argument == "--json")
}

/// The verb that was meant, as far as it can be told: `bundle verify`.
fn verb<C: CommandFactory>(arguments: &[OsString]) -> String {
    let mut command = C::command();
    let mut names = Vec::new();
    for argument in ours(arguments) {
        if let Some(found) = command.find_subcommand(argument).cloned() {
            names.push(found.get_name().to_owned());
            command = found;
        }
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Verb {
        Bundle {
            #[command(subcommand)]
            verb: Nested,
        },
        Wrap {
            #[arg(last = true)]
            command: Vec<OsString>,
        },
    }

    #[derive(Debug, clap::Subcommand)]
    enum Nested {
        Verify { file: String },
    }

    fn split(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_verb_is_told_and_json_is_ours_only_before_two_dashes() {
        assert_eq!(verb::<Cli>(&split("amc --json bundle verify --no-such-flag")), "bundle verify");
        assert_eq!(verb::<Cli>(&split("amc no-such-verb")), "");
        assert_eq!(verb::<Cli>(&split("amc wrap -- bundle verify")), "wrap");
        assert!(wants_json(&split("amc wrap --json -- true")));
        assert!(!wants_json(&split("amc wrap -- agent --json")));
    }
}

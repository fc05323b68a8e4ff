//! `cargo xtask bench NAME`: finds the package that has a bench target NAME and runs it, optimised.
//!
//! The figures are the bench's own output; this only spares one from knowing where a bench lives.

use crate::workspace::{self, Workspace, cargo};
use crate::{Failure, process, python};

/// Runs the bench target named by the first argument; what follows goes to the bench.
///
/// # Errors
/// No such bench (the text lists those there are), or the bench failed.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let workspace = Workspace::read(&workspace::root())?;
    let benches = targets(&workspace);
    let Some((name, rest)) = args.split_first() else {
        return Err(Failure::new(format!("which bench? {}", known(&benches))));
    };
    let Some((package, _)) = benches.iter().find(|(_, bench)| bench == name) else {
        return Err(Failure::new(format!("there is no bench `{name}`; {}", known(&benches))));
    };
    if name == "gateway" {
        // It measures the whole product, whose programs it starts.
        process::pass_through(cargo(&workspace.root).args([
            "build",
            "--release",
            "--locked",
            "--workspace",
            "--bins",
            "--example",
            "slow-disk",
        ]))?;
    }
    let mut bench = cargo(&workspace.root);
    bench.args(["bench", "--locked", "-p", package, "--bench", name, "--"]);
    let (litellm, rest): (Vec<_>, Vec<_>) = rest.iter().partition(|word| name == "gateway" && *word == "--litellm");
    if !litellm.is_empty() {
        let python = python::environment(&workspace, "litellm", &[LITELLM.to_owned()])?;
        bench.env("AMC_BENCH_LITELLM", python.parent().unwrap_or(&python));
    }
    process::pass_through(bench.args(rest))
}

/// What many people have between their agents and models today; some 750 MB.
const LITELLM: &str = "litellm[proxy]==1.108.7";

/// (package, bench) of every bench target.
fn targets(workspace: &Workspace) -> Vec<(&str, &str)> {
    let all = workspace.packages.iter().flat_map(|package| {
        let benches = package.targets.iter().filter(|target| target.kinds.iter().any(|kind| kind == "bench"));
        benches.map(|target| (package.name.as_str(), target.name.as_str()))
    });
    all.collect()
}

fn known(benches: &[(&str, &str)]) -> String {
    if benches.is_empty() {
        return "no package has a bench target".into();
    }
    let names: Vec<String> = benches.iter().map(|(package, bench)| format!("{bench} ({package})")).collect();
    format!("there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_refused() {
        let failure = command(&["no-such-bench".into()]).expect_err("there is none");
        assert!(failure.to_string().contains("no bench `no-such-bench`"), "{failure}");
    }
}

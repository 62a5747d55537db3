//! Tells the program of which commit it is built, for run.json.
//!
//! `DECORR_COMMIT` in the environment says it for builds without a repository, and keeps commits from building all anew.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=DECORR_COMMIT");
    let given = std::env::var("DECORR_COMMIT").ok();
    let commit = given.or_else(of_repository).unwrap_or_default();
    // Cargo sets this for tests, too: under the same name, a cargo that a test calls would build all anew.
    println!("cargo::rustc-env=DECORR_BUILT_OF={}", commit.trim());
}

/// The short name of the commit, with `-dirty` if tracked files differ from it.
fn of_repository() -> Option<String> {
    // What lies around a package from crates.io is another project's repository.
    Path::new(".git").exists().then_some(())?;
    for path in ["build.rs", "Cargo.toml", "src", "shaders"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Where the commit is named: in a work tree, .git is a file.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", branch.trim()] {
        let path = git(&["rev-parse", "--git-path", name]).unwrap_or_default();
        if Path::new(path.trim()).is_file() {
            println!("cargo::rerun-if-changed={}", path.trim());
        }
    }
    git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let said = output.status.success().then_some(output.stdout)?;
    String::from_utf8(said).ok()
}

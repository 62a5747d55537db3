//! The example as a program.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

/// The visualiser with these arguments.
pub fn visualiser_command(args: &[&str]) -> Command {
    static BUILD: Once = Once::new();
    // Cargo builds examples for the whole test suite, but not for one file of it.
    BUILD.call_once(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--example", "visualiser"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // As these tests were built, or the library and what it needs would be compiled again.
        if cfg!(feature = "mpi") {
            command.args(["--features", "mpi"]);
        }
        // Those of this package: a dependency's build script that looks at them would run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"]
                .iter()
                .any(|of| name.starts_with(of))
            {
                command.env_remove(&*name);
            }
        }
        let built = command.output().unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
    });
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps");
    let name = format!("visualiser{}", std::env::consts::EXE_SUFFIX);
    let mut command = Command::new(profile.join("examples").join(name));
    command.args(args);
    command
}

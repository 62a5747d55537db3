//! The library names its options in backquotes, as `batch_size`; a command line says --batch-size.

use clap::{Arg, Command};

/// `text` with the names of options that `command` or one of its subcommands has as flags.
pub(crate) fn with_flags(text: &str, command: &Command) -> String {
    let flags = command.get_arguments().filter_map(Arg::get_long);
    let text = flags.fold(text.to_string(), |text, flag| {
        // As the library has it, and as config.toml does.
        let names = [flag.replace('-', "_"), flag.to_string()];
        let flagged = format!("--{flag}");
        names.iter().fold(text, |text, name| {
            text.replace(&format!("`{name}`"), &flagged)
        })
    });
    let subcommands = command.get_subcommands();
    subcommands.fold(text, |text, command| with_flags(&text, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_options_become_flags() {
        let train =
            Command::new("train").args(["batch-size", "out"].map(|flag| Arg::new(flag).long(flag)));
        let command = Command::new("decorr").subcommand(train);
        let of = |text: &str| with_flags(text, &command);
        assert_eq!(
            of("at most `batch_size` 31, or another `out`"),
            "at most --batch-size 31, or another --out"
        );
        assert_eq!(
            of("expected one of `batch-size`, `out`"),
            "expected one of --batch-size, --out"
        );
        // What is no option, and what is not in backquotes, stays.
        let other = "`batch` batch_size `decorr train` `outer` it`s out";
        assert_eq!(of(other), other);
    }
}

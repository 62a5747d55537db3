//! The command `decorr`: parse, call, print.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::fail(&error);
            ExitCode::FAILURE
        }
    }
}

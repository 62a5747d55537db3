//! `decorr models`.

use clap::Args;
use decorr::Result;
use decorr::models::{Form, summaries};
use decorr::train::Norm;

use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    /// Only with this norm
    #[arg(long)]
    norm: Option<Norm>,
    /// Only in this form
    #[arg(long)]
    form: Option<Form>,
    /// Print a JSON array of objects: name, form, norm, parameters, flops
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelsArgs) -> Result<()> {
    let all = summaries(args.form, args.norm)?;
    if args.json {
        return print_json(&all);
    }
    print(format_args!(
        "{:<12} {:<9} {:<8} {:>12} {:>10}",
        "name", "form", "norm", "parameters", "GFLOP"
    ));
    for s in all {
        print(format_args!(
            "{:<12} {:<9} {:<8} {:>12} {:>10.4}",
            s.name,
            s.form,
            s.norm,
            s.parameters,
            s.flops as f64 / 1e9
        ));
    }
    Ok(())
}

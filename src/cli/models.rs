//! `decorr models`.

use clap::Args;
use decorr::Result;
use decorr::models::{Form, Summary, summaries};
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
    all.iter().map(row).for_each(print);
    Ok(())
}

fn row(s: &Summary) -> String {
    format!(
        "{:<12} {:<9} {:<8} {:>12} {:>10.4}",
        s.name,
        s.form,
        s.norm,
        s.parameters,
        s.flops as f64 / 1e9
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_words_in_the_order_of_the_heading() {
        let row = row(&Summary {
            name: "vgg11",
            form: "cifar",
            norm: "batch",
            parameters: 9_231_114,
            flops: 306_000_000,
        });
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["vgg11", "cifar", "batch", "9231114", "0.3060"]);
    }
}

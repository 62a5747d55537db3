//! How large the networks are.

use serde::Serialize;

use super::{Form, Model, Norm, networks};
use crate::Result;
use crate::graph::{Graph, Kind, Node};
use crate::nn::Mode;

/// Images with which every layer multiplies D into its weights, rather than into the patches of few images.
const MANY: usize = 4097;

/// A network in one form with one norm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Of the network.
    pub name: &'static str,
    /// `cifar` (32 x 32 x 3, 10 classes), `imagenet` (224 x 224 x 3, 1000 classes), or `mnist`
    /// (28 x 28 x 1, 10 classes) for networks that have no forms.
    pub form: &'static str,
    /// Name of the norm.
    pub norm: &'static str,
    /// Learned values.
    pub parameters: u64,
    /// Twice the multiply-adds of the convolutions and products that evaluating one more image of a large batch takes:
    /// what is done once a batch, D times the weights, is not counted.
    pub flops: u64,
}

/// Every network in every form with every norm, or those of one `form` or `norm`. Needs no GPU.
///
/// # Errors
/// None but bugs.
pub fn summaries(form: Option<Form>, norm: Option<Norm>) -> Result<Vec<Summary>> {
    let mut all = Vec::new();
    for network in networks() {
        let mut forms: Vec<Option<Form>> = network.forms.iter().copied().map(Some).collect();
        if forms.is_empty() {
            forms.push(None);
        }
        for its_form in forms.into_iter().filter(|f| form.is_none() || *f == form) {
            for its_norm in Norm::ALL
                .into_iter()
                .filter(|n| norm.is_none_or(|norm| norm == *n))
            {
                let classes = network.usual_images(its_form).1;
                let model = Model {
                    form: its_form,
                    ..Model::new(network.name, its_norm, classes)?
                };
                all.push(summary(&model)?);
            }
        }
    }
    Ok(all)
}

fn summary(model: &Model) -> Result<Summary> {
    let [many, one_more] = [evaluation(model, MANY)?, evaluation(model, MANY + 1)?];
    let parameters = many.parameters().into_iter();
    Ok(Summary {
        name: model.network.name,
        form: model.form.map_or("mnist", Form::name),
        norm: model.norm.name(),
        parameters: parameters.map(|p| p.len() as u64).sum(),
        flops: flops(&one_more).saturating_sub(flops(&many)),
    })
}

fn evaluation(model: &Model, batch: usize) -> Result<Graph> {
    let g = Graph::new();
    let [c, h, w] = model.network.usual_images(model.form).0;
    let x = g.input("images", [batch, c, h, w]);
    model.forward(x, Mode::Eval);
    g.check()?;
    Ok(g)
}

fn flops(g: &Graph) -> u64 {
    let list = g.list();
    let cost = |node: &Node| match &node.kind {
        Kind::Op(op) if ["conv2d", "matmul"].contains(&op.name()) => {
            let inputs: Vec<_> = node.inputs.iter().map(|&i| list.shape(i)).collect();
            op.cost(&inputs, &node.shape).flops
        }
        _ => 0,
    };
    list.nodes().iter().map(cost).sum()
}

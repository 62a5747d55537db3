//! The graph as text for Graphviz.

use std::fmt::Write;

use super::{Kind, NodeList};

impl NodeList {
    /// The graph in the DOT language: `dot -Tsvg graph.dot -o graph.svg` draws it.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph decorr {\n  node [fontname=\"sans-serif\"];\n");
        // Writing to a String cannot fail.
        for (i, node) in self.nodes().iter().enumerate() {
            let (shape, what) = match &node.kind {
                Kind::Input => ("house", "input".to_string()),
                Kind::State(state) => ("cylinder", format!("{:?}", state.role).to_lowercase()),
                Kind::Op(op) => ("box", op.name().to_string()),
            };
            let name = node.name.replace('"', "'");
            let _ = writeln!(
                text,
                "  n{i} [shape={shape}, label=\"{name}\\n{what} {}\"];",
                node.shape
            );
            for input in &node.inputs {
                let _ = writeln!(text, "  n{} -> n{i};", input.index());
            }
        }
        for (state, value) in self.assigns() {
            let (from, to) = (value.index(), state.index());
            let _ = writeln!(text, "  n{from} -> n{to} [style=dashed, constraint=false];");
        }
        for (name, id) in self.outputs() {
            let _ = writeln!(text, "  \"{name}\" [shape=doublecircle];");
            let _ = writeln!(text, "  n{} -> \"{name}\";", id.index());
        }
        text.push_str("}\n");
        text
    }
}

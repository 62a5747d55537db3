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

#[cfg(test)]
mod tests {
    use crate::graph::{Graph, Init};

    #[test]
    fn arrows_go_from_what_is_read_to_what_reads() {
        let g = Graph::new();
        let x = g.input("x", [2]);
        let w = g.parameter("w", [2], Init::Constant(0.0));
        let sum = x + w;
        w.assign(sum);
        g.output("y", sum.relu());
        let text = g.checked().unwrap().to_dot();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let at = |name: &str, shape: &str, what: &str| {
            let (shape, what) = (format!("[shape={shape}, "), format!("\\n{what} [2]\"];"));
            let is_it = |line: &&&str| line.contains(&shape) && line.ends_with(&what);
            let line = lines
                .iter()
                .find(is_it)
                .unwrap_or_else(|| panic!("no {name}: {text}"));
            line.split(' ').next().unwrap()
        };
        let [x, w, sum, relu] = [
            at("x", "house", "input"),
            at("w", "cylinder", "parameter"),
            at("sum", "box", "add"),
            at("relu", "box", "relu"),
        ];
        let mut arrows: Vec<&str> = lines.iter().copied().filter(|l| l.contains("->")).collect();
        arrows.sort_unstable();
        let mut wanted = [
            format!("{x} -> {sum};"),
            format!("{w} -> {sum};"),
            format!("{sum} -> {relu};"),
            format!("{sum} -> {w} [style=dashed, constraint=false];"),
            format!("{relu} -> \"y\";"),
        ];
        wanted.sort_unstable();
        assert_eq!(arrows, wanted, "{text}");
    }

    /// A quote would end the label.
    #[test]
    fn names_with_quotes_are_labels_still() {
        let g = Graph::new();
        g.output("y", g.input("a \"b\"", [2]).relu());
        let text = g.checked().unwrap().to_dot();
        assert!(text.contains("label=\"a 'b'\\ninput [2]\"]"), "{text}");
    }
}

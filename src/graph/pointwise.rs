//! Element-wise programs: what element-wise ops are made of and what fusion composes.
//!
//! Unstable: may change in any release.

/// A straight-line program over `vec4<f32>` operands; the last instruction is the result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pointwise {
    /// Number of inputs.
    pub inputs: usize,
    /// In order; each may use the inputs and earlier instructions.
    pub instructions: Vec<Instruction>,
}

/// One WGSL expression. `{0}`, `{1}`, ... stand for its operands, all `vec4<f32>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The expression.
    pub expression: String,
    /// What the placeholders stand for.
    pub operands: Vec<Operand>,
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The program's i-th input.
    Input(usize),
    /// The result of instruction i.
    Result(usize),
}

impl Operand {
    fn variable(self) -> String {
        match self {
            Self::Input(k) => format!("x{k}"),
            Self::Result(k) => format!("t{k}"),
        }
    }
}

/// What stands in for an input of the outer program in [`Pointwise::substitute`].
#[derive(Clone, Debug)]
pub enum Argument<'a> {
    /// Input i of the new program.
    Input(usize),
    /// The result of this program, whose own inputs are these inputs of the new program.
    Inline(&'a Pointwise, Vec<usize>),
}

impl Pointwise {
    /// One expression over `inputs` inputs.
    pub fn expression(expression: impl Into<String>, inputs: usize) -> Self {
        Self {
            inputs,
            instructions: vec![Instruction {
                expression: expression.into(),
                operands: (0..inputs).map(Operand::Input).collect(),
            }],
        }
    }

    /// The input itself.
    pub fn identity() -> Self {
        Self::expression("{0}", 1)
    }

    /// The program with each input replaced by its argument; `inputs` is the new input count.
    /// Equal instructions are kept once.
    pub fn substitute(&self, arguments: &[Argument<'_>], inputs: usize) -> Self {
        let mut instructions = Vec::new();
        let replaced: Vec<Operand> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Input(i) => Operand::Input(*i),
                Argument::Inline(inner, inner_inputs) => {
                    let map: Vec<Operand> =
                        inner_inputs.iter().map(|&i| Operand::Input(i)).collect();
                    append(&mut instructions, inner, &map)
                }
            })
            .collect();
        let result = append(&mut instructions, self, &replaced);
        // The result must be the last instruction, also where it was found to equal an earlier one.
        if result != Operand::Result(instructions.len() - 1) {
            instructions.push(Instruction {
                expression: "{0}".into(),
                operands: vec![result],
            });
        }
        Self {
            inputs,
            instructions,
        }
    }

    /// WGSL statements that compute the result from variables `x0`, `x1`, ... (all
    /// `vec4<f32>`), and the name of the variable that holds it.
    pub fn wgsl(&self) -> (String, String) {
        let mut body = String::new();
        for (i, instruction) in self.instructions.iter().enumerate() {
            let mut expression = instruction.expression.clone();
            for (j, operand) in instruction.operands.iter().enumerate() {
                expression = expression.replace(&format!("{{{j}}}"), &operand.variable());
            }
            body.push_str(&format!("    let t{i} = {expression};\n"));
        }
        (body, format!("t{}", self.instructions.len() - 1))
    }
}

/// Several programs computed together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Joint {
    /// The instructions of all.
    pub program: Pointwise,
    /// Where each one's result is.
    results: Vec<Operand>,
}

/// Where an input of a program in a [`Joint`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Input i of all.
    Input(usize),
    /// The result of program i.
    Result(usize),
}

impl Joint {
    /// Appends a program, each of whose inputs is one of `sources`. Equal instructions are kept once.
    pub fn push(&mut self, program: &Pointwise, sources: &[Source]) {
        let operand = |source: &Source| match *source {
            Source::Input(i) => Operand::Input(i),
            Source::Result(i) => self.results[i],
        };
        let inputs: Vec<Operand> = sources.iter().map(operand).collect();
        let read = sources.iter().map(|source| match *source {
            Source::Input(i) => i + 1,
            Source::Result(_) => 0,
        });
        self.program.inputs = read.fold(self.program.inputs, usize::max);
        let result = append(&mut self.program.instructions, program, &inputs);
        self.results.push(result);
    }

    /// WGSL statements as [`Pointwise::wgsl`] has them, and the variables that hold the results.
    pub fn wgsl(&self) -> (String, Vec<String>) {
        let (body, _) = self.program.wgsl();
        (body, self.results.iter().map(|r| r.variable()).collect())
    }
}

/// Appends the instructions of `program`, with its inputs replaced, and returns where its result is.
fn append(instructions: &mut Vec<Instruction>, program: &Pointwise, inputs: &[Operand]) -> Operand {
    let mut placed: Vec<Operand> = Vec::with_capacity(program.instructions.len());
    for instruction in &program.instructions {
        let operands = instruction
            .operands
            .iter()
            .map(|operand| match operand {
                Operand::Input(i) => inputs[*i],
                Operand::Result(i) => placed[*i],
            })
            .collect();
        let instruction = Instruction {
            expression: instruction.expression.clone(),
            operands,
        };
        let index = instructions
            .iter()
            .position(|s| *s == instruction)
            .unwrap_or_else(|| {
                instructions.push(instruction);
                instructions.len() - 1
            });
        placed.push(Operand::Result(index));
    }
    placed.last().copied().unwrap_or(Operand::Input(0))
}

/// A finite `value` as a WGSL `vec4<f32>` literal, exact to the bit (`{:?}` prints the shortest
/// text that reads back as the same number).
pub fn literal(value: f32) -> String {
    format!("vec4<f32>({value:?}f)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_read_the_result_of_another() {
        let mut joint = Joint::default();
        let sum = Pointwise::expression("{0} + {1}", 2);
        joint.push(&sum, &[Source::Input(0), Source::Input(1)]);
        joint.push(&sum, &[Source::Input(2), Source::Result(0)]);
        let (body, results) = joint.wgsl();
        assert_eq!(body, "    let t0 = x0 + x1;\n    let t1 = x2 + t0;\n");
        assert_eq!(results, ["t0", "t1"]);
        assert_eq!(joint.program.inputs, 3);
    }

    #[test]
    fn substitution_inlines_and_keeps_equal_steps_once() {
        let square = Pointwise::expression("{0} * {0}", 1);
        let sum = Pointwise::expression("{0} + {1}", 2);
        let both = sum.substitute(
            &[
                Argument::Inline(&square, vec![0]),
                Argument::Inline(&square, vec![0]),
            ],
            1,
        );
        let (body, result) = both.wgsl();
        assert_eq!(body, "    let t0 = x0 * x0;\n    let t1 = t0 + t0;\n");
        assert_eq!(result, "t1");
    }

    /// The last instruction is the result, also where it was computed before others.
    #[test]
    fn a_result_that_is_there_already_is_named_again() {
        let square = Pointwise::expression("{0} * {0}", 1);
        let half = Pointwise::expression("{0} * 0.5", 1);
        let half_square = half.substitute(&[Argument::Inline(&square, vec![0])], 1);
        // Reads its first argument alone.
        let mut of_first = square;
        of_first.inputs = 2;
        let arguments = [Argument::Input(0), Argument::Inline(&half_square, vec![0])];
        let (body, result) = of_first.substitute(&arguments, 1).wgsl();
        let wanted = "    let t0 = x0 * x0;\n    let t1 = t0 * 0.5;\n    let t2 = t0;\n";
        assert_eq!((body.as_str(), result.as_str()), (wanted, "t2"));
    }
}

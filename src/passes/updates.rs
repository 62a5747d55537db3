//! Which updates of states one dispatch carries out together.
//!
//! A step ends with an update of every parameter, and each takes two nodes or three (its momentum, then
//! the weight, which reads it): a third of all dispatches of a network with batch norm, and nearly all of
//! them tiny. Two things are done about it. What is computed of one tensor becomes one kernel with
//! several results. And small tensors with equal programs are laid side by side in memory (their
//! states in one buffer, their gradients in one stretch of an arena), so that the kernel runs over
//! all of them as over one tensor: no table of offsets is needed.

use std::collections::{BTreeMap, HashMap};

use crate::graph::pointwise::{Joint, Source};
use crate::graph::{Kind, NodeList};
use crate::ops::pointwise::MAX_INPUTS;
use crate::shape::Broadcast;

/// Tensors of more bytes are updated alone: there a dispatch is little beside the memory traffic.
const SMALL_BYTES: u64 = 1 << 18;

/// Bytes of a list of tensors. What is laid side by side is alive together, so that longer lists
/// would need more memory.
const LIST_BYTES: u64 = 1 << 20;

/// Nodes that one dispatch computes, in the place of the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// For each tensor the nodes that are computed of it; each writes a state.
    pub members: Vec<Vec<usize>>,
    /// The program of every member: a result for each of its nodes.
    pub program: Joint,
    /// What the program reads.
    pub inputs: Vec<UpdateInput>,
    /// For each result the input that is the old value of the state that it overwrites.
    pub in_place: Vec<Option<usize>>,
    /// The last node.
    pub position: usize,
    /// Bytes of all members, each rounded up to the alignment unless there is but one.
    pub size_bytes: u64,
}

/// An input of an update. Tensors are named by the node whose memory they are, see [`storage_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpdateInput {
    /// One number for all members.
    Shared(usize),
    /// A tensor for each member.
    Each(Vec<usize>),
}

/// Tensors that lie side by side, each from a multiple of the alignment on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    /// Nodes whose memory it is: states only, or computed ones only.
    runs: Vec<Vec<usize>>,
    place: HashMap<usize, (usize, usize)>,
    /// So many of the first are there already and cannot grow.
    fixed: usize,
}

impl Runs {
    /// Runs to be laid out.
    pub(crate) fn new_runs(&self) -> &[Vec<usize>] {
        &self.runs[self.fixed..]
    }

    fn follows(&self, previous: usize, next: usize) -> bool {
        match (self.place.get(&previous), self.place.get(&next)) {
            (Some(&(run, at)), Some(&place)) => place == (run, at + 1),
            (Some(&(run, at)), None) => run >= self.fixed && at + 1 == self.runs[run].len(),
            (None, None) => previous != next,
            (None, Some(_)) => false,
        }
    }

    fn join(&mut self, previous: usize, next: usize) {
        if self.place.contains_key(&next) {
            return;
        }
        let (run, at) = *self.place.entry(previous).or_insert_with(|| {
            self.runs.push(vec![previous]);
            (self.runs.len() - 1, 0)
        });
        self.runs[run].push(next);
        self.place.insert(next, (run, at + 1));
    }
}

/// A state's place among those of the store: a buffer, and how many lie before it there.
pub(crate) type MadeStates = BTreeMap<String, (usize, usize)>;

/// The updates that take more than one node, and what must lie side by side for them.
///
/// `roots` as from [`super::storage_roots`]; `written_in_place` the nodes that write a state's memory,
/// with that state; `made` the states that are in the store already.
pub(crate) fn updates(
    graph: &NodeList,
    roots: &[usize],
    written_in_place: &HashMap<usize, (usize, Option<usize>)>,
    made: &MadeStates,
    alignment: u64,
) -> (Vec<Update>, Runs) {
    let uses = Uses::new(graph, roots, written_in_place);
    let mut runs = fixed_runs(graph, made);
    let mut members = uses.chains();
    members.sort_by_key(Member::last);

    let mut lists: Vec<List> = Vec::new();
    for member in members {
        let size_bytes = graph.nodes()[member.nodes[0]].shape.size_bytes();
        let aligned = size_bytes.next_multiple_of(alignment);
        let open = lists
            .iter_mut()
            .rev()
            .find(|list| list.size_bytes + aligned <= LIST_BYTES && list.first().is_like(&member));
        let may_join = size_bytes <= SMALL_BYTES && member.can_move;
        if let (Some(list), true) = (open, may_join)
            && list.take(&member, aligned, &mut runs)
        {
            continue;
        }
        lists.push(List {
            limit: member.limit,
            size_bytes: if may_join { aligned } else { LIST_BYTES },
            members: vec![member],
        });
    }
    let updates = lists.into_iter().filter_map(|list| list.update(graph));
    (updates.collect(), runs)
}

/// The node whose memory the value of root `root` is: the state where it is written over one.
pub(crate) fn storage_of(
    root: usize,
    written_in_place: &HashMap<usize, (usize, Option<usize>)>,
) -> usize {
    written_in_place
        .get(&root)
        .map_or(root, |&(state, _)| state)
}

fn fixed_runs(graph: &NodeList, made: &MadeStates) -> Runs {
    let mut by_buffer: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (name, id) in graph.states() {
        if let Some(&(buffer, at)) = made.get(name) {
            by_buffer.entry(buffer).or_default().push((at, id.index()));
        }
    }
    let mut runs = Runs::default();
    for (run, tensors) in by_buffer.into_values().enumerate() {
        for &(at, state) in &tensors {
            runs.place.insert(state, (run, at));
        }
        runs.runs
            .push(tensors.into_iter().map(|(_, s)| s).collect());
    }
    runs.fixed = runs.runs.len();
    runs
}

/// What is computed of one tensor.
#[derive(Clone)]
struct Member {
    nodes: Vec<usize>,
    program: Joint,
    /// Storage, and whether it is one number for all.
    inputs: Vec<(usize, bool)>,
    in_place: Vec<Option<usize>>,
    /// It must be computed before this node.
    limit: usize,
    /// Whether all its tensors may be laid beside others.
    can_move: bool,
    /// All tensors of its own: inputs, then states that are no inputs.
    tensors: Vec<usize>,
    /// Which of them are states: those lie in buffers of the store, and beside no computed one.
    are_states: Vec<bool>,
}

impl Member {
    fn last(&self) -> usize {
        self.nodes.last().copied().unwrap_or(0)
    }

    fn is_like(&self, other: &Self) -> bool {
        let alike = |(a, b): (&(usize, bool), &(usize, bool))| a.1 == b.1 && (!a.1 || a.0 == b.0);
        self.can_move
            && self.program == other.program
            && self.in_place == other.in_place
            && self.inputs.len() == other.inputs.len()
            && self.are_states == other.are_states
            && self.inputs.iter().zip(&other.inputs).all(alike)
    }
}

/// Members of one dispatch.
struct List {
    members: Vec<Member>,
    limit: usize,
    size_bytes: u64,
}

impl List {
    fn first(&self) -> &Member {
        &self.members[0]
    }

    /// Takes `member` in, if what must be computed before stays before and its tensors can lie behind
    /// those of the last one.
    fn take(&mut self, member: &Member, size_bytes: u64, runs: &mut Runs) -> bool {
        let limit = self.limit.min(member.limit);
        let Some(previous) = self.members.last() else {
            return false;
        };
        let pairs = || previous.tensors.iter().zip(&member.tensors);
        let apart = !previous.tensors.iter().any(|t| member.tensors.contains(t));
        if member.last() >= limit || !apart || !pairs().all(|(&a, &b)| runs.follows(a, b)) {
            return false;
        }
        for (&a, &b) in pairs() {
            runs.join(a, b);
        }
        self.limit = limit;
        self.size_bytes += size_bytes;
        self.members.push(member.clone());
        true
    }

    fn update(self, graph: &NodeList) -> Option<Update> {
        let first = self.first();
        if self.members.len() * first.nodes.len() < 2 {
            return None;
        }
        let inputs = first.inputs.iter().enumerate();
        let inputs = inputs.map(|(k, &(storage, shared))| match shared {
            true => UpdateInput::Shared(storage),
            false => UpdateInput::Each(self.members.iter().map(|m| m.inputs[k].0).collect()),
        });
        Some(Update {
            program: first.program.clone(),
            inputs: inputs.collect(),
            in_place: first.in_place.clone(),
            position: self.members.iter().map(Member::last).max()?,
            size_bytes: match self.members.as_slice() {
                [one] => graph.nodes()[one.nodes[0]].shape.size_bytes(),
                _ => self.size_bytes,
            },
            members: self.members.into_iter().map(|m| m.nodes).collect(),
        })
    }
}

/// Who reads and who writes what.
struct Uses<'a> {
    graph: &'a NodeList,
    roots: &'a [usize],
    written_in_place: &'a HashMap<usize, (usize, Option<usize>)>,
    /// By root: the nodes, but for views, that read it.
    readers: Vec<Vec<usize>>,
    /// By state: the node that writes over it.
    writer: HashMap<usize, usize>,
}

impl<'a> Uses<'a> {
    fn new(
        graph: &'a NodeList,
        roots: &'a [usize],
        written_in_place: &'a HashMap<usize, (usize, Option<usize>)>,
    ) -> Self {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (i, node) in graph.nodes().iter().enumerate() {
            if roots[i] == i {
                for input in &node.inputs {
                    readers[roots[input.index()]].push(i);
                }
            }
        }
        let writers = written_in_place.iter();
        Self {
            graph,
            roots,
            written_in_place,
            readers,
            writer: writers.map(|(&node, &(state, _))| (state, node)).collect(),
        }
    }

    /// All updates of states, those that belong together as one member.
    fn chains(&self) -> Vec<Member> {
        let mut chains: Vec<Option<Member>> = Vec::new();
        let mut chain_of: HashMap<usize, usize> = HashMap::new();
        let mut nodes: Vec<usize> = self.written_in_place.keys().copied().collect();
        nodes.sort_unstable();
        for i in nodes {
            // With the chains whose results it reads, if that is possible.
            let inputs = self.graph.nodes()[i].inputs.iter();
            let mut joined: Vec<usize> = inputs
                .filter_map(|x| chain_of.get(&self.roots[x.index()]).copied())
                .collect();
            joined.sort_unstable();
            joined.dedup();
            let parts = joined.iter().filter_map(|&c| chains[c].as_ref());
            let mut all: Vec<usize> = parts.flat_map(|c| c.nodes.clone()).collect();
            all.push(i);
            all.sort_unstable();
            let member = match self.member(&all) {
                Some(member) => {
                    joined.iter().for_each(|&c| chains[c] = None);
                    Some(member)
                }
                None => self.member(&[i]),
            };
            let Some(member) = member else { continue };
            for &node in &member.nodes {
                chain_of.insert(node, chains.len());
            }
            chains.push(Some(member));
        }
        chains.into_iter().flatten().collect()
    }

    /// `nodes` as one kernel in the place of the last; `None` if they cannot be.
    fn member(&self, nodes: &[usize]) -> Option<Member> {
        let shape = &self.graph.nodes()[nodes[0]].shape;
        let mut limit = usize::MAX;
        let mut inputs: Vec<(usize, bool)> = Vec::new();
        let mut program = Joint::default();
        for &i in nodes {
            let node = &self.graph.nodes()[i];
            let Kind::Op(op) = &node.kind else {
                return None;
            };
            if node.shape.len() != shape.len() {
                return None;
            }
            let mut sources = Vec::new();
            for input in &node.inputs {
                let root = self.roots[input.index()];
                let shared = match self.graph.shape(*input).broadcast_to(&node.shape)? {
                    Broadcast::Same => false,
                    Broadcast::Scalar => true,
                    Broadcast::Run { .. } => return None,
                };
                if let (Some(j), false) = (nodes.iter().position(|&n| n == root), shared) {
                    sources.push(Source::Result(j));
                    continue;
                }
                let input = (storage_of(root, self.written_in_place), shared);
                let known = inputs.iter().position(|&known| known == input);
                sources.push(Source::Input(known.unwrap_or(inputs.len())));
                if known.is_none() {
                    inputs.push(input);
                }
                // The old value of a state must be read before it is overwritten.
                if let Some(&writer) = self.writer.get(&root).filter(|w| !nodes.contains(w)) {
                    limit = limit.min(writer);
                }
            }
            program.push(&op.pointwise()?, &sources);
            let readers = self.readers[i].iter().filter(|r| !nodes.contains(r));
            limit = limit.min(readers.copied().min().unwrap_or(usize::MAX));
        }
        let states: Vec<usize> = nodes.iter().map(|n| self.written_in_place[n].0).collect();
        let old_value = |state: &usize| inputs.iter().position(|&i| i == (*state, false));
        let in_place: Vec<Option<usize>> = states.iter().map(old_value).collect();
        let bindings = inputs.len() + in_place.iter().filter(|k| k.is_none()).count();
        // One binding cannot be a number for all and a tensor too.
        let is_both = |&(storage, shared): &(usize, bool)| {
            shared && (states.contains(&storage) || inputs.contains(&(storage, false)))
        };
        if limit <= *nodes.last()? || bindings > MAX_INPUTS + 1 || inputs.iter().any(is_both) {
            return None;
        }
        let mut tensors: Vec<usize> = inputs.iter().filter(|i| !i.1).map(|i| i.0).collect();
        tensors.extend(states.iter().filter(|s| !inputs.contains(&(**s, false))));
        let is_ours = |&t: &usize| !matches!(self.graph.nodes()[t].kind, Kind::Input);
        let is_state = |&t: &usize| matches!(self.graph.nodes()[t].kind, Kind::State(_));
        Some(Member {
            nodes: nodes.to_vec(),
            program,
            can_move: tensors.iter().all(is_ours),
            are_states: tensors.iter().map(is_state).collect(),
            inputs,
            in_place,
            limit,
            tensors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind the last of a run that may grow, or two that lie nowhere: what lies somewhere is not moved.
    #[test]
    fn tensors_follow_where_they_can_be_laid() {
        let mut runs = Runs::default();
        runs.join(1, 2);
        let follow = |runs: &Runs| {
            let all = (1..5).flat_map(|a| (1..5).map(move |b| (a, b)));
            all.filter(|&(a, b)| runs.follows(a, b)).collect::<Vec<_>>()
        };
        assert_eq!(follow(&runs), [(1, 2), (2, 3), (2, 4), (3, 4), (4, 3)]);
        runs.fixed = 1;
        assert_eq!(follow(&runs), [(1, 2), (3, 4), (4, 3)]);
    }
}

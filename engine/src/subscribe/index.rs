//! Which subscriptions a stream's name concerns.
//!
//! Patterns are a trie over segments, walked with all their wildcards at once; names are a map.
//! A look-up costs what the name's depth and the patterns along its path cost, not what there
//! are subscriptions: no node is walked twice for one segment. A subscription's own wake stream never concerns it: its wakes would wake
//! it again.
//!
//! ```text
//! a/*        root ─a─▶ · ─*─▶ ends {1}
//! a/**/b     root ─a─▶ · ─**─▶ (stays on every segment) ─b─▶ ends {2}
//! ```

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{
    entry::Number,
    glob::{Part, Pattern},
    request::LinkType,
};
use crate::types::StreamName;

/// A node of the trie.
type Node = usize;

const ROOT: Node = 0;

/// Nodes that one segment leads to from one node: it stays, or goes by a literal or by `*`, and
/// each of these may go on by `**`.
const WAYS_MAX: usize = 5;

type Nodes = SmallVec<[Node; 16]>;

/// What concerns whom.
#[derive(Debug)]
pub(crate) struct Index {
    nodes: Vec<Branch>,
    /// Nodes that may be used again.
    free: Vec<Node>,
    names: BTreeMap<StreamName, SmallVec<[Number; 1]>>,
    /// Own wake streams, of pull-wake subscriptions.
    own: BTreeMap<StreamName, SmallVec<[Number; 1]>>,
}

#[derive(Debug, Default)]
struct Branch {
    literals: BTreeMap<Box<str>, Node>,
    one: Option<Node>,
    any: Option<Node>,
    /// Reached by `**`: every segment leads here again.
    stays: bool,
    ends: SmallVec<[Number; 1]>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            nodes: vec![Branch::default()],
            free: Vec::new(),
            names: BTreeMap::new(),
            own: BTreeMap::new(),
        }
    }
}

impl Index {
    /// Adds a pattern.
    pub(crate) fn add_pattern(&mut self, pattern: &Pattern, number: Number) {
        let mut node = ROOT;
        for part in pattern.parts() {
            node = match self.child(node, part) {
                Some(child) => child,
                None => self.grow(node, part),
            };
        }
        self.nodes[node].ends.push(number);
    }

    /// Removes a pattern that was added.
    pub(crate) fn remove_pattern(&mut self, pattern: &Pattern, number: Number) {
        let mut path = SmallVec::<[(Node, Part<'_>); 16]>::new();
        let mut node = ROOT;
        for part in pattern.parts() {
            path.push((node, part));
            node = self.child(node, part).expect("a pattern is removed after it was added");
        }
        self.nodes[node].ends.retain(|it| *it != number);
        // Nodes that lead nowhere any more go, from the end on.
        while let Some((parent, part)) = path.pop() {
            if !self.nodes[node].is_bare() {
                return;
            }
            match part {
                Part::Literal(segment) => drop(self.nodes[parent].literals.remove(segment)),
                Part::One => self.nodes[parent].one = None,
                Part::Any => self.nodes[parent].any = None,
            }
            self.nodes[node] = Branch::default();
            self.free.push(node);
            node = parent;
        }
    }

    /// Adds a link by name; a second time changes nothing.
    pub(crate) fn add_name(&mut self, name: &StreamName, number: Number) {
        let numbers = self.names.entry(name.clone()).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }

    /// Removes a link by name, if there is one.
    pub(crate) fn remove_name(&mut self, name: &StreamName, number: Number) {
        forget(&mut self.names, name, number);
    }

    /// Names a subscription's own wake stream, which never concerns it.
    pub(crate) fn add_own(&mut self, name: &StreamName, number: Number) {
        self.own.entry(name.clone()).or_default().push(number);
    }

    /// Takes that back.
    pub(crate) fn remove_own(&mut self, name: &StreamName, number: Number) {
        forget(&mut self.own, name, number);
    }

    /// Whom a stream of this name concerns, by ascending number; being named wins over matching.
    pub(crate) fn concerned(&self, name: &StreamName) -> Vec<(Number, LinkType)> {
        let mut found: Vec<_> =
            self.matching(name.as_str()).map(|number| (number, LinkType::Glob)).collect();
        if let Some(named) = self.names.get(name) {
            found.extend(named.iter().map(|number| (*number, LinkType::Explicit)));
        }
        found.sort_unstable_by_key(|(number, kind)| (*number, *kind == LinkType::Glob));
        found.dedup_by_key(|(number, _)| *number);
        if let Some(own) = self.own.get(name) {
            found.retain(|(number, _)| !own.contains(number));
        }
        found
    }

    fn matching(&self, name: &str) -> impl Iterator<Item = Number> {
        let mut here = Nodes::new();
        let mut next = Nodes::new();
        self.reach(ROOT, &mut here);
        for segment in name.split('/') {
            self.step(&here, segment, &mut next);
            std::mem::swap(&mut here, &mut next);
        }
        here.into_iter().flat_map(|node| self.nodes[node].ends.iter().copied())
    }

    /// Where one more segment leads to, each node once. Each node of `here` is looked at once and
    /// leads to at most [`WAYS_MAX`] others.
    fn step(&self, here: &[Node], segment: &str, next: &mut Nodes) {
        next.clear();
        for &node in here {
            let branch = &self.nodes[node];
            if branch.stays {
                self.reach(node, next);
            }
            if let Some(&child) = branch.literals.get(segment) {
                self.reach(child, next);
            }
            if let Some(child) = branch.one {
                self.reach(child, next);
            }
        }
        let ways = next.len();
        assert!(ways <= here.len() * WAYS_MAX, "a node leads to a few others only");
        // Several ways may lead to one node; it is walked once.
        next.sort_unstable();
        next.dedup();
    }

    /// A node, and the one that `**` leads on to without a segment. There `**` leads no further: in
    /// a pattern it never follows itself.
    fn reach(&self, node: Node, into: &mut Nodes) {
        into.push(node);
        into.extend(self.nodes[node].any);
    }

    fn child(&self, node: Node, part: Part<'_>) -> Option<Node> {
        let branch = &self.nodes[node];
        match part {
            Part::Literal(segment) => branch.literals.get(segment).copied(),
            Part::One => branch.one,
            Part::Any => branch.any,
        }
    }

    fn grow(&mut self, parent: Node, part: Part<'_>) -> Node {
        let stays = part == Part::Any;
        let branch = Branch { stays, ..Branch::default() };
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node] = branch;
                node
            }
            None => {
                self.nodes.push(branch);
                self.nodes.len() - 1
            }
        };
        let above = &mut self.nodes[parent];
        match part {
            Part::Literal(segment) => drop(above.literals.insert(segment.into(), node)),
            Part::One => above.one = Some(node),
            Part::Any => above.any = Some(node),
        }
        node
    }
}

impl Branch {
    fn is_bare(&self) -> bool {
        self.ends.is_empty() && self.literals.is_empty() && self.one.is_none() && self.any.is_none()
    }
}

type Numbers = SmallVec<[Number; 1]>;

fn forget(map: &mut BTreeMap<StreamName, Numbers>, name: &StreamName, number: Number) {
    if let Some(numbers) = map.get_mut(name) {
        numbers.retain(|it| *it != number);
        if numbers.is_empty() {
            map.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::glob::tests::{names, patterns},
        *,
    };

    #[derive(Clone, Debug)]
    struct Entry {
        pattern: Option<Pattern>,
        named: Vec<StreamName>,
        own: Option<StreamName>,
    }

    fn name(text: &str) -> StreamName {
        StreamName::new(text).expect("a good name")
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let named = prop::collection::vec(names().prop_map(|it| name(&it)), 0..3);
        let own = prop::option::of(names().prop_map(|it| name(&it)));
        (prop::option::of(patterns()), named, own).prop_map(|(pattern, named, own)| Entry {
            pattern,
            named,
            own,
        })
    }

    fn add(index: &mut Index, number: Number, entry: &Entry) {
        if let Some(pattern) = &entry.pattern {
            index.add_pattern(pattern, number);
        }
        entry.named.iter().for_each(|name| index.add_name(name, number));
        entry.own.iter().for_each(|name| index.add_own(name, number));
    }

    fn remove(index: &mut Index, number: Number, entry: &Entry) {
        if let Some(pattern) = &entry.pattern {
            index.remove_pattern(pattern, number);
        }
        entry.named.iter().for_each(|name| index.remove_name(name, number));
        entry.own.iter().for_each(|name| index.remove_own(name, number));
    }

    fn naive(entries: &BTreeMap<Number, Entry>, stream: &StreamName) -> Vec<(Number, LinkType)> {
        let kind = |entry: &Entry| {
            if entry.own.as_ref() == Some(stream) {
                return None;
            }
            if entry.named.contains(stream) {
                return Some(LinkType::Explicit);
            }
            let matches = entry.pattern.as_ref().is_some_and(|it| it.matches(stream.as_str()));
            matches.then_some(LinkType::Glob)
        };
        entries.iter().filter_map(|(number, entry)| Some((*number, kind(entry)?))).collect()
    }

    #[test]
    fn an_empty_index_after_removals_keeps_no_nodes_in_use() {
        let mut index = Index::default();
        for round in (0..100).map(Number::new) {
            let patterns = ["a/**/b", "a/*", "**", "a/b/c"];
            for pattern in patterns {
                index.add_pattern(&Pattern::new(pattern).expect("good"), round);
            }
            for pattern in patterns {
                index.remove_pattern(&Pattern::new(pattern).expect("good"), round);
            }
            assert!(index.nodes[ROOT].is_bare());
            assert!(index.nodes.len() <= 8, "{}", index.nodes.len());
        }
    }

    #[test]
    fn a_look_up_walks_no_node_twice_for_a_segment() {
        let segments = vec!["a"; 511];
        let worst = [
            ["**"; 300].join("/"),
            ["**/a"; 16].join("/"),
            format!("{}/b", ["**/a"; 16].join("/")),
            format!("{}/{}", ["**/*"; 16].join("/"), ["a"; 400].join("/")),
        ];
        for pattern in worst {
            let pattern = Pattern::new(&pattern).expect("good");
            let mut index = Index::default();
            index.add_pattern(&pattern, Number::new(1));
            let (mut here, mut next) = (Nodes::new(), Nodes::new());
            index.reach(ROOT, &mut here);
            let mut walked = 0;
            for segment in &segments {
                walked += here.len();
                index.step(&here, segment, &mut next);
                std::mem::swap(&mut here, &mut next);
            }
            assert!(index.nodes.len() <= pattern.parts().count() + 1);
            assert!(walked <= index.nodes.len() * segments.len(), "{walked}");
        }
    }

    proptest! {
        #[test]
        fn a_look_up_agrees_with_a_scan(
            added in prop::collection::vec(entries(), 0..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            streams in prop::collection::vec(names(), 1..20),
        ) {
            let mut index = Index::default();
            let mut present = BTreeMap::new();
            for (number, entry) in (1..).map(Number::new).zip(added) {
                add(&mut index, number, &entry);
                present.insert(number, entry);
            }
            for at in removed {
                if present.is_empty() {
                    break;
                }
                let number = *present.keys().nth(at.index(present.len())).expect("in range");
                let entry = present.remove(&number).expect("listed");
                remove(&mut index, number, &entry);
            }
            for stream in streams {
                let stream = name(&stream);
                prop_assert_eq!(index.concerned(&stream), naive(&present, &stream));
            }
        }
    }
}

//! The truth of a drill: every state the store ever was in, one after the other, and every offset
//! that anybody was ever told, with what came after it. Requests come one at a time, so whatever a
//! recovery brings back must be one of these states as a whole.

use std::collections::BTreeMap;

use crate::{
    checks::{self, Breach},
    require,
};

/// Epochs of one era, as docs/FORMATS.md has it.
const ERA_EPOCHS: u32 = 1 << 16;

/// A stream as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    /// Which epoch counts which positions, from the first one on.
    pub(super) lineage: Vec<(u32, u64)>,
    /// Numbers of its records, inherited ones included.
    pub(super) records: Vec<u32>,
    pub(super) closed: bool,
    /// Epoch and last sequence of its producer, and the number of the record that it sent last.
    pub(super) producer: Option<(u64, u64, u32)>,
    /// It is a fork of this one.
    pub(super) source: Option<String>,
}

/// All streams.
pub(super) type State = BTreeMap<String, Stream>;

/// What is seen of a stream from outside: the position of its tail, its records, and whether it is
/// closed.
pub(super) type Seen = BTreeMap<String, ((u32, u64), Vec<u32>, bool)>;

/// Where an offset points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    At(u64),
    Beyond,
    /// It was left behind; reading goes on here.
    Lost(u64),
}

impl Stream {
    pub(super) fn tail(&self) -> u64 {
        u64::try_from(self.records.len()).expect("drills are short")
    }

    pub(super) fn newest(&self) -> u32 {
        self.lineage.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// The offset of a position.
    pub(super) fn offset(&self, position: u64) -> (u32, u64) {
        let counting = self.lineage.iter().rev().find(|(_, first)| *first <= position);
        (counting.or(self.lineage.first()).map_or(0, |(epoch, _)| *epoch), position)
    }

    /// What an offset means.
    pub(super) fn place(&self, (epoch, position): (u32, u64)) -> Place {
        let limit = |index: usize| self.lineage.get(index).copied();
        match self.lineage.iter().position(|(known, _)| *known == epoch) {
            None => match self.lineage.iter().find(|(known, _)| *known > epoch) {
                None => Place::Beyond,
                Some((_, first)) => Place::Lost(*first),
            },
            Some(index) => match (self.lineage[index], limit(index + 1)) {
                ((_, first), _) if position < first => Place::Lost(first),
                (_, Some((_, first))) if position > first => Place::Lost(first),
                (_, None) if position > self.tail() => Place::Beyond,
                _ => Place::At(position),
            },
        }
    }

    /// A new era: what comes from here on is counted under its first epoch.
    pub(super) fn raise(&mut self, era: u32) {
        while self.newest() / ERA_EPOCHS < era {
            let next = (self.newest() / ERA_EPOCHS + 1) * ERA_EPOCHS;
            self.lineage.push((next, self.tail()));
        }
    }

    /// What a fork of it shows that begins at `at`.
    pub(super) fn forked(&self, source: &str, at: u64, era: u32) -> Self {
        let index = usize::try_from(at).expect("drills are short");
        let mut fork = Self {
            lineage: self.lineage.iter().copied().filter(|(_, first)| *first <= at).collect(),
            records: self.records[..index].to_vec(),
            source: Some(source.to_owned()),
            ..Self::default()
        };
        fork.raise(era);
        fork.lineage.retain(|(epoch, _)| epoch / ERA_EPOCHS >= era);
        fork.lineage[0].1 = 0;
        fork
    }
}

/// What is known of an offset that somebody was told.
#[derive(Clone, Copy, Debug, Default)]
struct Token {
    /// The record that was read there.
    shown: Option<u32>,
}

/// Everything that ever was.
#[derive(Default)]
pub(super) struct Truth {
    /// The states since the last recovery; the last one is now, or may be.
    history: Vec<State>,
    /// The state before which nothing may be lost.
    kept: usize,
    /// The last request was not answered: the last state may not have come to be.
    open: bool,
    tokens: BTreeMap<(String, (u32, u64)), Token>,
    /// Epochs that streams of a name ever began under.
    begun: BTreeMap<String, Vec<u32>>,
    pub(super) recoveries: u32,
}

impl Truth {
    pub(super) fn new() -> Self {
        Self { history: vec![State::new()], ..Self::default() }
    }

    /// The state as far as it was answered.
    pub(super) fn now(&self) -> &State {
        self.history.last().expect("there is always a state")
    }

    /// A request begins that would change this.
    pub(super) fn begin(&mut self, change: impl FnOnce(&mut State)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.history.push(next);
        self.open = true;
    }

    /// It was answered with a yes.
    pub(super) fn done(&mut self) {
        self.open = false;
    }

    /// It was answered with a no.
    pub(super) fn undone(&mut self) {
        self.history.pop();
        self.open = false;
    }

    /// What the last request did to a stream becomes known.
    pub(super) fn correct(&mut self, name: &str, change: impl FnOnce(&mut Stream)) {
        let state = self.history.last_mut().expect("there is always a state");
        if let Some(stream) = state.get_mut(name) {
            change(stream);
        }
    }

    /// Everything so far is in the bucket.
    pub(super) fn published(&mut self) {
        self.kept = self.history.len() - 1;
    }

    /// A new stream begins under an epoch that no stream of its name ever began under.
    pub(super) fn born(&mut self, name: &str, epoch: u32) -> Result<(), Breach> {
        let begun = self.begun.entry(name.to_owned()).or_default();
        require!(
            !begun.contains(&epoch),
            checks::ERA,
            "'{name}' begins under epoch {epoch} again, it had {begun:?}"
        );
        begun.push(epoch);
        Ok(())
    }

    /// Somebody is told an offset.
    pub(super) fn tell(&mut self, name: &str, offset: (u32, u64)) {
        if offset != (0, 0) {
            self.tokens.entry((name.to_owned(), offset)).or_default();
        }
    }

    /// All offsets that somebody was told.
    pub(super) fn tokens(&self) -> Vec<(String, (u32, u64))> {
        self.tokens.keys().cloned().collect()
    }

    /// A read at an offset shows this record first: the same as ever.
    pub(super) fn shown(
        &mut self,
        (name, offset): (&str, (u32, u64)),
        record: u32,
    ) -> Result<(), Breach> {
        let token = self.tokens.entry((name.to_owned(), offset)).or_default();
        let known = *token.shown.get_or_insert(record);
        require!(
            known == record,
            checks::RECOVERED,
            "{offset:?} of '{name}' shows record {record}, it showed {known} before"
        );
        Ok(())
    }

    /// The store was opened again on its own disk: nothing that was answered is missing.
    pub(super) fn restarted(&mut self, seen: &Seen) -> Result<(), Breach> {
        let first = self.history.len() - if self.open { 2 } else { 1 };
        let index = self.find(seen, first..self.history.len())?;
        self.history.truncate(index + 1);
        if self.open && index > first {
            self.learn(seen)?;
        }
        self.kept = self.kept.min(index);
        self.open = false;
        Ok(())
    }

    /// The last request was not answered and yet took effect: if it made a stream, its tail says under
    /// which epoch.
    fn learn(&mut self, seen: &Seen) -> Result<(), Breach> {
        let [.., before, state] = &mut self.history[..] else { return Ok(()) };
        let made = state.iter_mut().find(|(name, _)| !before.contains_key(*name));
        let Some((name, stream)) = made else { return Ok(()) };
        let ((epoch, _), name) = (seen[name].0, name.clone());
        if stream.newest() != epoch || stream.lineage.is_empty() {
            stream.lineage = vec![(epoch, 0)];
        }
        self.born(&name, epoch)
    }

    /// The states that a recovered store may be in, newest first, by number: they look alike, and are
    /// not before everything that was known to be in the bucket. A name that was made anew and is as
    /// empty as before has other epochs.
    pub(super) fn alike(
        &self,
        seen: &Seen,
        recoveries: u32,
    ) -> Result<Vec<(usize, State)>, Breach> {
        let last = self.find(seen, self.kept..self.history.len())?;
        let mut found: Vec<(usize, State)> = Vec::new();
        for index in (self.kept..last + 1).rev().filter(|it| is_like(&self.history[*it], seen)) {
            let mut state = self.history[index].clone();
            state.values_mut().for_each(|stream| stream.raise(recoveries));
            if found.last().is_none_or(|(_, newer)| *newer != state) {
                found.push((index, state));
            }
        }
        Ok(found)
    }

    /// The store was recovered: it is as it was at one moment, in one of the states of
    /// [`Truth::alike`].
    pub(super) fn recovered(
        &mut self,
        (index, state): (usize, State),
        seen: &Seen,
        recoveries: u32,
    ) -> Result<u64, Breach> {
        let last = self.history.len() - 1;
        require!(
            recoveries > self.recoveries,
            checks::ERA,
            "{recoveries} recoveries after {}",
            self.recoveries
        );
        self.recoveries = recoveries;
        for (name, stream) in &state {
            let tail = stream.offset(stream.tail());
            require!(
                seen[name].0 == tail,
                checks::ERA,
                "'{name}' ends at {:?} after {recoveries} recoveries, not at {tail:?}",
                seen[name].0
            );
        }
        // Where a stream ends now, something else came next before, which is lost. Whoever saw that
        // was told an offset beyond it, which is lost too; this one only said what came before.
        for ((name, offset), token) in &mut self.tokens {
            let ends = |stream: &Stream| stream.place(*offset) == Place::At(stream.tail());
            if state.get(name).is_some_and(ends) {
                token.shown = None;
            }
        }
        self.history = vec![state];
        self.kept = 0;
        self.open = false;
        Ok(u64::try_from(last - index).expect("drills are short"))
    }

    /// The newest of some states that looks like this.
    fn find(&self, seen: &Seen, range: std::ops::Range<usize>) -> Result<usize, Breach> {
        match range.clone().rev().find(|index| is_like(&self.history[*index], seen)) {
            Some(index) => Ok(index),
            None => {
                let near = &self.history[range.end - 1];
                let differs = near.keys().chain(seen.keys()).find(|name| {
                    near.get(*name).map(|it| (&it.records, it.closed))
                        != seen.get(*name).map(|(_, records, closed)| (records, *closed))
                });
                Breach::of(
                    checks::RECOVERED,
                    format!(
                        "the store is like none of its states {range:?}; in the last of them \
                         {differs:?} is {:?}, and now {:?}",
                        differs.and_then(|name| near.get(name)),
                        differs.and_then(|name| seen.get(name))
                    ),
                )
            }
        }
    }
}

/// Whether a state looks like what is seen from outside.
fn is_like(state: &State, seen: &Seen) -> bool {
    state.len() == seen.len()
        && state.iter().zip(seen).all(|((name, stream), (shown, (_, records, closed)))| {
            (name, &stream.records, stream.closed) == (shown, records, *closed)
        })
}

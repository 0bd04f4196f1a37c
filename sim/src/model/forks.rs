//! What is known of forks. A life that is a fork shows the records of its source before the point
//! and its own from there on, so a position of any life belongs to exactly one *home*: the life
//! that wrote it. Records are kept there only, and forks look them up.
//!
//! Names that forks use are created by one request at a time (its [`Plan`]), so a life that
//! appears under such a name is known to be what that request asked for, told or not.

use weir_engine::types::{Expiry, Offset, StreamName};

use super::{Checked, Incarnation, Mark, Model, Ticket};
use crate::{
    checks::{self, Breach},
    require,
};

/// Longest chain of forks that is followed; there are fewer names.
const DEPTH_MAX: u32 = 8;

/// What a creation on its way asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `None`: a stream without a source.
    pub asked: Option<Asked>,
    /// How many requests may still create a life of it.
    pub sends: u32,
    /// Requests that are under way.
    pub open: u32,
    /// Requests without an answer that may still be heard.
    pub doubts: u32,
}

impl Plan {
    /// A plan of so many requests at once.
    #[must_use]
    pub const fn new(asked: Option<Asked>, sends: u32) -> Self {
        Self { asked, sends, open: sends, doubts: 0 }
    }
}

/// A fork as it is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub source: StreamName,
    /// What was known of the source as the request began.
    pub ticket: Ticket,
    pub at: Option<Offset>,
    pub sub_offset: u64,
    /// The first own position, if the request says it.
    pub point: Option<u64>,
    /// The request that stands for the record which the fork begins with.
    pub cut: Option<usize>,
    pub expiry: Option<Expiry>,
    /// What is known says that it must, or must not, be taken.
    pub good: Option<bool>,
}

/// Where a life comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub source: StreamName,
    /// Which life of it; `None` if the source may have been another life by then. Then nothing is
    /// known of what such a fork shows.
    pub life: Option<u32>,
    /// The first own position, once known.
    pub point: Option<u64>,
    /// The point of a fork at the tail is not before this.
    pub least: u64,
    /// Inherited records were seen before this.
    pub seen: u64,
    /// The latest wall time by the fork's creation.
    pub wall_max: u64,
}

impl Model {
    /// A creation under a name that forks use begins.
    pub fn plan(&mut self, name: &StreamName, plan: Plan) {
        self.plans += 1;
        let named = self.names.entry(name.clone()).or_default();
        assert!(named.plan.is_none(), "the forker asks for one creation at a time");
        named.planned = true;
        named.plan = Some(plan);
    }

    /// The creation was answered for certain.
    pub fn planned(&mut self, name: &StreamName) {
        self.settle_creation(name);
    }

    pub(super) fn settle_creation(&mut self, name: &StreamName) {
        let plan = self.names.get_mut(name).and_then(|named| named.plan.take());
        if let Some(cut) = plan.and_then(|plan| plan.asked?.cut)
            && self.requests[cut].at.is_none()
        {
            self.requests[cut].fate = super::Fate::Refused;
        }
    }

    /// A life shows itself, perhaps for the first time.
    ///
    /// # Errors
    /// Nobody asked for it.
    pub fn meet(&mut self, name: &StreamName, epoch: u32) -> Checked {
        let named = self.names.entry(name.clone()).or_default();
        if named.lives.contains_key(&epoch) {
            return Ok(());
        }
        if !named.planned {
            named.lives.entry(epoch).or_default();
            return Ok(());
        }
        let Some(plan) = named.plan.as_mut().filter(|plan| plan.sends > 0) else {
            return Breach::of(
                checks::EPOCHS,
                format!("'{name}' shows epoch {epoch}, which nobody asked for"),
            );
        };
        plan.sends -= 1;
        let asked = plan.asked.clone();
        let wall_max = self.wall_max;
        let origin = asked.as_ref().map(|asked| Origin {
            source: asked.source.clone(),
            life: self.source_life(asked),
            point: asked.point,
            least: if asked.at.is_none() { asked.ticket.tail } else { 0 },
            seen: 0,
            wall_max,
        });
        let tail = origin.as_ref().and_then(|origin| origin.point).unwrap_or(0);
        let life = Incarnation { origin, tail, ..Incarnation::default() };
        self.names.entry(name.clone()).or_default().lives.insert(epoch, life);
        if let Some(asked) = asked
            && let (Some(cut), Some(point)) = (asked.cut, asked.point)
        {
            weir_io::sometimes!("a fork began with a part of a record");
            self.place(cut, epoch, point)?;
        }
        Ok(())
    }

    /// Which life a fork was made of, if that is known.
    #[must_use]
    pub fn source_life(&self, asked: &Asked) -> Option<u32> {
        let ticket = &asked.ticket;
        let epoch = ticket.alive?;
        let named = self.names.get(&asked.source)?;
        if !ticket.calm || named.deletions != ticket.deletions {
            return None;
        }
        let (newest, life) = named.lives.last_key_value()?;
        let never = life.expiry == Some(Expiry::Never);
        let made = named.creations != ticket.creations || ticket.creations_open;
        (*newest == epoch && (never || !made)).then_some(epoch)
    }

    /// The fork was made; its own records begin at `point`.
    ///
    /// # Errors
    /// The point is not where the request put it, or what was seen lies on its wrong side.
    pub fn forked(&mut self, name: &StreamName, epoch: u32, point: u64) -> Checked {
        let closed = self.origins(name, epoch).next().and_then(|(_, origin)| {
            self.names.get(&origin.source)?.lives.get(&origin.life?)?.closed
        });
        let life = self.life(name, epoch);
        let first = life.records.iter().position(Option::is_some);
        let Some(origin) = &mut life.origin else {
            return Breach::of(checks::FORKED, format!("'{name}' epoch {epoch} is no fork"));
        };
        let known = *origin.point.get_or_insert(point);
        require!(known == point, checks::FORKED, "'{name}' forks at {point}, asked for {known}");
        let (seen, least) = (origin.seen, if origin.life.is_some() { origin.least } else { 0 });
        require!(
            seen <= point && least <= point,
            checks::FORKED,
            "'{name}' forks at {point}, it had shown {seen} records of its source, which had {least}"
        );
        let own = first.and_then(|first| u64::try_from(first).ok()).unwrap_or(point);
        require!(own >= point, checks::FORKED, "'{name}' forks at {point}, wrote at {own} before");
        require!(
            closed.is_none_or(|closed| point <= closed),
            checks::FORKED,
            "'{name}' forks at {point}, its source was closed at {closed:?}"
        );
        Ok(())
    }

    /// The life itself if it is a fork, then each life it stems from that is one, with the name.
    pub fn origins<'a>(
        &'a self,
        name: &'a StreamName,
        epoch: u32,
    ) -> impl Iterator<Item = (&'a StreamName, &'a Origin)> {
        let mut at = Some((name, epoch));
        std::iter::from_fn(move || {
            let (name, epoch) = at?;
            let origin = self.names.get(name)?.lives.get(&epoch)?.origin.as_ref()?;
            at = origin.life.map(|life| (&origin.source, life));
            Some((name, origin))
        })
    }

    /// Whether nothing is known of what a life inherits.
    #[must_use]
    pub fn is_murky(&self, name: &StreamName, epoch: u32) -> bool {
        self.origins(name, epoch).any(|(_, origin)| origin.life.is_none())
    }

    /// Whether a life is a fork of one of which nobody was told yet where it begins to differ: then
    /// what is known of it can't be looked up.
    #[must_use]
    pub fn stems_from_untold(&self, name: &StreamName, epoch: u32) -> bool {
        self.origins(name, epoch).skip(1).any(|(_, origin)| origin.point.is_none())
    }

    /// Whether a life may show records of a name: its own, or one of a stream that it stems from.
    #[must_use]
    pub fn may_show(&self, name: &StreamName, epoch: u32, of: &StreamName) -> bool {
        name == of || self.origins(name, epoch).any(|(_, origin)| origin.source == *of)
    }

    /// What is known to lie at a position of a life.
    #[must_use]
    pub fn known(&self, name: &StreamName, epoch: u32, position: u64) -> Option<Mark> {
        let index = usize::try_from(position).ok()?;
        let (mut name, mut epoch) = (name, epoch);
        loop {
            let life = self.names.get(name)?.lives.get(&epoch)?;
            match &life.origin {
                Some(origin) if origin.point.is_some_and(|point| position < point) => {
                    (name, epoch) = (&origin.source, origin.life?);
                }
                _ => return life.records.get(index).copied().flatten(),
            }
        }
    }

    /// What may lie at a position of a life: what is known to, and as long as nobody was told where a
    /// fork begins to differ, what lies there in its source.
    #[must_use]
    pub fn likely(&self, name: &StreamName, epoch: u32, position: u64) -> Option<Mark> {
        self.known(name, epoch, position).or_else(|| {
            let untold = |origin: &Origin| origin.point.is_none_or(|point| position < point);
            let (_, origin) = self.origins(name, epoch).next().filter(|(_, it)| untold(it))?;
            self.likely(&origin.source, origin.life?, position)
        })
    }

    /// A page of a life showed this record at this position.
    ///
    /// # Errors
    /// It can't lie there.
    pub fn shown(
        &mut self,
        name: &StreamName,
        epoch: u32,
        position: u64,
        (id, index): Mark,
    ) -> Checked {
        let of = self.requests[id].name.clone();
        let (mut home, mut life) = (name.clone(), epoch);
        while home != of {
            let Some(origin) = &mut self.life(&home, life).origin else {
                let what = format!("'{name}' shows request {id}, which was sent to '{of}'");
                return Breach::of(checks::SENT, what);
            };
            match origin.point {
                Some(point) => require!(
                    position < point,
                    checks::FORKED,
                    "'{name}' shows request {id} of '{of}' at {position}, its point is {point}"
                ),
                None => origin.seen = origin.seen.max(position + 1),
            }
            let Some(source) = origin.life else { return Ok(()) };
            (home, life) = (origin.source.clone(), source);
        }
        let first = u64::try_from(index).ok().and_then(|index| position.checked_sub(index));
        let Some(first) = first else {
            let what = format!("'{name}' {position} is record {index} of request {id}");
            return Breach::of(checks::DENSE, what);
        };
        let known = self.life(&home, life);
        let point = known.origin.as_ref().and_then(|origin| origin.point).unwrap_or(0);
        require!(
            first >= point,
            checks::FORKED,
            "'{home}' shows its own request {id} at {first}, its point is {point}"
        );
        // A fork shows what is durable in its source (INV-2).
        known.tail = known.tail.max(position + 1);
        let closed = known.closed;
        require!(
            closed.is_none_or(|closed| position < closed),
            checks::CLOSED,
            "'{home}' was closed at {closed:?}, '{name}' shows its request {id} at {position}"
        );
        self.place(id, life, first)
    }

    /// Which epoch counts which positions of a life: (epoch, first position). `None`: not known.
    #[must_use]
    pub fn lineage(&self, name: &StreamName, epoch: u32) -> Option<Vec<(u32, u64)>> {
        let life = self.names.get(name)?.lives.get(&epoch)?;
        let Some(origin) = &life.origin else { return Some(vec![(epoch, 0)]) };
        let point = origin.point?;
        let mut parts = self.lineage(&origin.source, origin.life?)?;
        parts.retain(|(_, first)| *first <= point);
        // A name that was used before shares no epoch with anybody.
        if parts.last().is_none_or(|(newest, _)| *newest != epoch) {
            return Some(vec![(epoch, 0)]);
        }
        Some(parts)
    }

    /// A live fork, or one that is kept for live forks of its own, of any life of a name: it keeps
    /// the name from being free. Only forks that nothing but a deletion ends.
    #[must_use]
    pub fn keeper(&self, name: &StreamName) -> Option<(StreamName, u32)> {
        self.forks_of(name).find_map(|(fork, epoch, life)| {
            if life.alive && life.expiry == Some(Expiry::Never) {
                return Some((fork.clone(), epoch));
            }
            self.keeper_of(fork, epoch)
        })
    }

    fn keeper_of(&self, name: &StreamName, epoch: u32) -> Option<(StreamName, u32)> {
        self.forks_of(name).find_map(|(fork, other, life)| {
            let of_it = life.origin.as_ref().is_some_and(|origin| origin.life == Some(epoch));
            if !of_it {
                return None;
            }
            if life.alive && life.expiry == Some(Expiry::Never) {
                return Some((fork.clone(), other));
            }
            self.keeper_of(fork, other)
        })
    }

    /// Newest lives that are forks of a name: a name that is kept is not used again.
    fn forks_of<'a>(
        &'a self,
        name: &'a StreamName,
    ) -> impl Iterator<Item = (&'a StreamName, u32, &'a Incarnation)> {
        self.names.iter().filter(|(_, named)| named.planned).filter_map(move |(fork, named)| {
            let (epoch, life) = named.lives.last_key_value()?;
            let origin = life.origin.as_ref()?;
            let counts = origin.source == *name && (*epoch >= named.free || life.lapsed);
            counts.then_some((fork, *epoch, life))
        })
    }

    /// Whether a name may have forks: one that is not known to be over, or over and kept.
    #[must_use]
    pub fn may_have_forks(&self, name: &StreamName) -> bool {
        self.may_reach(name, DEPTH_MAX)
    }

    fn may_reach(&self, name: &StreamName, depth: u32) -> bool {
        let asked = self.names.values().any(|named| {
            let asked = named.plan.as_ref().and_then(|plan| plan.asked.as_ref());
            asked.is_some_and(|asked| asked.source == *name)
        });
        asked
            || depth == 0
            || self.forks_of(name).any(|(fork, epoch, life)| {
                let over = self.names.get(fork).is_some_and(|named| epoch < named.floor);
                !over || life.lapsed || self.may_reach(fork, depth - 1)
            })
    }

    /// An answer said that the name is deleted and kept for forks. `final_word`: what was there
    /// can't come back.
    ///
    /// # Errors
    /// Nobody ended it, or no fork can be there.
    pub fn saw_gone(&mut self, ticket: &Ticket, now_ms: u64, final_word: bool) -> Checked {
        self.check_absence(ticket, now_ms)?;
        let name = &ticket.name;
        require!(
            ticket.forked || self.plans != ticket.plans || self.may_have_forks(name),
            checks::COUNTED,
            "'{name}' is kept, and it has no forks"
        );
        weir_io::sometimes!("a deleted stream was kept for its forks");
        if final_word {
            self.names.entry(name.clone()).or_default().bury(ticket.newest);
        }
        Ok(())
    }

    /// A name is free: nothing that must keep it may be there.
    pub(super) fn check_free(&self, ticket: &Ticket) -> Checked {
        let Some((fork, epoch)) = &ticket.keeper else { return Ok(()) };
        let alive = self.names.get(fork).and_then(|named| named.lives.get(epoch));
        require!(
            !alive.is_some_and(|life| life.alive),
            checks::COUNTED,
            "'{}' is no more, and its fork '{fork}' lives on (epoch {epoch})",
            ticket.name
        );
        Ok(())
    }
}

//! What is known of what streams let go of: which limits may ever have been in force, and where
//! what can be read begins at least. A position that nobody can read any more is neither missing
//! nor free: what was sent there may have happened and be gone.

use weir_engine::types::{Expiry, Offset, Retention, StreamName};

use super::{Checked, Model, Ticket};
use crate::{checks, require};

impl Model {
    /// A change of limits begins.
    pub fn change_begins(&mut self, name: &StreamName, retention: Retention) {
        self.limits_asked(name, retention);
        let named = self.names.entry(name.clone()).or_default();
        named.changes += 1;
        named.changes_open += 1;
        named.lives.values_mut().for_each(|life| life.retention = None);
    }

    /// A change of limits was answered for certain. `done`: with these, which are in force if it was
    /// the only change.
    ///
    /// # Errors
    /// The answer shows others.
    pub fn change_ends(
        &mut self,
        ticket: &Ticket,
        asked: Retention,
        done: Option<Retention>,
    ) -> Checked {
        let named = self.names.entry(ticket.name.clone()).or_default();
        named.changes_open = named.changes_open.saturating_sub(1);
        let alone = !ticket.changes_open && named.changes == ticket.changes + 1;
        let Some(shown) = done.filter(|_| alone) else { return Ok(()) };
        let name = &ticket.name;
        require!(shown == asked, checks::LIMITS, "'{name}' was given {asked:?} and says {shown:?}");
        if let Some(epoch) = self.same_life(ticket) {
            self.life(name, epoch).retention = Some(asked);
        }
        Ok(())
    }

    /// An answer showed the limits of a life.
    ///
    /// # Errors
    /// They are not those that are in force, or were never asked for.
    pub fn saw_limits(&mut self, ticket: &Ticket, epoch: u32, shown: Retention) -> Checked {
        let name = &ticket.name;
        let named = self.names.entry(name.clone()).or_default();
        require!(
            shown.is_none() || named.limits.contains(&shown),
            checks::LIMITS,
            "'{name}' has limits that nobody gave it: {shown:?}"
        );
        if ticket.changes_open || ticket.changes != named.changes {
            return Ok(());
        }
        if let Some(known) = ticket.retention.filter(|_| ticket.newest == Some(epoch)) {
            require!(
                shown == known,
                checks::LIMITS,
                "'{name}' epoch {epoch} has {shown:?}, it was given {known:?}"
            );
        }
        self.life(name, epoch).retention = Some(shown);
        Ok(())
    }

    /// Whether these limits were in force from the moment of a ticket until now.
    #[must_use]
    pub fn had_limits(&self, ticket: &Ticket, retention: Retention) -> bool {
        let changes = self.names.get(&ticket.name).map_or(0, |named| named.changes);
        !ticket.changes_open && ticket.changes == changes && ticket.retention == Some(retention)
    }

    /// An answer that names no life showed what a stream keeps, and not how much it has.
    ///
    /// # Errors
    /// It can't be.
    pub fn saw_kept(&mut self, ticket: &Ticket, retention: Retention, earliest: u64) -> Checked {
        let Some(epoch) = self.same_life(ticket) else { return Ok(()) };
        self.saw_limits(ticket, epoch, retention)?;
        self.begins_no_earlier(ticket, epoch, earliest)?;
        let life = self.life(&ticket.name, epoch);
        life.earliest = life.earliest.max(earliest);
        Ok(())
    }

    fn begins_no_earlier(&self, ticket: &Ticket, epoch: u32, earliest: u64) -> Checked {
        require!(
            earliest >= ticket.earliest || ticket.newest != Some(epoch),
            checks::LIMITS,
            "'{}' begins at {earliest}, it had begun at {} before",
            ticket.name,
            ticket.earliest
        );
        Ok(())
    }

    /// A read from the beginning left out what lies before a position and is known to be there.
    ///
    /// # Errors
    /// It is within every limit there ever was.
    pub fn saw_omitted(&mut self, ticket: &Ticket, epoch: u32, before: u64) -> Checked {
        require!(
            self.may_be_gone(&ticket.name, epoch, before),
            checks::KEYED,
            "'{}' epoch {epoch} leaves out {}, which is within its limits",
            ticket.name,
            before.saturating_sub(1)
        );
        let life = self.life(&ticket.name, epoch);
        life.earliest = life.earliest.max(before);
        Ok(())
    }

    /// Limits were asked for: they may be in force from now on.
    pub fn limits_asked(&mut self, name: &StreamName, retention: Retention) {
        let limits = &mut self.names.entry(name.clone()).or_default().limits;
        if !retention.is_none() && !limits.contains(&retention) {
            limits.push(retention);
        }
    }

    /// Whether a name may ever have had limits itself.
    #[must_use]
    pub fn has_limits(&self, name: &StreamName) -> bool {
        self.names.get(name).is_some_and(|named| !named.limits.is_empty())
    }

    /// Whether a name, or one that its life stems from, may ever have had limits.
    #[must_use]
    pub fn lets_go(&self, name: &StreamName, epoch: u32) -> bool {
        self.has_limits(name)
            || self.origins(name, epoch).any(|(_, origin)| self.has_limits(&origin.source))
    }

    /// An answer said that what can be read of a life begins here.
    ///
    /// # Errors
    /// It began later before, or something before it is within every limit there ever was.
    pub fn saw_earliest(&mut self, ticket: &Ticket, epoch: u32, earliest: u64) -> Checked {
        let name = &ticket.name;
        self.begins_no_earlier(ticket, epoch, earliest)?;
        require!(
            self.may_be_gone(name, epoch, earliest),
            checks::LIMITS,
            "'{name}' epoch {epoch} begins at {earliest}, and {} is within its limits",
            earliest.saturating_sub(1)
        );
        if earliest > 0 {
            weir_io::sometimes!("a stream had let go of its oldest records");
        }
        let alone = !self.has_limits(name);
        let murky = self.is_murky(name, epoch);
        let life = self.life(name, epoch);
        life.earliest = life.earliest.max(earliest);
        if alone && !murky {
            let begins = *life.begins.get_or_insert(earliest);
            require!(
                begins == earliest,
                checks::KEPT,
                "'{name}' has no limits and begins at {earliest}, it had begun at {begins}"
            );
        }
        Ok(())
    }

    /// A read was told that what it asked for is gone, and where to go on.
    ///
    /// # Errors
    /// It can't be.
    pub fn saw_trimmed(&mut self, ticket: &Ticket, asked: Offset, next: Offset) -> Checked {
        let name = &ticket.name;
        require!(
            asked.next < next.next,
            checks::LIMITS,
            "{asked:?} of '{name}' is gone, what is kept begins at {next:?}"
        );
        let Some(epoch) = self.same_life(ticket) else { return Ok(()) };
        weir_io::sometimes!("a reader was told that what it asked for was let go of");
        require!(
            self.lets_go(name, epoch) || self.is_murky(name, epoch),
            checks::LIMITS,
            "{asked:?} of '{name}' epoch {epoch} is gone, and it never had limits"
        );
        let life = self.life(name, epoch);
        life.earliest = life.earliest.max(next.next.get());
        Ok(())
    }

    /// The life that a ticket was taken for, if it is still the newest, nobody began to end it, and, if
    /// it may end by itself, nobody to make another one.
    fn same_life(&self, ticket: &Ticket) -> Option<u32> {
        let named = self.names.get(&ticket.name)?;
        let (epoch, life) = named.lives.last_key_value()?;
        let alive = life.alive && ticket.alive == Some(*epoch);
        let made = named.creations != ticket.creations || ticket.creations_open;
        let stays = life.expiry == Some(Expiry::Never) || !made;
        (alive && stays && named.deletions == ticket.deletions).then_some(*epoch)
    }

    /// Whether everything before a position may be beyond some limit that was ever asked for.
    fn may_be_gone(&self, name: &StreamName, epoch: u32, earliest: u64) -> bool {
        let Some(last) = earliest.checked_sub(1) else { return true };
        let Some(own) = self.names.get(name) else { return false };
        let sources = self.origins(name, epoch).filter_map(|(_, it)| self.names.get(&it.source));
        let above: Vec<&Retention> = sources.flat_map(|named| &named.limits).collect();
        let ages = own.limits.iter().chain(above.iter().copied()).filter_map(|it| it.max_age_ms);
        let oldest = self.known(name, epoch, last).map(|(request, _)| {
            let request = &self.requests[request];
            request.wall.0.min(request.hint.unwrap_or(u64::MAX))
        });
        let mut old = ages.map(|age| age.get());
        if self.is_murky(name, epoch)
            || old.any(|age| oldest.is_none_or(|at| at + age < self.wall_max))
        {
            return true;
        }
        // How many bytes a source had then is not known any more.
        let too_much = own.limits.iter().filter_map(|it| it.max_bytes).any(|max| {
            self.own_bytes(name, epoch, earliest).is_none_or(|(bytes, _)| bytes >= max.get())
        });
        too_much || above.iter().any(|it| it.max_bytes.is_some())
    }

    /// Bytes of a life's own records from a position on, and of the first of them; `None` if some
    /// of them are not known.
    fn own_bytes(&self, name: &StreamName, epoch: u32, from: u64) -> Option<(u64, u64)> {
        let life = self.names.get(name)?.lives.get(&epoch)?;
        let point = match &life.origin {
            None => 0,
            Some(origin) => origin.point?,
        };
        let (mut sum, mut first) = (0, 0);
        for position in from.max(point)..life.tail {
            let (request, index) = self.known(name, epoch, position)?;
            let bytes = u64::try_from(self.requests[request].records[index].len());
            let bytes = bytes.expect("small");
            if sum == 0 {
                first = bytes;
            }
            sum += bytes;
        }
        Some((sum, first))
    }

    /// Whether own records of a name's newest life may have gone before anybody knew of them.
    #[must_use]
    pub fn may_have_missed(&self, name: &StreamName) -> bool {
        let newest = self.names.get(name).and_then(|named| named.lives.last_key_value());
        newest.is_some_and(|(_, life)| {
            let point = life.origin.as_ref().map_or(Some(0), |origin| origin.point);
            let known = |position: u64| {
                let index = usize::try_from(position).expect("simulated streams are short");
                life.records.get(index).copied().flatten().is_some()
            };
            point.is_none_or(|point| (point..life.earliest).any(|position| !known(position)))
        })
    }

    /// At peace, `late_ms` after everything was written: what a life still shows is within its limits,
    /// but for what is let be.
    ///
    /// # Errors
    /// It is not.
    pub fn is_trimmed(
        &self,
        (name, epoch): (&StreamName, u32),
        retention: Retention,
        earliest: u64,
        (wall_ms, late_ms): (u64, u64),
    ) -> Checked {
        let tail = self.names.get(name).and_then(|it| it.lives.get(&epoch)).map_or(0, |it| it.tail);
        if self.is_murky(name, epoch) || earliest >= tail {
            return Ok(());
        }
        if let Some(max) = retention.max_bytes
            && let Some((bytes, first)) = self.own_bytes(name, epoch, earliest)
        {
            let max = max.get();
            let kept = bytes <= max + max / 8 || bytes - first < max;
            require!(kept, checks::LIMITS, "'{name}' keeps {bytes} bytes, its limit is {max}");
        }
        if let Some(age) = retention.max_age_ms
            && let Some((_, latest)) = self.timestamp(name, epoch, earliest)
        {
            let age = age.get();
            require!(
                latest + age + age / 16 + late_ms >= wall_ms,
                checks::LIMITS,
                "'{name}' keeps {earliest}, of {latest} or before, at {wall_ms}, its limit is {age}"
            );
        }
        Ok(())
    }
}

//! Creations with their checks, forks included.

use bytes::Bytes;
use weir_engine::{
    request::{Create, CreateOutcome, Created, Fork, Rejection},
    types::{Closing, ContentType, Expiry, Retention},
};

use super::{
    Class, Target, retention,
    verbs::{Absence, Said},
};
use crate::{
    checks::{self, Breach},
    model::{Asked, Doubt, Model, Ticket, Word},
    require,
    world::Host,
};

/// A creation as a client wishes it.
#[derive(Clone, Debug)]
pub struct Wish {
    pub content: Option<ContentType>,
    pub expiry: Option<Expiry>,
    pub retention: Retention,
    pub closing: Closing,
    /// The request of its first records, with their bytes.
    pub body: Option<(usize, Bytes)>,
    pub asked: Option<Asked>,
}

impl Wish {
    /// A stream without a source.
    #[must_use]
    pub fn plain(target: &Target, expiry: Expiry) -> Wish {
        let content = Some(target.content.clone());
        let retention = match target.class {
            Class::Trimmed => retention::of(target.number),
            _ => Retention::NONE,
        };
        let closing = Closing::KeepOpen;
        Wish { content, expiry: Some(expiry), retention, closing, body: None, asked: None }
    }
}

impl Host {
    /// Creates a stream, with the records of request `id` if there are any, as a fork if it is
    /// asked for as one.
    pub async fn create(&self, target: &Target, wish: Wish) -> Said<Created> {
        let sim = &self.sim;
        let ticket = self.ticket(target);
        let Wish { content, expiry, retention, closing, body, asked } = wish;
        let id = body.as_ref().map(|(id, _)| *id);
        if let Some(id) = id {
            sim.model.borrow_mut().attempt(id, sim.wall_ms());
        }
        sim.model.borrow_mut().creation_begins(&target.name);
        sim.model.borrow_mut().limits_asked(&target.name, retention);
        let fork = asked.as_ref().map(|asked| Fork {
            source: asked.source.clone(),
            at: asked.at,
            sub_offset: asked.sub_offset,
        });
        let note = format!("create {} {id:?} {fork:?}", target.name);
        sim.note(&note);
        let create = Create {
            expiry,
            fork,
            retention,
            closing,
            body: body.map(|(_, body)| body).unwrap_or_default(),
            ..Create::new(target.name.clone(), content)
        };
        let answer = self.door.create(create).await;
        let said = self.sort(&ticket, &note, answer);
        match said {
            Said::Unknown => {
                sim.model.borrow_mut().creation_in_doubt(&target.name);
                sim.doubt(Doubt::Creation(target.name.clone()));
            }
            _ => sim.model.borrow_mut().creation_ends(&target.name),
        }
        match &said {
            Said::Yes(created) => {
                sim.note(&format!("{note}: {:?} {:?}", created.outcome, created.head.next));
                if let Some(id) = id {
                    sim.model.borrow_mut().answered(id);
                }
                sim.check(self.saw_created(&ticket, asked.as_ref(), created, id));
            }
            Said::No(rejection) => {
                id.into_iter().for_each(|id| sim.model.borrow_mut().refuse(id));
                if let Some(asked) = &asked {
                    self.absent_source(asked, rejection);
                }
            }
            Said::Nothing => id.into_iter().for_each(|id| sim.model.borrow_mut().refuse(id)),
            Said::Unknown => id.into_iter().for_each(|id| sim.doubt_records(id)),
        }
        said
    }

    /// A fork was refused: what that says of its source.
    fn absent_source(&self, asked: &Asked, rejection: &Rejection) {
        match rejection {
            Rejection::SourceNotFound(_) => self.absent(&asked.ticket, Absence::Free),
            Rejection::SourceGone(_) => self.absent(&asked.ticket, Absence::Kept),
            _ => {}
        }
        let point = matches!(rejection, Rejection::ForkPoint(_) | Rejection::ForkDepth);
        let model = self.sim.model.borrow();
        if point && asked.good == Some(true) && model.source_life(asked).is_some() {
            let what = format!("{asked:?} is refused: {rejection}");
            drop(model);
            self.sim.check::<()>(Breach::of(checks::FORKED, what));
        }
    }

    fn saw_created(
        &self,
        ticket: &Ticket,
        asked: Option<&Asked>,
        created: &Created,
        id: Option<usize>,
    ) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        let (epoch, next) = (created.head.next.epoch.get(), created.head.next.next.get());
        let new = created.outcome == CreateOutcome::New;
        if new {
            model.saw_absence(ticket, self.sim.now_ms(), Word::Final)?;
        }
        model.meet(&ticket.name, epoch)?;
        if new {
            require!(
                ticket.newest.is_none_or(|newest| epoch > newest),
                checks::EPOCHS,
                "'{}' was created anew under epoch {epoch}, it had {:?}",
                ticket.name,
                ticket.newest
            );
            let count = id.map_or(0, |id| model.requests[id].records.len());
            let first = next.checked_sub(u64::try_from(count).expect("small"));
            let Some(first) = first else {
                return Breach::of(checks::DENSE, format!("'{}' begins at {next}", ticket.name));
            };
            if let Some(asked) = asked {
                self.saw_forked(&mut model, ticket, asked, created, first)?;
            }
            if let Some(id) = id {
                model.place(id, epoch, first)?;
            }
        } else if let Some(id) = id {
            model.requests[id].fate = crate::model::Fate::Refused;
        }
        self.touched(&mut model, ticket, epoch);
        if new {
            model.told(&ticket.name, created.head.next);
        }
        let window = self.window(&model, asked, created);
        drop(model);
        // Over HTTP the answer to a creation does not tell where the stream begins.
        let earliest = (!self.door.may_lose()).then_some(created.head.earliest);
        self.saw_state(ticket, &created.head, window, earliest)
    }

    /// The window of a stream that was made. Over HTTP the answer to the creation of a fork does
    /// not tell a sliding one from none: then it is its source's, as far as that is known.
    fn window(&self, model: &Model, asked: Option<&Asked>, created: &Created) -> Option<Expiry> {
        let shown = created.head.expiry;
        let Some(asked) = asked.filter(|asked| self.door.may_lose() && asked.expiry.is_none())
        else {
            return Some(shown);
        };
        if shown != Expiry::Never {
            return Some(shown);
        }
        if created.outcome != CreateOutcome::New {
            return None;
        }
        let source = model.names.get(&asked.source)?;
        source.lives.get(&model.source_life(asked)?)?.expiry
    }

    /// A fork is new, and its own records but for a cut one begin at `first`.
    fn saw_forked(
        &self,
        model: &mut Model,
        ticket: &Ticket,
        asked: &Asked,
        created: &Created,
        first: u64,
    ) -> Result<(), Breach> {
        let head = &created.head;
        let same = model.source_life(asked).is_some();
        let good = asked.good != Some(false) || !same;
        require!(good, checks::FORKED, "{asked:?} was made: {created:?}");
        model.forked(
            &ticket.name,
            head.next.epoch.get(),
            first - u64::from(asked.cut.is_some()),
        )?;
        let source = model.source_life(asked).map(|epoch| model.life(&asked.source, epoch).expiry);
        let expiry = asked.expiry.or(source.flatten());
        let shown = self.window(model, Some(asked), created);
        require!(
            expiry.is_none_or(|expiry| shown.is_none_or(|shown| expiry == shown)),
            checks::FORKED,
            "'{}' was to expire {expiry:?}, it says {:?}",
            ticket.name,
            head.expiry
        );
        if ticket.newest.is_some() {
            weir_io::sometimes!("a name that was used before became a fork");
        }
        let depth = model.origins(&ticket.name, head.next.epoch.get()).count();
        if depth >= 4 {
            weir_io::sometimes!("a fork of a fork of a fork of a fork was made");
        }
        Ok(())
    }
}

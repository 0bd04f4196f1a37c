//! What a stream keeps: limits that are changed, and records that go because of them.

use std::sync::Arc;

use super::{Sequencer, Submitted, absence, decided, pending, refuse};
use crate::{
    decide::{self, Now},
    log::{
        entry::{Entry, Trim, Why},
        gate::Gate,
        group::Change,
    },
    request::{Error, Rejection},
    state::{kept::Kept, view::Stream},
    types::{Retention, Seq, StreamName},
};

impl Sequencer {
    /// Gives a stream other limits. Does not extend its life.
    pub(crate) fn retain(
        &self,
        name: &StreamName,
        retention: Retention,
        now: Now,
    ) -> Result<Submitted<Arc<Stream>>, Error> {
        let mut inner = self.admit(0)?;
        let (stream, gate) = match self.named(name) {
            Ok(found) => found,
            Err(answer) => return Ok(answer),
        };
        let mut view = stream.decided.lock();
        if view.state.retired {
            return Ok(refuse(Rejection::Gone, pending(view.gate.clone())));
        }
        if stream.has_expired(view.state.deadline, now) {
            return Ok(match self.end(&mut inner, &stream, &mut view, Why::Expired) {
                Ok(gate) => refuse(absence(&view), Some(gate)),
                Err(missing) => Submitted::Load(missing),
            });
        }
        if view.state.kept.retention != retention {
            view.state.kept.retention = retention;
            view.state.lsn = inner.open.lsn;
            let retain = Entry::Retain { stream: stream.identity.id, retention };
            view.gate = Some(inner.put(&stream, &retain, |_| Change::Retain(retention)));
            self.work.notify_one();
        }
        let gate = pending(view.gate.clone()).or(pending(gate));
        drop(view);
        Ok(decided(Ok(stream), gate))
    }

    /// Lets go of a stream's oldest records, as was found to be right while it kept `seen` and ended
    /// at `tail`. Returns the gate to wait for; `None`: it is right no more.
    pub(crate) fn trim(
        &self,
        stream: &Arc<Stream>,
        trim: Trim,
        (seen, tail): (&Kept, Seq),
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut inner = self.admit_internal()?;
        let mut view = stream.decided.lock();
        let state = &view.state;
        if view.is_over() || !decide::retention::holds(&trim, (seen, tail), &state.kept, state.next)
        {
            weir_io::sometimes!("a trim was overtaken by what was decided meanwhile");
            return Ok(None);
        }
        let lsn = inner.open.lsn;
        view.state.trim(&trim, lsn);
        let gate = inner.put(stream, &Entry::Trim(trim), |_| Change::Trim(trim));
        view.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        Ok(Some(gate))
    }
}

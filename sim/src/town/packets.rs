//! Every packet of the town, in its hash: what was sent, held back, lost and delivered, with its first
//! bytes, as the simulated network tells its listeners. All bytes are hashed where they are sent and
//! got (`Lines::seen`): the network prints them one by one, and that took a fifth of a seed's time.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use parking_lot::Mutex;
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use weir_io::memory::Trace;

/// Where the network's own events come from.
const NETWORK: &str = "turmoil";
/// Of what is told of a packet, in one field.
const HEAD_BYTES_MAX: usize = 128;

/// How many packets there were, and what they were.
#[derive(Debug, Default)]
struct Sum {
    packets: u64,
    hash: Trace,
    line: String,
}

/// What was seen of packets.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    sum: Arc<Mutex<Sum>>,
}

impl Packets {
    /// Listens while `life` lasts. Whoever listened before hears what it heard before.
    pub fn during(&self, life: impl FnOnce()) {
        let before = tracing::dispatcher::get_default(Clone::clone);
        let listener = Listener { packets: self.clone(), before };
        tracing::subscriber::with_default(listener, life);
    }

    /// How many packets there were so far, and a hash over them.
    #[must_use]
    pub fn so_far(&self) -> (u64, u64) {
        let sum = self.sum.lock();
        (sum.packets, sum.hash.value())
    }
}

struct Listener {
    packets: Packets,
    before: Dispatch,
}

fn is_packet(metadata: &Metadata<'_>) -> bool {
    metadata.target() == NETWORK
        && *metadata.level() == Level::TRACE
        && metadata.fields().field("protocol").is_some()
}

impl Visit for Sum {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        // It says no once it has enough, and the network stops printing.
        let _ = write!(Head { line: &mut self.line, room: HEAD_BYTES_MAX }, "{value:?}");
        self.line.push(' ');
    }
}

/// The start of what is written.
struct Head<'a> {
    line: &'a mut String,
    room: usize,
}

impl fmt::Write for Head<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.room = self.room.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.line.push_str(text);
        Ok(())
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_packet(metadata) || self.before.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        if is_packet(event.metadata()) {
            let mut sum = self.packets.sum.lock();
            sum.line.clear();
            event.record(&mut *sum);
            let line = std::mem::take(&mut sum.line);
            sum.hash.add_bytes(line.as_bytes());
            sum.packets += 1;
            sum.line = line;
        }
        if self.before.enabled(event.metadata()) {
            self.before.event(event);
        }
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        self.before.new_span(attributes)
    }

    fn record(&self, span: &span::Id, values: &span::Record<'_>) {
        self.before.record(span, values);
    }

    fn record_follows_from(&self, span: &span::Id, follows: &span::Id) {
        self.before.record_follows_from(span, follows);
    }

    fn enter(&self, span: &span::Id) {
        self.before.enter(span);
    }

    fn exit(&self, span: &span::Id) {
        self.before.exit(span);
    }

    fn clone_span(&self, span: &span::Id) -> span::Id {
        self.before.clone_span(span)
    }

    fn try_close(&self, span: span::Id) -> bool {
        self.before.try_close(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_count_and_nothing_else_does() {
        let packets = Packets::default();
        let told = |what: &str, packets: &Packets| {
            packets.during(|| {
                tracing::trace!(target: NETWORK, protocol = %what, "Send");
                tracing::trace!(target: NETWORK, "step 1");
                tracing::info!(protocol = %what, "something else");
            });
            packets.so_far()
        };
        let (one, other) = (told("a", &packets), told("b", &Packets::default()));
        assert_eq!((one.0, other.0), (1, 1));
        assert_ne!(one.1, other.1);
        assert_eq!(told("a", &packets).0, 2);
        assert_eq!(told("a", &Packets::default()), one);
    }
}

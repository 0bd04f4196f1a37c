//! What a command has done so far, for whoever ends it without waiting for its end.

use std::sync::Arc;

use parking_lot::Mutex;

use super::exit::Voice;

/// What was done. Clones share it.
#[derive(Clone, Default)]
pub(super) struct SoFar(Arc<Mutex<Done>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Done {
    #[default]
    Nothing,
    /// So much was acknowledged.
    Appended { requests: u64, lines: u64, bytes: u64, tail: String },
    /// All before this offset was printed.
    Printed(String),
}

impl SoFar {
    /// So much was acknowledged, and the stream ends there now.
    pub(super) fn appended(&self, requests: u64, lines: u64, bytes: u64, tail: &str) {
        *self.0.lock() = Done::Appended { requests, lines, bytes, tail: tail.to_owned() };
    }

    /// All before this offset was printed.
    pub(super) fn printed(&self, offset: &str) {
        *self.0.lock() = Done::Printed(offset.to_owned());
    }

    /// Says what was done when nobody waits for the end.
    pub(super) fn tell(&self, voice: Voice) {
        let (text, offset) = words(&self.0.lock());
        voice.note_at(&text, offset.as_deref());
    }
}

fn words(done: &Done) -> (String, Option<String>) {
    match done {
        Done::Nothing => ("ended at once: nothing was acknowledged by then".to_owned(), None),
        Done::Appended { requests, lines, bytes, tail } => {
            let what = match lines {
                0 => format!("{bytes} bytes in {requests} requests"),
                lines => format!("{lines} lines, {bytes} bytes,"),
            };
            let text = format!(
                "ended at once: {what} were acknowledged by then, up to {tail}; of a request on \
                 its way nobody knows"
            );
            (text, Some(tail.clone()))
        }
        Done::Printed(offset) => (go_on(offset), Some(offset.clone())),
    }
}

/// Where to go on with what was printed in part.
pub(super) fn go_on(offset: &str) -> String {
    format!("go on with --from {offset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_at_once_says_what_is_done() {
        let so_far = SoFar::default();
        let check = |part: &str, offset: Option<&str>| {
            let (text, found) = words(&so_far.0.lock());
            assert!(text.contains(part) && found.as_deref() == offset, "{text}");
        };
        check("nothing was acknowledged", None);
        so_far.appended(2, 7, 100, "0_7");
        check("7 lines, 100 bytes, were acknowledged by then, up to 0_7", Some("0_7"));
        so_far.appended(2, 0, 100, "0_7");
        check("100 bytes in 2 requests", Some("0_7"));
        so_far.printed("0_9");
        check("go on with --from 0_9", Some("0_9"));
    }
}

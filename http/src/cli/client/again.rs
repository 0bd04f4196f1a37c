//! What is said of an input that did not come to its end: what the same command again would append
//! twice, how to go on instead, and what never appends twice.

/// What keeps an input from being appended twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// A producer: the same command goes on.
    Resumes,
    /// Whoever calls again. An input can be a producer's.
    OfInput,
    /// Whoever calls again. Messages can be a producer's by their numbers.
    OfMessages,
}

/// Said of an append without a producer that ended before its end, if it can't be said of which
/// lines.
pub(super) fn twice(care: Care, lost: bool) -> String {
    let (what, next) = match care {
        Care::Resumes | Care::OfInput => ("input", NEXT_TIME),
        Care::OfMessages => (
            "messages",
            "next time number them, by --producer-id ID --producer-seq N: what has a number that \
             was used is not appended again",
        ),
    };
    match lost {
        true => format!(
            "part of the {what} is appended, and what was sent last may be; the same command again \
             appends that part twice: see what is there, or {next}"
        ),
        false => format!(
            "part of the {what} is appended; the same command again appends that part twice: begin \
             behind it, or {next}"
        ),
    }
}

/// What an input can do that is more than one message.
const NEXT_TIME: &str = "next time use --producer-id, which goes on by itself";

/// How far a file has come whose lines are appended.
#[derive(Clone, Debug, Default)]
pub(super) struct Far {
    /// The file that is stored in part, and how many of its lines are.
    pub(super) stored: Option<(String, u64)>,
    /// The same with the request that was sent last.
    pub(super) sent: Option<(String, u64)>,
}

impl Far {
    /// What of it is stored in the stream `name`, and how to go on without storing it twice. Of a
    /// request whose answer was lost nobody knows.
    pub(super) fn words(&self, lost: bool, name: &str) -> Option<String> {
        if let (true, Some((file, last))) = (lost, &self.sent) {
            let there = self.stored.as_ref().map_or(0, |(_, lines)| *lines);
            let next = there + 1;
            let sure = match there {
                0 => String::new(),
                there => format!("lines 1 to {there} of {file} are appended, "),
            };
            return Some(format!(
                "{sure}lines {next} to {last} of {file} may be: `weir head {name}` and `weir tail \
                 {name}` say what is there; {NEXT_TIME}"
            ));
        }
        let (file, lines) = self.stored.as_ref()?;
        let next = lines + 1;
        let rest = match file.as_str() {
            "standard input" => format!("begin with line {next}"),
            file => format!("`tail -n +{next} {file}` is the rest"),
        };
        let (unit, are, them) =
            if *lines == 1 { ("line", "is", "it") } else { ("lines", "are", "them") };
        Some(format!(
            "{lines} {unit} of {file} {are} appended; the same command again appends {them} twice: \
             {rest}, or {NEXT_TIME}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advised_can_be_followed() {
        for lost in [false, true] {
            let input = twice(Care::OfInput, lost);
            assert!(
                input.contains("--producer-id") && !input.contains("--producer-seq"),
                "{input}"
            );
            let messages = twice(Care::OfMessages, lost);
            assert!(messages.contains("--producer-id ID --producer-seq N"), "{messages}");
        }
    }

    #[test]
    fn lines_that_are_stored_are_told_from_those_that_may_be() {
        let mut far = Far::default();
        assert_eq!(far.words(true, "s"), None);
        far.sent = Some(("in".to_owned(), 4));
        assert_eq!(far.words(false, "s"), None);
        let words = far.words(true, "s").expect("sent");
        assert!(words.starts_with("lines 1 to 4 of in may be: `weir head s`"), "{words}");
        far.stored = Some(("in".to_owned(), 2));
        let words = far.words(true, "s").expect("sent");
        assert!(words.starts_with("lines 1 to 2 of in are appended, lines 3 to 4"), "{words}");
        let words = far.words(false, "s").expect("stored");
        assert!(words.contains("`tail -n +3 in` is the rest"), "{words}");
    }
}

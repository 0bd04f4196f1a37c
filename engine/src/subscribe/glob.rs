//! Glob patterns over stream names: `*` is exactly one segment, `**` any number of them, none
//! included; anything else is a segment as it stands (protocol §6.1).

/// Most `**` in a pattern: each keeps a look-up at every segment of a name.
const ANY_MAX: usize = 16;

/// A valid pattern, as the client gave it without slashes at its ends and with one `**` for a
/// run of them, which means the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(std::sync::Arc<str>);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Nothing is left of it.
    #[error("pattern is empty")]
    Empty,
    /// Longer than a stream name may be.
    #[error("pattern is too long")]
    TooLong,
    /// An empty, `.` or `..` segment, or a control character.
    #[error("pattern has an empty, '.' or '..' segment or a control character")]
    Segment,
    /// Runs of `**` count once.
    #[error("pattern has more than {ANY_MAX} '**'")]
    TooManyAny,
    /// It can match nothing but the control plane.
    #[error("'__ds' is reserved")]
    Reserved,
}

/// What one segment of a pattern asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// This segment.
    Literal(&'a str),
    /// One segment, whichever.
    One,
    /// Any number of segments.
    Any,
}

impl Pattern {
    /// Checks and takes a decoded pattern.
    ///
    /// # Errors
    /// [`BadPattern`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Err(BadPattern::Empty);
        }
        if text.len() > crate::limits::NAME_BYTES_MAX {
            return Err(BadPattern::TooLong);
        }
        let bad = |segment: &str| {
            matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control)
        };
        if text.split('/').any(bad) {
            return Err(BadPattern::Segment);
        }
        if text.split('/').next() == Some("__ds") {
            return Err(BadPattern::Reserved);
        }
        let mut segments: Vec<_> = text.split('/').collect();
        segments.dedup_by(|next, before| *next == "**" && *before == "**");
        if segments.iter().filter(|segment| **segment == "**").count() > ANY_MAX {
            return Err(BadPattern::TooManyAny);
        }
        Ok(Self(segments.join("/").into()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, in order. [`Part::Any`] never follows itself.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.0.split('/').map(|segment| match segment {
            "*" => Part::One,
            "**" => Part::Any,
            literal => Part::Literal(literal),
        })
    }

    /// Whether a stream's name matches. Costs at most the product of the two lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // The last `**` met, as what follows it in pattern and name: on a mismatch it takes in
        // one segment more. Earlier ones need no second try: what they could take in, the last
        // one can.
        let mut resume = None;
        let (mut pattern, mut rest) = (Some(&*self.0), Some(name));
        loop {
            let (part, after) = head(pattern);
            if part == Some("**") {
                resume = Some((after, rest));
                pattern = after;
                continue;
            }
            let (segment, beyond) = head(rest);
            match (part, segment) {
                (None, None) => return true,
                (Some(part), Some(segment)) if part == "*" || part == segment => {
                    (pattern, rest) = (after, beyond);
                }
                _ => {
                    let Some((after, taken)) = resume else { return false };
                    let (Some(_), beyond) = head(taken) else { return false };
                    resume = Some((after, beyond));
                    (pattern, rest) = (after, beyond);
                }
            }
        }
    }

    /// A text that every matching name begins with, as long as can be said.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        let mut end = 0;
        for segment in self.0.split('/') {
            if matches!(segment, "*" | "**") {
                // A slash follows the literal part unless the rest may match nothing.
                let empty = self.0[end..].split('/').all(|part| matches!(part, "" | "**"));
                return &self.0[..if empty { end.saturating_sub(1) } else { end }];
            }
            end += segment.len() + 1;
        }
        &self.0
    }
}

/// The first segment and what is after it; `None` after the last one.
fn head(path: Option<&str>) -> (Option<&str>, Option<&str>) {
    match path {
        None => (None, None),
        Some(path) => match path.split_once('/') {
            Some((segment, rest)) => (Some(segment), Some(rest)),
            None => (Some(path), None),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word.
    fn naive(pattern: &[&str], name: &[&str]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ["**", rest @ ..] => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            [part, rest @ ..] => match name {
                [segment, after @ ..] if *part == "*" || part == segment => naive(rest, after),
                _ => false,
            },
        }
    }

    pub(in crate::subscribe) fn names() -> impl Strategy<Value = String> {
        prop::collection::vec("[abc]", 1..6).prop_map(|parts| parts.join("/"))
    }

    pub(in crate::subscribe) fn patterns() -> impl Strategy<Value = Pattern> {
        let part = prop_oneof![3 => "[abc]", 2 => Just("*".to_owned()), 2 => Just("**".to_owned())];
        prop::collection::vec(part, 1..6)
            .prop_map(|parts| Pattern::new(&parts.join("/")).expect("a good pattern"))
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_any_number() {
        for (pattern, name, expect) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/*", "a/b", true),
            ("a/*", "a", false),
            ("a/*", "a/b/c", false),
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("**", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/d", false),
            ("a/**/*", "a", false),
            ("a*", "ab", false),
            ("a*", "a*", true),
            ("***", "a", false),
            ("/a/b/", "a/b", true),
        ] {
            let pattern = Pattern::new(pattern).expect("a good pattern");
            assert_eq!(pattern.matches(name), expect, "{} over {name}", pattern.as_str());
        }
    }

    #[test]
    fn a_prefix_is_what_every_match_begins_with() {
        for (pattern, expect) in [
            ("a/b", "a/b"),
            ("a/b/*", "a/b/"),
            ("a/b/**", "a/b"),
            ("a/b/**/**", "a/b"),
            ("a/b/**/*", "a/b/"),
            ("a/**/c", "a/"),
            ("a/*/c", "a/"),
            ("*", ""),
            ("**", ""),
            ("**/a", ""),
        ] {
            let pattern = Pattern::new(pattern).expect("a good pattern");
            assert_eq!(pattern.literal_prefix(), expect, "{}", pattern.as_str());
        }
    }

    #[test]
    fn a_run_of_any_is_one_and_more_than_sixteen_are_refused() {
        let run = Pattern::new("**/**/a/**/**/**/b/**/**").expect("a good pattern");
        assert_eq!(run.as_str(), "**/a/**/b/**");
        assert!(Pattern::new(&["**"; 200].join("/")).is_ok());
        assert!(Pattern::new(&["**/a"; 16].join("/")).is_ok());
        let many = Pattern::new(&["**/a"; 17].join("/")).expect_err("is refused");
        assert_eq!(many, BadPattern::TooManyAny);
        assert_eq!(many.to_string(), "pattern has more than 16 '**'");
    }

    #[test]
    fn many_wildcards_cost_no_more_than_the_product_of_the_lengths() {
        let pattern = Pattern::new(&["**/a"; 16].join("/")).expect("a good pattern");
        let name = ["a"; 500].join("/");
        assert!(!pattern.matches(&format!("{name}/b")));
        assert!(pattern.matches(&name));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in patterns(), name in names()) {
            let parts: Vec<_> = pattern.as_str().split('/').collect();
            let segments: Vec<_> = name.split('/').collect();
            prop_assert_eq!(pattern.matches(&name), naive(&parts, &segments));
            if pattern.matches(&name) {
                prop_assert!(name.starts_with(pattern.literal_prefix()));
            }
        }

        #[test]
        fn taking_a_pattern_never_panics(text in "\\PC*", name in "\\PC*") {
            if let Ok(pattern) = Pattern::new(&text) {
                let _ = pattern.matches(&name);
                prop_assert!(pattern.as_str().starts_with(pattern.literal_prefix()));
            }
        }
    }
}

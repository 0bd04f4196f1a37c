//! The last messages of a stream, or lines of its text. Pure.
//!
//! No server gives a stream backwards: it is read from somewhere on, and all but the last is
//! dropped.

use std::collections::VecDeque;

use super::output::{Form, messages, one_line};

/// The last of what came.
pub(super) struct Last {
    most: usize,
    form: Form,
    kept: VecDeque<Vec<u8>>,
}

impl Last {
    /// Keeps `most` messages, or lines.
    pub(super) const fn new(most: usize, form: Form) -> Self {
        Self { most, form, kept: VecDeque::new() }
    }

    /// Takes what came next.
    pub(super) fn take(&mut self, body: &[u8]) -> anyhow::Result<()> {
        if self.form == Form::Json {
            for message in messages(body)? {
                self.keep(one_line(message.get()).into_bytes());
            }
            return Ok(());
        }
        for piece in body.split_inclusive(|byte| *byte == b'\n') {
            match self.kept.back_mut() {
                // A line may come in parts.
                Some(line) if !line.ends_with(b"\n") => line.extend_from_slice(piece),
                _ => self.keep(piece.to_vec()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, part: Vec<u8>) {
        self.kept.push_back(part);
        // One more in a text: its last line may be cut before it has begun.
        while self.kept.len() > self.most.max(usize::from(self.form == Form::Text)) {
            self.kept.pop_front();
        }
    }

    /// What is kept, as a body of such a stream.
    pub(super) fn into_body(mut self) -> Vec<u8> {
        while self.kept.len() > self.most {
            self.kept.pop_front();
        }
        let kept: Vec<Vec<u8>> = self.kept.into();
        match self.form {
            Form::Json => [&b"["[..], &kept.join(&b","[..]), b"]"].concat(),
            Form::Text | Form::Binary => kept.concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_however_they_come() {
        for (form, most, bodies, expect) in [
            (Form::Json, 2, &["[1,2]", "[]", "[3]"][..], "[2,3]"),
            (Form::Json, 0, &["[1,2]"], "[]"),
            (Form::Json, 9, &["[[1],\n{\"a\":1.0e2}]"], "[[1],{\"a\":1.0e2}]"),
            (Form::Text, 2, &["a\nb", "c\n", "d"], "bc\nd"),
            (Form::Text, 1, &["a\nb\n"], "b\n"),
            (Form::Text, 0, &["a\nb"], ""),
            (Form::Text, 3, &[], ""),
        ] {
            let mut last = Last::new(most, form);
            bodies.iter().for_each(|body| last.take(body.as_bytes()).expect("messages"));
            assert_eq!(last.into_body(), expect.as_bytes(), "{most} of {bodies:?}");
        }
    }
}

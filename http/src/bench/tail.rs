//! Readers that wait for what is written: by an event stream or by long-polls.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tokio::sync::Semaphore;

use super::{
    deliver::{Boards, certain},
    load::Run,
    measure::Shared,
    raw::{Failure, Link},
    record::{Finder, Flaws, Form, LastBreak, Mark},
    request::Streams,
    setup::{Refusal, is_busy, next_offset},
    verify::{Checker, Verdict},
};

/// Readers that connect at a time on one thread: more would overrun a server's backlog.
pub(super) const CONNECTING_MAX: usize = 64;
/// Ten thousand readers have this much each.
const BUFFER_BYTES: usize = 4 << 10;
/// How long the last records may take once all writers have ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a reader that was turned away comes again.
const PAUSE: Duration = Duration::from_millis(100);
/// So often a reader that misses something asks a server that is away when all writers have ended.
const IN_VAIN_MAX: u32 = 10;
/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// How readers wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Live {
    /// An event stream
    Sse,
    /// One long-poll after the other
    LongPoll,
}

impl Live {
    /// As the command line calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::LongPoll => "long-poll",
        }
    }
}

/// One reader.
pub(super) struct Reader {
    pub(super) run: Run,
    pub(super) streams: Arc<Streams>,
    pub(super) stream: usize,
    pub(super) live: Live,
    pub(super) boards: Boards,
    pub(super) turn: Arc<Semaphore>,
}

/// Whether somebody answered a reader until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    Served,
    /// The server was away when the reader still missed something.
    Alone,
}

/// What a reader has seen.
struct Seen<'a> {
    reader: &'a Reader,
    tally: &'a Shared,
    checker: Checker,
    offset: String,
    /// The last attempt found nobody who answers.
    away: bool,
    /// Ends when all writers have ended.
    finished: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
}

impl Reader {
    /// Reads until it has all that was written, or has waited long enough for it. Returns what it
    /// saw; what it misses for want of a server is not lost for that.
    pub(super) async fn work(self, tally: Shared) -> anyhow::Result<(Verdict, Company)> {
        let mut seen = Seen {
            reader: &self,
            tally: &tally,
            checker: Checker::new(self.stream),
            offset: "-1".to_owned(),
            away: false,
            finished: pin!(self.boards.finished()),
        };
        tokio::select! {
            ended = self.follow(&mut seen) => ended?,
            // What is missing by then is lost.
            () = async {
                self.run.over().await;
                tokio::time::sleep(PATIENCE).await;
            } => {}
        }
        let is_alone = seen.away && !seen.is_complete();
        let mut verdict = seen.checker.judge(&self.boards.written(self.stream));
        if !is_alone {
            return Ok((verdict, Company::Served));
        }
        verdict.excuse_lost();
        Ok((verdict, Company::Alone))
    }

    /// Ends once all is read that was written.
    async fn follow(&self, seen: &mut Seen<'_>) -> anyhow::Result<()> {
        let mut link = Link::new(self.run.peer, BUFFER_BYTES);
        let turn = self.turn.acquire().await.context("nobody closes it")?;
        self.run.connect(&mut link, "a reader").await?;
        drop(turn);
        let (mut first, mut in_vain) = (true, 0);
        while !seen.is_complete() && in_vain < IN_VAIN_MAX {
            if !first && self.live == Live::Sse {
                seen.tally.tail.lock().reconnects += 1;
            }
            first = false;
            let done = match self.live {
                Live::Sse => self.events(&mut link, seen).await,
                Live::LongPoll => self.poll(&mut link, seen).await,
            };
            seen.away = done.is_err();
            // While writers may go on, the server may come back.
            let is_in_vain = seen.away && self.run.is_over() && self.boards.is_finished();
            in_vain = if is_in_vain { in_vain + 1 } else { 0 };
            if let Err(failure) = done {
                match failure.downcast_ref::<Failure>() {
                    Some(_) => seen.tally.append.lock().failed(&failure.to_string()),
                    None => return Err(failure),
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Reads one event stream to its end.
    async fn events(&self, link: &mut Link, seen: &mut Seen<'_>) -> anyhow::Result<()> {
        let query = format!("?offset={}&live=sse", seen.offset);
        let request = self.streams.plain("GET", self.stream, &query);
        let (head, connection) = link.ask(&request).await?;
        if head.status != 200 {
            let excuse = connection.excuse().await?;
            return refused(head.status, &excuse, seen.tally).await;
        }
        seen.away = false;
        let mut events = Events::new(&self.streams.form);
        while let Some(piece) = seen.unless_complete(connection.piece()).await {
            let Some(piece) = piece? else { break };
            let now = self.run.now();
            events.take(connection.bytes(piece), |marks, flaws, offset| {
                seen.checker.flawed(flaws);
                seen.see(marks, offset, now);
            })?;
            if seen.is_complete() {
                break;
            }
        }
        Ok(())
    }

    /// Asks once.
    async fn poll(&self, link: &mut Link, seen: &mut Seen<'_>) -> anyhow::Result<()> {
        let query = format!("?offset={}&live=long-poll", seen.offset);
        let request = self.streams.plain("GET", self.stream, &query);
        let Some(answer) = seen.unless_complete(link.ask(&request)).await else { return Ok(()) };
        let (head, connection) = answer?;
        if !matches!(head.status, 200 | 204) {
            let excuse = connection.excuse().await?;
            return refused(head.status, &excuse, seen.tally).await;
        }
        let offset = next_offset(&head, connection.bytes(head.next_offset.clone().unwrap_or(0..0)));
        let offset = offset.context("a long-poll names no next offset")?;
        let (mut finder, mut marks) = (Finder::new(&self.streams.form), Vec::new());
        while let Some(piece) = connection.piece().await? {
            finder.look(connection.bytes(piece), |mark| marks.push(mark));
        }
        seen.checker.flawed(&finder.finish(LastBreak::Kept));
        seen.see(&marks, &offset, self.run.now());
        Ok(())
    }
}

async fn refused(status: u16, excuse: &str, tally: &Shared) -> anyhow::Result<()> {
    if !is_busy(status) {
        let excuse = excuse.to_owned();
        return Err(Refusal { status, excuse }).context("a reader was refused");
    }
    tally.append.lock().failed(&format!("{status} {excuse}"));
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

impl Seen<'_> {
    fn see(&mut self, marks: &[Mark], offset: &str, now: Duration) {
        let Reader { boards, stream, .. } = self.reader;
        for mark in marks {
            self.checker.see(*mark);
            boards.seen(*stream, *mark, now, &self.tally.tail);
        }
        if self.offset != offset {
            offset.clone_into(&mut self.offset);
            self.checker.at(offset);
        }
    }

    /// Whether all writers have ended and everything they wrote for sure is here.
    fn is_complete(&self) -> bool {
        let boards = &self.reader.boards;
        if !boards.is_finished() {
            return false;
        }
        let written = boards.written(self.reader.stream);
        self.checker.distinct(&written) >= certain(&written)
    }

    /// Waits for something; `None` if the reader turns out to have everything.
    async fn unless_complete<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        if !self.reader.boards.is_finished() {
            tokio::select! {
                biased;
                it = &mut wait => return Some(it),
                () = &mut self.finished => {}
            }
        }
        if self.is_complete() { None } else { Some(wait.await) }
    }
}

/// The events of an event stream, cut anywhere. Records count when the control event behind them
/// is there: before that, a reader that lost its connection would get them again.
#[derive(Debug)]
struct Events {
    held: Vec<u8>,
    marks: Vec<Mark>,
    flaws: Flaws,
    form: Form,
}

impl Events {
    fn new(form: &Form) -> Self {
        let form = form.clone();
        Self { held: Vec::new(), marks: Vec::new(), flaws: Flaws::default(), form }
    }

    /// Gives `each` the records before each control event, what was wrong with them, and the offset
    /// in it.
    fn take(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[Mark], &Flaws, &str),
    ) -> anyhow::Result<()> {
        self.held.extend_from_slice(piece);
        let mut start = 0;
        while let Some(at) = memchr::memmem::find(&self.held[start..], b"\n\n") {
            let event = &self.held[start..start + at];
            start += at + 2;
            let Some(kind) = event.strip_prefix(b"event:") else { continue };
            let kind = kind.trim_ascii_start();
            if kind.starts_with(b"data") {
                let marks = &mut self.marks;
                let mut finder = Finder::new(&self.form);
                each_value(event, |value| finder.look(value, |mark| marks.push(mark)));
                self.flaws.add(finder.finish(LastBreak::MayBeMissing));
            } else if kind.starts_with(b"control") {
                let offset = control_offset(event).context("a control event has no offset")?;
                each(&self.marks, &self.flaws, offset);
                self.marks.clear();
                self.flaws = Flaws::default();
            }
        }
        self.held.drain(..start);
        if self.held.len() > EVENT_BYTES_MAX {
            bail!("an event has no end");
        }
        Ok(())
    }
}

/// Gives `take` what the data lines of an event say: their values, with a line break between two.
fn each_value(event: &[u8], mut take: impl FnMut(&[u8])) {
    let (mut start, mut is_first) = (0, true);
    for end in memchr::memchr_iter(b'\n', event).chain([event.len()]) {
        if let Some(value) = event[start..end].strip_prefix(b"data:") {
            if !is_first {
                take(b"\n");
            }
            // One blank before a value is of the framing.
            take(value.strip_prefix(b" ").unwrap_or(value));
            is_first = false;
        }
        start = end + 1;
    }
}

fn control_offset(event: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b"\"streamNextOffset\"";
    let at = memchr::memmem::find(event, NAME)? + NAME.len();
    let rest = &event[at..];
    let start = memchr::memchr(b'"', rest)? + 1;
    let end = memchr::memchr(b'"', &rest[start..])?;
    std::str::from_utf8(&rest[start..start + end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record;

    #[test]
    fn events_are_the_same_however_they_come() {
        let record = |number| {
            let mut record = record::blank(60);
            record::stamp(&mut record, Mark { writer: 1, number, sent: Duration::ZERO });
            String::from_utf8(record).expect("ASCII")
        };
        let text = format!(
            ": hello\n\nevent: control\ndata:{{\"streamNextOffset\":\"0_0\",\"upToDate\":true}}\n\n\
             event: data\ndata:[{},{}]\n\nevent: control\ndata:{{\"streamNextOffset\": \"0_4\"}}\n\n\
             event:data\ndata:{}\ndata:{}\n\n: silence\n\nevent:control\ndata:{{\"streamNextOffset\":\"0_8\"}}\n\n\
             event: data\ndata:[{}]\n\n",
            record(0),
            record(1),
            record(2),
            record(3),
            record(4),
        );
        for step in [1, 2, 7, 100, 10_000] {
            let (mut events, mut seen) = (Events::new(&Form::new(60, true)), Vec::new());
            for piece in text.as_bytes().chunks(step) {
                let took = events.take(piece, |marks, flaws, offset| {
                    assert_eq!(*flaws, Flaws { damaged: Vec::new(), strange: 0 });
                    let numbers = marks.iter().map(|mark| mark.number).collect::<Vec<_>>();
                    seen.push((numbers, offset.to_owned()));
                });
                took.expect("events");
            }
            let expect = [(vec![], "0_0"), (vec![0, 1], "0_4"), (vec![2, 3], "0_8")];
            let expect = expect.map(|(numbers, offset)| (numbers, offset.to_owned()));
            assert_eq!(seen, expect, "steps of {step}");
        }
        let broken =
            Events::new(&Form::new(60, true)).take(b"event: control\ndata:{}\n\n", |_, _, _| {});
        assert!(broken.is_err());
    }

    #[test]
    fn what_is_no_record_is_seen_and_what_frames_it_is_not() {
        let mut record = record::blank(60);
        record::stamp(&mut record, Mark { writer: 1, number: 0, sent: Duration::ZERO });
        let record = String::from_utf8(record).expect("ASCII");
        for (data, strange) in [
            (format!("data:{record}"), 0),
            (format!("data: {record}\ndata:"), 0),
            (format!("data:{record}\ndata:{{\"x\":1}}"), 1),
            (format!("data:x\ndata:{record}\ndata:y"), 2),
            // A record of white space, behind another one and alone.
            (format!("data:{record}\ndata:\ndata:"), 1),
            (format!("data:{record}\ndata:  "), 1),
            (format!("data:\ndata:{record}\ndata:"), 1),
        ] {
            let text = format!(
                "event: data\nid: 7\n{data}\n\nevent: control\ndata:{{\"streamNextOffset\":\"0_4\"}}\n\n"
            );
            let (mut events, mut seen) = (Events::new(&Form::new(60, false)), Vec::new());
            let took = events.take(text.as_bytes(), |marks, flaws, _| {
                seen.push((marks.len(), flaws.strange));
            });
            took.expect("events");
            assert_eq!(seen, [(1, strange)], "{data}");
        }
    }
}

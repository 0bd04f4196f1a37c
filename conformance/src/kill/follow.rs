//! The readers of the kill loop: complete reads, and live ones by both modes.
//!
//! A live reader takes note of everything that reached it, also of an event
//! whose control never came, and goes on after a restart from the last offset it
//! was given. It decides nothing; the history does.

use std::io::{self, BufReader};

use anyhow::{Context, Result, ensure};

use super::{Round, history::Transcript, record::Framing};
use crate::{
    http::{Client, Response},
    sse,
};

/// More pages than any stream here can have.
const PAGES_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    LongPoll,
    Sse,
}

/// Reads from an offset to the tail, page by page. `None` is the start.
pub fn read_from(
    client: &mut Client,
    path: &str,
    framing: Framing,
    offset: Option<&str>,
) -> Result<Transcript> {
    let mut transcript = Transcript::default();
    let mut target = match offset {
        Some(offset) => format!("{path}?offset={offset}"),
        None => path.to_owned(),
    };
    for _ in 0..PAGES_MAX {
        let page = client.get(&target)?;
        ensure!(page.status == 200, "{target}: {} {:?}", page.status, page.text());
        transcript.bytes.extend(framing.lines_of(&page.body)?);
        let next = next_offset(&page)?;
        transcript.marks.push((next.clone(), transcript.bytes.len()));
        if page.header("Stream-Up-To-Date") == Some("true") {
            return Ok(transcript);
        }
        ensure!(!page.body.is_empty(), "{target}: an empty page that is not up to date");
        target = format!("{path}?offset={next}");
    }
    anyhow::bail!("{path} has no end after {PAGES_MAX} pages");
}

fn next_offset(answer: &Response) -> Result<String> {
    let offset = answer.header("Stream-Next-Offset");
    Ok(offset.with_context(|| format!("no offset in {:?}", answer.headers))?.to_owned())
}

/// One live reader of one stream; outlives the server's lives.
pub struct Follower {
    pub path: String,
    pub framing: Framing,
    pub mode: Mode,
    pub transcript: Transcript,
    cursor: Option<String>,
}

impl Follower {
    pub fn new(path: &str, framing: Framing, mode: Mode) -> Follower {
        let (path, transcript) = (path.to_owned(), Transcript::default());
        Follower { path, framing, mode, transcript, cursor: None }
    }

    /// Follows until the server dies.
    pub fn run(&mut self, round: &Round, port: u16) -> Result<()> {
        self.forget_unmarked();
        let followed = match self.mode {
            Mode::LongPoll => self.poll(round, &mut Client::new(port)),
            Mode::Sse => self.listen(round, port),
        };
        let Err(error) = followed else { return Ok(()) };
        match error.downcast::<io::Error>() {
            Ok(error) => round.expect_death(&error).with_context(|| format!("{self:?}")),
            Err(error) => Err(error.context(format!("{self:?}"))),
        }
    }

    /// What came after the last offset is asked for again.
    fn forget_unmarked(&mut self) {
        let marked = self.transcript.marks.last().map_or(0, |(_, length)| *length);
        self.transcript.bytes.truncate(marked);
    }

    fn target(&self, live: &str) -> String {
        let offset = self.transcript.marks.last().map_or("-1", |(offset, _)| offset.as_str());
        let mut target = format!("{}?offset={offset}&live={live}", self.path);
        if let Some(cursor) = &self.cursor {
            target.push_str("&cursor=");
            target.push_str(cursor);
        }
        target
    }

    fn poll(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        while !round.is_over() {
            let answer = client.get(&self.target("long-poll"))?;
            match answer.status {
                200 => self.transcript.bytes.extend(self.framing.lines_of(&answer.body)?),
                204 => ensure!(answer.body.is_empty(), "a 204 with a body"),
                status => anyhow::bail!("{status} {:?}", answer.text()),
            }
            self.cursor = answer.header("Stream-Cursor").map(str::to_owned);
            self.mark(next_offset(&answer)?);
        }
        Ok(())
    }

    fn listen(&mut self, round: &Round, port: u16) -> Result<()> {
        while !round.is_over() {
            let (head, body) = Client::new(port).open(&self.target("sse"))?;
            ensure!(head.status == 200, "{} {:?}", head.status, head.headers);
            let mut body = BufReader::new(body);
            while let Some(event) = sse::next(&mut body)? {
                match event.name.as_str() {
                    "data" => {
                        let lines = self.framing.lines_of(event.data.as_bytes())?;
                        self.transcript.bytes.extend(lines);
                    }
                    "control" => self.obey(&event.data)?,
                    other => anyhow::bail!("an event named {other:?}"),
                }
            }
            // A server may end a connection between two events; what it sent is
            // complete up to the last control.
            self.forget_unmarked();
        }
        Ok(())
    }

    fn obey(&mut self, control: &str) -> Result<()> {
        let control: serde_json::Value = serde_json::from_str(control)?;
        let offset = control["streamNextOffset"].as_str().context("a control names an offset")?;
        self.cursor = control["streamCursor"].as_str().map(str::to_owned);
        self.mark(offset.to_owned());
        Ok(())
    }

    fn mark(&mut self, offset: String) {
        let length = self.transcript.bytes.len();
        if self.transcript.marks.last() != Some(&(offset.clone(), length)) {
            self.transcript.marks.push((offset, length));
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.transcript.marks.last();
        write!(f, "the {:?} reader of {} at {place:?}", self.mode, self.path)
    }
}

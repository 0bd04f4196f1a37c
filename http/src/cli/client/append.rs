//! `weir append`.

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use weir_io::World;

use super::{
    Context,
    cut::{Body, Cut, Cutter},
    exit::Exit,
    flags::AppendFlags,
    input::Input,
    output::Form,
    progress::Progress,
};
use crate::client::{Append, Create, Error, Producer, Stream};

/// Lines that came in wait so long for more.
const LINGER: Duration = Duration::from_millis(20);
/// Pieces read ahead.
const AHEAD_MAX: usize = 4;

/// What takes the bodies.
pub(super) struct Sink {
    stream: Stream,
    content_type: String,
    key: Option<String>,
    producer: Option<Producer>,
    /// Requests that an earlier process has carried out.
    skip: u64,
    progress: Progress,
    requests: u64,
    skipped: u64,
    lines: u64,
    bytes: u64,
    tail: String,
}

impl Sink {
    /// A sink for a stream; with a producer's id, what an earlier process has done is skipped.
    pub(super) async fn open(
        stream: &Stream,
        content_type: String,
        key: Option<String>,
        producer_id: Option<&str>,
        total: Option<u64>,
    ) -> Result<Self, Error> {
        let producer = match producer_id {
            Some(id) => Some(Producer::resume(stream, &content_type, id).await?),
            None => None,
        };
        Ok(Self {
            stream: stream.clone(),
            content_type,
            key,
            skip: producer.as_ref().map_or(0, Producer::done),
            producer,
            progress: Progress::new(total),
            requests: 0,
            skipped: 0,
            lines: 0,
            bytes: 0,
            tail: String::new(),
        })
    }

    /// Appends a body, or skips it.
    pub(super) async fn take(&mut self, body: Body) -> Result<(), Error> {
        if self.skip > 0 {
            self.skip -= 1;
            self.skipped += 1;
            self.progress.skip(body.consumed);
            return Ok(());
        }
        self.bytes += u64::try_from(body.bytes.len()).expect("a length fits");
        self.send(body.bytes, false).await?;
        self.lines += body.lines;
        self.requests += 1;
        self.progress.add(body.consumed);
        Ok(())
    }

    /// Closes the stream.
    pub(super) async fn close(&mut self) -> Result<(), Error> {
        self.send(Bytes::new(), true).await
    }

    async fn send(&mut self, body: Bytes, closed: bool) -> Result<(), Error> {
        let done = match &mut self.producer {
            Some(producer) => producer.append(body, closed).await?,
            None => {
                let (content_type, key) = (self.content_type.as_str(), self.key.as_deref());
                self.stream.append(Append { content_type, body, key, closed }).await?
            }
        };
        self.tail = done.tail;
        Ok(())
    }

    /// Whether anything was appended.
    const fn has_done(&self) -> bool {
        self.requests > 0
    }

    /// Says what was done. If it was interrupted, not all of the input was seen.
    pub(super) fn report(mut self, context: &Context, interrupted: bool) -> anyhow::Result<()> {
        self.progress.clear();
        if self.skipped > 0 {
            eprintln!(
                "weir: {} requests of this input were appended before and are not appended again",
                self.skipped
            );
        }
        if self.skip > 0 && !interrupted {
            bail!(
                "the producer has carried out {} more requests than this input has: it was used \
                 for another input; take another --producer-id",
                self.skip
            );
        }
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_str());
        let fact = json!({
            "requests": self.requests,
            "skipped": self.skipped,
            "lines": (self.lines > 0).then_some(self.lines),
            "bytes": self.bytes,
            "tail": tail,
        });
        context.output.fact(&fact, tail.unwrap_or("-"))
    }
}

pub(super) async fn run(context: Context, flags: AppendFlags) -> anyhow::Result<Exit> {
    let stream = context.client.stream(&flags.stream);
    let content_type = match stream.head().await {
        Ok(info) => info.content_type,
        Err(Error::NotFound { .. }) if flags.create => {
            let content_type = Some(flags.content_type.clone());
            stream.create(Create { content_type, ..Create::default() }).await?.content_type
        }
        Err(error) => return Err(error.into()),
    };
    if flags.ndjson && Form::of(&content_type) != Form::Json {
        bail!("{} is {content_type}: append lines to it with --lines", flags.stream);
    }
    let inputs = inputs(&context, &flags).await?;
    let total = inputs.iter().map(Input::bytes).sum();
    let (key, id) = (flags.key.clone(), flags.producer_id.as_deref());
    let sink = Sink::open(&stream, content_type, key, id, total).await;
    let mut sink = match sink {
        Err(Error::Closed { .. }) if flags.close && id.is_some() => {
            eprintln!("weir: {} is closed already: an earlier run came to the end", flags.stream);
            return Ok(Exit::Done);
        }
        sink => sink?,
    };
    let appended = append(&context, &flags, inputs, &mut sink).await;
    if matches!(appended, Ok(Exit::Done)) && flags.close {
        sink.close().await?;
    }
    // What was appended before a failure is appended.
    if appended.is_ok() || sink.has_done() {
        let interrupted = !matches!(appended, Ok(Exit::Done));
        sink.report(&context, interrupted)?;
    }
    appended
}

async fn inputs(context: &Context, flags: &AppendFlags) -> anyhow::Result<Vec<Input>> {
    if !flags.message.is_empty() {
        return Ok(Vec::new());
    }
    if flags.files.is_empty() {
        return Ok(vec![Input::standard(context.world.clone())]);
    }
    let mut inputs = Vec::new();
    for path in &flags.files {
        inputs.push(Input::open(&context.world, path).await?);
    }
    Ok(inputs)
}

async fn append(
    context: &Context,
    flags: &AppendFlags,
    inputs: Vec<Input>,
    sink: &mut Sink,
) -> anyhow::Result<Exit> {
    for message in &flags.message {
        sink.take(whole(message.clone().into_bytes())).await?;
    }
    let cut = match (flags.ndjson, flags.lines) {
        (true, _) => Some(Cut::Messages(flags.batch)),
        (_, true) => Some(Cut::Lines(flags.batch)),
        _ => None,
    };
    for input in inputs {
        let Some(cut) = cut else {
            let read = tokio::select! {
                read = input.whole() => read?,
                () = context.interrupt.once() => return Ok(Exit::Interrupted),
            };
            if !read.is_empty() {
                sink.take(whole(read)).await?;
            }
            continue;
        };
        // The same input must make the same requests, however slowly it comes.
        let patience = if flags.producer_id.is_some() { None } else { Some(LINGER) };
        if lines(context, input, cut, patience, sink).await? == Exit::Interrupted {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Done)
}

fn whole(bytes: Vec<u8>) -> Body {
    let consumed = u64::try_from(bytes.len()).expect("a length fits");
    Body { bytes: bytes.into(), lines: 0, consumed }
}

/// Cuts an input and appends its parts; what waits longer than `patience` goes as it is.
pub(super) async fn lines(
    context: &Context,
    input: Input,
    cut: Cut,
    patience: Option<Duration>,
    sink: &mut Sink,
) -> anyhow::Result<Exit> {
    let mut pieces = pump(&context.world, input);
    let (mut cutter, mut ready) = (Cutter::new(cut), Vec::new());
    loop {
        let piece = tokio::select! {
            biased;
            () = context.interrupt.once() => return Ok(Exit::Interrupted),
            piece = pieces.recv() => piece,
            () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() => {
                match cutter.flush() {
                    Some(body) => {
                        sink.take(body).await?;
                        continue;
                    }
                    None => tokio::select! {
                        biased;
                        () = context.interrupt.once() => return Ok(Exit::Interrupted),
                        piece = pieces.recv() => piece,
                    },
                }
            }
        };
        let last = piece.is_none();
        match piece {
            Some(piece) => cutter.take(&piece?, &mut ready),
            None => std::mem::replace(&mut cutter, Cutter::new(cut)).finish(&mut ready),
        }
        for body in ready.drain(..) {
            if context.interrupt.came() {
                return Ok(Exit::Interrupted);
            }
            sink.take(body).await?;
        }
        if last {
            return Ok(Exit::Done);
        }
    }
}

/// Reads ahead.
fn pump(world: &World, mut input: Input) -> mpsc::Receiver<anyhow::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    let read = async move {
        loop {
            let piece = input.piece().await;
            let last = piece.as_ref().map_or(true, Vec::is_empty);
            if matches!(&piece, Ok(piece) if piece.is_empty()) {
                return;
            }
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    };
    world.tasks.spawn("input", Box::pin(read));
    receiver
}

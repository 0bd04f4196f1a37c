//! `weir append`.

use std::time::Duration;

use anyhow::bail;
use tokio::sync::mpsc;
use weir_io::World;

use super::{
    Context,
    again::{self, Care},
    cut::{BadLine, Body, Cut, Cutter, Mark},
    exit::{Exit, Usage},
    flags::AppendFlags,
    input::{self, Input},
    once::{DIFFERS, Sent},
    output::Form,
    sink::{By, Goal, Sink, Source},
};
use crate::client::{Error, Stream};

/// Lines that came in wait so long for more.
const LINGER: Duration = Duration::from_millis(20);
/// Said of a message without a letter.
pub(super) const NO_MESSAGE: &str = "there is nothing in -m '': a message has something in it, such as -m '\"\"' \
                          for an empty text in JSON";
/// Said of a message of a producer that could be any of them.
const NO_NUMBER: &str = "-m with --producer-id wants --producer-seq N, the number of the message \
                         among those of the producer, from 0: what has the same number is stored \
                         once, and the next message has the next one. A file, and what comes in by \
                         a pipe, needs none";
/// Said of a file that is not there.
const NO_FILE: &str = "what follows the stream are files; `-m TEXT` appends a message, and what \
                       comes in by a pipe needs none";
/// Pieces read ahead.
const AHEAD_MAX: usize = 4;

pub(super) async fn run(context: Context, flags: AppendFlags) -> anyhow::Result<Exit> {
    if flags.message.iter().any(String::is_empty) {
        return Err(Usage(NO_MESSAGE).into());
    }
    let wants_number = flags.producer_id.is_some() && flags.producer_seq.is_none();
    if wants_number && !flags.message.is_empty() {
        return Err(Usage(NO_NUMBER).into());
    }
    let stream = context.client.stream(&flags.on.stream);
    // Before anything is made: a file that is not there makes no stream.
    let inputs = inputs(&context, &flags).await?;
    let create = flags.create.then_some(flags.content_type.as_str());
    let goal = goal(&stream, create).await?;
    append(&context, &flags, &stream, goal, inputs).await
}

/// The stream, or what is to be made with the first request if it is not there.
pub(super) async fn goal(stream: &Stream, create: Option<&str>) -> Result<Goal, Error> {
    match (stream.head().await, create) {
        (Err(Error::NotFound { .. }), Some(content_type)) => {
            Ok(Goal { content_type: content_type.to_owned(), is_there: false })
        }
        (head, _) => Ok(Goal { content_type: head?.content_type, is_there: true }),
    }
}

/// Before this went wrong something was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partly;

impl std::fmt::Display for Partly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what stands before it is appended")
    }
}

async fn append(
    context: &Context,
    flags: &AppendFlags,
    stream: &Stream,
    goal: Goal,
    inputs: Vec<Input>,
) -> anyhow::Result<Exit> {
    if flags.ndjson && Form::of(&goal.content_type) != Form::Json {
        bail!("{} is {}: append lines to it with --lines", stream.name(), goal.content_type);
    }
    let total = inputs.iter().map(Input::bytes).sum();
    let (by, care) = match (flags.producer_id.as_deref(), flags.producer_seq) {
        (Some(id), Some(first)) => (By::Numbers { id, first }, Care::Resumes),
        (Some(id), None) => (By::Producer(id), Care::Resumes),
        (None, _) if flags.message.is_empty() => (By::Anybody, Care::OfInput),
        (None, _) => (By::Anybody, Care::OfMessages),
    };
    let source = Source { key: flags.key.clone(), by, total };
    let mut sink = Sink::open(context, stream, goal, source).await?;
    let appended = all(context, flags, inputs, &mut sink).await;
    if matches!(appended, Ok(Exit::Done)) && sink.is_empty() && !flags.close {
        context.note(&empty(flags));
    }
    conclude(context, sink, appended, flags.close, care).await
}

/// Said of an input that was empty.
fn empty(flags: &AppendFlags) -> String {
    let what = match flags.files.as_slice() {
        [] => "the standard input was empty".to_owned(),
        [file] if file.as_os_str() == "-" => "the standard input was empty".to_owned(),
        [file] => format!("{} is empty", file.display()),
        _ => "the files are empty".to_owned(),
    };
    format!("{what}: nothing was appended; -m TEXT appends a message, FILE or a pipe what is in it")
}

/// Closes the stream if all went well and that is wanted, and says what was done.
pub(super) async fn conclude(
    context: &Context,
    mut sink: Sink<'_>,
    mut appended: anyhow::Result<Exit>,
    close: bool,
    care: Care,
) -> anyhow::Result<Exit> {
    if matches!(appended, Ok(Exit::Done)) {
        match ended(&mut sink, close).await {
            Ok(true) => {
                context.note("the stream is closed already: an earlier run came to the end")
            }
            Ok(false) => {}
            Err(error) => appended = Err(error),
        }
    }
    sink.clear_progress();
    let stored = sink.has_done();
    let lost = appended.as_ref().err().is_some_and(is_unknown);
    if !matches!(appended, Ok(Exit::Done)) && (stored || lost) {
        match (care, sink.how_far(lost)) {
            (Care::Resumes, _) => {
                context.note("the same command with the same input goes on where this one ended");
            }
            (_, Some(far)) => context.note(&far),
            (_, None) if !stored => {}
            (care, None) => context.note(&again::twice(care, lost)),
        }
    }
    // Of a request whose answer was lost nobody knows.
    if let Err(error) = &appended
        && !stored
        && error.downcast_ref().is_none_or(Error::did_nothing)
    {
        sink.take_back(context).await;
    }
    // What was appended before a failure is appended; of what was not made there is nothing to say.
    if stored || (appended.is_ok() && sink.is_there()) {
        sink.report(context).await?;
    }
    match appended {
        Err(error) if stored => Err(error.context(Partly)),
        appended => appended,
    }
}

/// Makes what even an input without anything makes, and closes it if that is wanted. True if it
/// was closed before.
async fn ended(sink: &mut Sink<'_>, close: bool) -> anyhow::Result<bool> {
    sink.end()?;
    sink.make().await?;
    Ok(close && matches!(sink.close().await?, Sent::Before))
}

fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unknown { .. }))
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
        let input = Input::open(&context.world, path).await;
        inputs.push(input.map_err(|error| input::explained(error, path, NO_FILE))?);
    }
    Ok(inputs)
}

async fn all(
    context: &Context,
    flags: &AppendFlags,
    inputs: Vec<Input>,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Exit> {
    for (number, message) in (1..).zip(&flags.message) {
        let body = whole(message.clone().into_bytes(), sink);
        sink.take(body, || format!("message {number}")).await?;
    }
    let cut = match (flags.ndjson, flags.lines) {
        (true, _) => Some(Cut::Messages(flags.batch)),
        (_, true) => Some(Cut::Lines(flags.batch)),
        _ => None,
    };
    for (number, input) in inputs.into_iter().enumerate() {
        if number > 0 {
            sink.next_input();
        }
        let Some(cut) = cut else {
            let name = input.name();
            let read = tokio::select! {
                read = input.whole() => read?,
                () = context.interrupt.once() => return Ok(Exit::Interrupted),
            };
            if !read.is_empty() && !sink.pass_whole(&read)? {
                let body = whole(read, sink);
                sink.take(body, || name).await?;
            }
            continue;
        };
        if lines(context, input, cut, sink).await? == Exit::Interrupted {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Done)
}

fn whole(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Body {
    let (mut place, _) = sink.place();
    let consumed = u64::try_from(bytes.len()).expect("a length fits");
    place.pass(&bytes);
    let mark: Mark = place.mark();
    sink.reached(place);
    Body { bytes: bytes.into(), lines: 0, consumed, first: 0, last: 0, mark }
}

/// Cuts an input and appends its parts.
pub(super) async fn lines(
    context: &Context,
    input: Input,
    cut: Cut,
    sink: &mut Sink<'_>,
) -> anyhow::Result<Exit> {
    let name = input.name();
    if cut != Cut::Bytes {
        sink.cut();
    }
    let mut pieces = pump(&context.world, input);
    // What was sent before goes past; the rest is cut.
    let mut rest = Vec::new();
    while rest.is_empty() {
        let piece = tokio::select! {
            biased;
            () = context.interrupt.once() => return Ok(Exit::Interrupted),
            piece = pieces.recv() => piece,
        };
        let Some(piece) = piece else { return Ok(Exit::Done) };
        rest = sink.pass(&piece?)?.to_vec();
    }
    // The last line that was sent has grown.
    if matches!(cut, Cut::Messages(_)) && !sink.is_at_line() && !rest.starts_with(b"\n") {
        bail!(DIFFERS);
    }
    let (place, again) = sink.place();
    let (mut cutter, mut ready) = (Cutter::new(cut, place, again), Vec::new());
    let mut bad = cutter.take(&rest, &mut ready).err();
    drop(rest);
    loop {
        for body in ready.drain(..) {
            if context.interrupt.came() {
                return Ok(Exit::Interrupted);
            }
            send(sink, body, &name).await?;
        }
        if let Some(bad) = bad {
            return Err(refuse(&bad, &name));
        }
        let piece = tokio::select! {
            biased;
            () = context.interrupt.once() => return Ok(Exit::Interrupted),
            piece = pieces.recv() => piece,
            () = tokio::time::sleep(LINGER), if !cutter.must_fill() => {
                match cutter.flush() {
                    Some(body) => {
                        send(sink, body, &name).await?;
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
        bad = match piece {
            Some(piece) => cutter.take(&piece?, &mut ready).err(),
            None => break,
        };
    }
    let finished = cutter.finish(&mut ready);
    for body in ready {
        if context.interrupt.came() {
            return Ok(Exit::Interrupted);
        }
        send(sink, body, &name).await?;
    }
    sink.reached(finished.map_err(|bad| refuse(&bad, &name))?);
    Ok(Exit::Done)
}

async fn send(sink: &mut Sink<'_>, body: Body, name: &str) -> anyhow::Result<()> {
    let (first, last, lines) = (body.first, body.last, body.lines);
    if lines > 0 {
        sink.goes_to(name, last);
    }
    sink.take(body, || match lines {
        0 => name.to_owned(),
        1 => format!("{name}, line {first}"),
        // Blank lines between them are not counted.
        lines => format!("{name}, {lines} lines from line {first} on"),
    })
    .await?;
    if lines > 0 {
        sink.came_to(name, last);
    }
    Ok(())
}

/// The failure that such a line is.
fn refuse(bad: &BadLine, name: &str) -> anyhow::Error {
    anyhow::anyhow!("{name}: {bad}")
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

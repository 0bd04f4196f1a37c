//! `weir read` and `weir tail`.

use std::{
    io::{self, IsTerminal as _},
    pin::pin,
};

use anyhow::bail;

use super::{
    Context,
    exit::{Exit, Told},
    flags::{FromFlags, LiveFlag, ReadFlags, TailFlags},
    last::Last,
    output::{Form, Style},
    progress::Progress,
    so_far::go_on,
};
use crate::client::{Batch, Error, Follower, From, Live};

/// Messages, or lines, that `tail` prints if nothing else is said.
const LINES: usize = 10;

pub(super) async fn read(context: Context, flags: ReadFlags) -> anyhow::Result<Exit> {
    let from = from(&context, &flags.from, From::Start);
    let reader = Reader { key: flags.from.key.as_deref(), raw: flags.from.raw, ..PLAIN };
    show(&context, &flags.on.stream, from, reader).await
}

/// Prints what there is from somewhere on.
pub(super) async fn print(context: &Context, name: &str, from: From) -> anyhow::Result<Exit> {
    show(context, name, from, PLAIN).await
}

pub(super) async fn tail(context: Context, flags: TailFlags) -> anyhow::Result<Exit> {
    let wait = match (flags.follow, flags.live) {
        (false, _) => Wait::Never,
        (true, None) => Wait::Best,
        (true, Some(LiveFlag::Sse)) => Wait::By(Live::Sse),
        (true, Some(LiveFlag::LongPoll)) => Wait::By(Live::LongPoll),
    };
    let is_open = flags.from.from.is_none() && flags.from.since.is_none();
    let most = flags.lines.or((is_open && !flags.follow).then_some(LINES));
    let default = if most.is_none() && flags.follow { From::Now } else { From::Start };
    let from = from(&context, &flags.from, default);
    let reader = Reader { key: flags.from.key.as_deref(), raw: flags.from.raw, wait, most };
    show(&context, &flags.on.stream, from, reader).await
}

/// How a stream is read and shown.
struct Reader<'a> {
    /// Records of this key only.
    key: Option<&'a str>,
    /// Bytes as they are, on a terminal too.
    raw: bool,
    wait: Wait,
    /// So many of the last messages, or lines, only.
    most: Option<usize>,
}

const PLAIN: Reader<'static> = Reader { key: None, raw: false, wait: Wait::Never, most: None };

/// Whether to wait for what comes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Never,
    /// As it suits the stream.
    Best,
    By(Live),
}

impl Wait {
    /// An event stream writes all line breaks of a text as one kind: what waits for text gets its
    /// bytes as they are.
    fn of(self, kind: Form) -> Live {
        match (self, kind) {
            (Self::Never, _) => Live::No,
            (Self::By(live), _) => live,
            (Self::Best, Form::Text) => Live::LongPoll,
            (Self::Best, Form::Json | Form::Binary) => Live::Sse,
        }
    }
}

fn from(context: &Context, flags: &FromFlags, default: From) -> From {
    if let Some(origin) = flags.since {
        return origin.from(context.world.clock.wall_ms());
    }
    match flags.from.as_deref() {
        None => default,
        Some("start" | "-1") => From::Start,
        Some("now") => From::Now,
        Some(offset) => From::Offset(offset.to_owned()),
    }
}

async fn show(
    context: &Context,
    name: &str,
    from: From,
    reader: Reader<'_>,
) -> anyhow::Result<Exit> {
    let stream = context.client.stream(name);
    let Some(info) = context.unless_interrupted(stream.head()).await else {
        return Ok(Exit::Interrupted);
    };
    let info = info?;
    let kind = Form::of(&info.content_type);
    let (form, live) = (if reader.raw { Form::Text } else { kind }, reader.wait.of(kind));
    if form == Form::Binary && context.output.style() == Style::Pretty {
        bail!(
            "{name} is {}: not for a terminal; send it to a file, or use --json or `weir read --raw`",
            info.content_type
        );
    }
    // What has no lines has no last ones.
    let kept = reader.most.filter(|_| kind != Form::Binary).map(|most| Last::new(most, kind));
    let is_whole = from == From::Start && reader.key.is_none();
    let is_offset = matches!(from, From::Offset(_));
    // Somebody sees how far it is, and not the records themselves.
    let is_unseen = kept.is_some() || (live == Live::No && !io::stdout().is_terminal());
    let progress = match is_unseen && io::stderr().is_terminal() {
        true if is_whole => match context.unless_interrupted(stream.known()).await {
            Some(known) => Some(Progress::new(known?.bytes)),
            None => return Ok(Exit::Interrupted),
        },
        true => Some(Progress::new(None)),
        false => None,
    };
    let follower = Follower::new(&stream, from, reader.key, live);
    let mut reading = Reading { context, follower, form, live, kept, progress, last: None };
    let outcome = reading.all().await;
    drop(reading.progress.take());
    let last = reading.last.as_ref();
    match outcome {
        Ok(Exit::Done) => {
            say_end(context, last);
            Ok(Exit::Done)
        }
        Err(error) if is_offset && last.is_none() && is_refused(&error) => {
            Err(error.context(no_offset(name)))
        }
        // Who has closed the output wants to know nothing.
        Err(error) if error.downcast_ref::<Error>().is_none() => Err(error),
        early => {
            say_where(context, last);
            early
        }
    }
}

/// A stream that is read and printed.
struct Reading<'a> {
    context: &'a Context,
    follower: Follower,
    form: Form,
    live: Live,
    /// The last of what came, while the end is not reached of which only that is printed.
    kept: Option<Last>,
    progress: Option<Progress>,
    /// What was printed last.
    last: Option<Batch>,
}

impl Reading<'_> {
    async fn all(&mut self) -> anyhow::Result<Exit> {
        let context = self.context;
        loop {
            let next = tokio::select! {
                biased;
                () = context.interrupt.once() => return Ok(Exit::Interrupted),
                next = patiently(context, &mut self.follower, self.live) => next?,
            };
            let Some(batch) = next else { return Ok(Exit::Done) };
            self.take(batch)?;
        }
    }

    fn take(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let length = u64::try_from(batch.body.len()).expect("a length fits");
        self.progress.iter_mut().for_each(|it| it.add(length));
        if let Some(mut last) = self.kept.take() {
            last.take(&batch.body)?;
            // A server that does not say where its end is has said all when it says nothing.
            if !batch.up_to_date && !batch.closed && !batch.body.is_empty() {
                self.kept = Some(last);
                return Ok(());
            }
            drop(self.progress.take());
            batch.body = last.into_body().into();
        }
        // Batches that say nothing new say something in JSON: where one is.
        let news = !is_empty(&batch, self.form) || batch.closed;
        let output = &self.context.output;
        if news || (output.style() == Style::Json && self.live == Live::No) {
            output.batch(&batch, self.form)?;
        }
        self.context.so_far.printed(&batch.next);
        self.last = Some(batch);
        Ok(())
    }
}

pub(super) fn is_refused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused { status: 400, .. }))
}

/// Said of an offset that is none.
pub(super) fn no_offset(name: &str) -> Told {
    let advice = format!(
        "offsets are the server's: `weir head {name}` says the one of the end, `weir append` the \
         one behind what it appended, and --json names one with each page; `start` and `now` are \
         always some"
    );
    Told { what: format!("cannot read {name} from there"), advice }
}

/// What comes next. A person who watches is told once if it is looked for elsewhere.
async fn patiently(
    context: &Context,
    follower: &mut Follower,
    live: Live,
) -> Result<Option<Batch>, Error> {
    let watched = live != Live::No && io::stderr().is_terminal();
    let mut trouble = context.client.trouble();
    let mut told = false;
    let mut next = pin!(follower.next());
    loop {
        tokio::select! {
            biased;
            next = &mut next => return next,
            Ok(()) = trouble.changed(), if watched && !told => {
                if let Some(reason) = &*trouble.borrow_and_update() {
                    context.note(&format!("{reason}: trying again …"));
                    told = true;
                }
            }
        }
    }
}

fn is_empty(batch: &Batch, form: Form) -> bool {
    batch.body.is_empty() || (form == Form::Json && &*batch.body == b"[]")
}

/// Tells a person where it ended.
fn say_end(context: &Context, last: Option<&Batch>) {
    let Some(last) = last.filter(|_| io::stderr().is_terminal()) else { return };
    context.output.end_line();
    match last.closed {
        true => eprintln!("weir: closed {}", last.next),
        false => eprintln!("weir: {}", go_on(&last.next)),
    }
}

/// Tells anybody where to go on with what ended early.
fn say_where(context: &Context, last: Option<&Batch>) {
    if let Some(last) = last {
        context.output.end_line();
        context.voice.note_at(&go_on(&last.next), Some(&last.next));
    }
}

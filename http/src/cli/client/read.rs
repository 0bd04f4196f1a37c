//! `weir read` and `weir tail`.

use std::{
    io::{self, IsTerminal as _},
    pin::pin,
};

use anyhow::bail;

use super::{
    Context,
    exit::Exit,
    flags::{FromFlags, LiveFlag, ReadFlags, TailFlags},
    last::Last,
    output::{Form, Style},
};
use crate::client::{Batch, Error, Follower, From, Live};

/// Messages, or lines, that `tail` prints if nothing else is said.
const LINES: usize = 10;

pub(super) async fn read(context: Context, flags: ReadFlags) -> anyhow::Result<Exit> {
    let from = from(&context, &flags.from, From::Start);
    show(&context, &flags.on.stream, &flags.from, from, Live::No, None).await
}

pub(super) async fn tail(context: Context, flags: TailFlags) -> anyhow::Result<Exit> {
    let live = match (flags.follow, flags.live) {
        (false, _) => Live::No,
        (true, LiveFlag::Sse) => Live::Sse,
        (true, LiveFlag::LongPoll) => Live::LongPoll,
    };
    let is_open = flags.from.from.is_none() && flags.from.since.is_none();
    let most = flags.lines.or((is_open && !flags.follow).then_some(LINES));
    let default = if most.is_none() && flags.follow { From::Now } else { From::Start };
    let from = from(&context, &flags.from, default);
    show(&context, &flags.on.stream, &flags.from, from, live, most).await
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
    flags: &FromFlags,
    from: From,
    live: Live,
    most: Option<usize>,
) -> anyhow::Result<Exit> {
    let stream = context.client.stream(name);
    let info = stream.head().await?;
    let kind = Form::of(&info.content_type);
    let form = if flags.raw { Form::Text } else { kind };
    if form == Form::Binary && context.output.style() == Style::Pretty {
        bail!(
            "{name} is {}: not for a terminal; send it to a file, or use --raw or --json",
            info.content_type
        );
    }
    let mut follower = Follower::new(&stream, from, flags.key.as_deref(), live);
    // What has no lines has no last ones.
    let mut kept = most.filter(|_| kind != Form::Binary).map(|most| Last::new(most, kind));
    let mut last: Option<Batch> = None;
    loop {
        let next = tokio::select! {
            biased;
            () = context.interrupt.once() => {
                say_where(last.as_ref());
                return Ok(Exit::Interrupted);
            }
            next = patiently(context, &mut follower, live) => next?,
        };
        let Some(mut batch) = next else { break };
        if let Some(mut last) = kept.take() {
            last.take(&batch.body)?;
            // A server that does not say where its end is has said all when it says nothing.
            if !batch.up_to_date && !batch.closed && !batch.body.is_empty() {
                kept = Some(last);
                continue;
            }
            batch.body = last.into_body().into();
        }
        // Batches that say nothing new say something in JSON: where one is.
        let news = !is_empty(&batch, form) || batch.closed;
        if news || (context.output.style() == Style::Json && live == Live::No) {
            context.output.batch(&batch, form)?;
        }
        last = Some(batch);
    }
    say_where(last.as_ref());
    Ok(Exit::Done)
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

/// Tells a person where to go on.
fn say_where(last: Option<&Batch>) {
    let Some(last) = last.filter(|_| io::stderr().is_terminal()) else { return };
    let end = if last.closed { "closed" } else { "go on with --from" };
    eprintln!("weir: {end} {}", last.next);
}

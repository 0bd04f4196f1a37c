//! `weir read` and `weir tail`.

use std::io::{self, IsTerminal as _};

use anyhow::bail;

use super::{
    Context,
    exit::Exit,
    flags::{FromFlags, LiveFlag, ReadFlags, TailFlags},
    output::{Form, Style},
};
use crate::client::{Batch, Follower, From, Live};

pub(super) async fn read(context: Context, flags: ReadFlags) -> anyhow::Result<Exit> {
    let from = from(&context, &flags.from, From::Start);
    show(&context, &flags.stream, &flags.from, from, Live::No).await
}

pub(super) async fn tail(context: Context, flags: TailFlags) -> anyhow::Result<Exit> {
    let (default, live) = match (flags.follow, flags.live) {
        (false, _) => (From::Start, Live::No),
        (true, LiveFlag::Sse) => (From::Now, Live::Sse),
        (true, LiveFlag::LongPoll) => (From::Now, Live::LongPoll),
    };
    let from = from(&context, &flags.from, default);
    show(&context, &flags.stream, &flags.from, from, live).await
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
) -> anyhow::Result<Exit> {
    let stream = context.client.stream(name);
    let info = stream.head().await?;
    let form = match (flags.raw, Form::of(&info.content_type)) {
        (true, _) => Form::Text,
        (false, form) => form,
    };
    if form == Form::Binary && context.output.style() == Style::Pretty {
        bail!(
            "{name} is {}: not for a terminal; send it to a file, or use --raw or --json",
            info.content_type
        );
    }
    let mut follower = Follower::new(&stream, from, flags.key.as_deref(), live);
    let mut last = None;
    loop {
        let next = tokio::select! {
            biased;
            () = context.interrupt.once() => {
                say_where(last.as_ref());
                return Ok(Exit::Interrupted);
            }
            next = follower.next() => next?,
        };
        let Some(batch) = next else { break };
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

fn is_empty(batch: &Batch, form: Form) -> bool {
    batch.body.is_empty() || (form == Form::Json && &*batch.body == b"[]")
}

/// Tells a person where to go on.
fn say_where(last: Option<&Batch>) {
    let Some(last) = last.filter(|_| io::stderr().is_terminal()) else { return };
    let end = if last.closed { "closed" } else { "go on with --from" };
    eprintln!("weir: {end} {}", last.next);
}

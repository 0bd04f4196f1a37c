//! `weir create`, `head`, `close`, `rm` and `fork`.

use serde_json::json;

use super::{
    Context,
    append::NO_MESSAGE,
    exit::{Exit, Told, Usage},
    flags::{CreateFlags, ForkFlags, LifeFlags, RmFlags, StreamFlags},
    output::{Style, info},
    progress::{Progress, Unit},
};
use crate::{
    client::{Append, Create, Error, Info, Known, Stream},
    wire::date,
};

/// The offset before the first record, as the protocol has it.
const ZERO: &str = "-1";
/// Of the server itself, in names.
const RESERVED: &str = "__ds";
/// Said of a stream that would be gone before it is there.
const PAST: &str = "--expires-at is past: nothing was created; give a time to come, or --ttl 7d";

pub(super) async fn create(context: Context, flags: CreateFlags) -> anyhow::Result<Exit> {
    if flags.message.as_deref() == Some("") {
        return Err(Usage(NO_MESSAGE).into());
    }
    let name = &flags.on.stream;
    let body = flags.message.unwrap_or_default();
    let create = Create {
        content_type: Some(flags.content_type),
        closed: flags.closed,
        body: body.clone().into(),
        ..with_life(&context, flags.life)?
    };
    let stream = context.client.stream(name);
    let asked = asked(&create);
    let made = match stream.create(create).await {
        Err(error) if error.did_nothing() && stream.name().split('/').next() == Some(RESERVED) => {
            let advice =
                format!("names that begin with {RESERVED}/ are the server's own: take another");
            let what = format!("cannot create {name}");
            return Err(anyhow::Error::from(error).context(Told { what, advice }));
        }
        Err(error) => return Err(explained(&stream, error, &asked).await),
        Ok(made) => made,
    };
    if made.in_doubt && !body.is_empty() {
        let reason = "an attempt before may have made it".to_owned();
        let told = Told {
            what: format!("{name} is there"),
            advice: format!(
                "`weir read {name}` says whether it begins with the message; if it does not, \
                 `weir append` adds it"
            ),
        };
        return Err(anyhow::Error::from(Error::Unknown { reason }).context(told));
    }
    if !made.created && !body.is_empty() {
        // A server does nothing with the body of a stream that is there.
        let message = "it was there already, and what it was to begin with was not appended: \
                       `weir append` does that";
        return Err(Error::Conflict { what: name.clone(), message: message.to_owned() }.into());
    }
    show(&context, name, &made)
}

pub(super) async fn fork(context: Context, flags: ForkFlags) -> anyhow::Result<Exit> {
    let is_placed = flags.at.is_some() || flags.plus.is_some();
    let at = match flags.at.as_deref() {
        Some("start" | "-1") => Some(ZERO.to_owned()),
        // The end of the source is where a fork begins that says nothing; what is counted from it
        // needs its name.
        Some("now") if flags.plus.is_none() => None,
        Some("now") => Some(context.client.stream(&flags.source).head().await?.tail),
        _ => flags.at.clone(),
    };
    let fork = Some((flags.source.clone(), at, flags.plus));
    let create = Create { fork, ..with_life(&context, flags.life)? };
    let (stream, source) = (context.client.stream(&flags.stream), &flags.source);
    let asked = asked(&create);
    let made = match stream.create(create).await {
        // A name that is free is no failure: what is missing is the source.
        Err(Error::NotFound { .. }) => return Err(Error::NotFound { what: flags.source }.into()),
        Err(Error::Gone { next, .. }) => {
            return Err(Error::Gone { what: flags.source, next }.into());
        }
        Err(error @ Error::Conflict { .. }) => {
            return Err(no_fork(&context, source, &stream, error, &asked).await);
        }
        Err(error @ Error::Refused { .. }) if is_placed => {
            let advice = format!(
                "`weir head {source}` says where it ends, `weir fork --help` what --at wants"
            );
            let what = format!("cannot fork {source}");
            return Err(anyhow::Error::from(error).context(Told { what, advice }));
        }
        Err(error) => return Err(error.into()),
        Ok(made) => made,
    };
    show(&context, &flags.stream, &made)
}

/// What a stream is to be, in words.
fn asked(create: &Create) -> String {
    let Create { content_type, ttl, expires_at, retention, closed, fork, .. } = create;
    let fork = fork.as_ref().map(|(source, ..)| format!("a fork of {source}"));
    let ttl = ttl.map(|ttl| format!("ttl {} s", ttl.as_millis().div_ceil(1_000)));
    words([
        fork,
        content_type.clone(),
        Some(if *closed { "closed" } else { "open" }.to_owned()),
        ttl,
        expires_at.as_ref().map(|at| format!("expires at {at}")),
        retention.as_ref().map(|limits| format!("retention {limits}")),
    ])
}

/// What a stream is, in the same words.
fn there(info: &Info) -> String {
    words([
        None,
        Some(info.content_type.clone()),
        Some(if info.closed { "closed" } else { "open" }.to_owned()),
        info.ttl.as_ref().map(|ttl| format!("ttl {ttl} s")),
        info.expires_at.as_ref().map(|at| format!("expires at {at}")),
        info.retention.as_ref().map(|limits| format!("retention {limits}")),
    ])
}

fn words<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A conflict with what is there beside what was asked for.
async fn explained(stream: &Stream, error: Error, asked: &str) -> anyhow::Error {
    let Error::Conflict { what, message } = error else { return error.into() };
    match stream.head().await {
        Ok(info) => {
            let message = format!("{message}: there is {}; asked for was {asked}", there(&info));
            Error::Conflict { what, message }.into()
        }
        Err(Error::Gone { .. }) => {
            let advice = "its forks keep it: take another name, or delete them first".to_owned();
            let told = Told { what: "the name is taken".to_owned(), advice };
            anyhow::Error::from(Error::Conflict { what, message }).context(told)
        }
        // What can't be asked for is not told: the server's own words are there.
        Err(_) => Error::Conflict { what, message }.into(),
    }
}

/// Why there is no fork: its name is taken, or its source is gone.
async fn no_fork(
    context: &Context,
    source: &str,
    stream: &Stream,
    error: Error,
    asked: &str,
) -> anyhow::Error {
    let is_free = matches!(stream.head().await, Err(Error::NotFound { .. }));
    if !is_free {
        let error = explained(stream, error, asked).await;
        let name = stream.name();
        return match error.is::<Told>() {
            true => error,
            false => error.context(format!("{name} is there already and is not this fork")),
        };
    }
    let known = context.client.stream(source).head().await;
    if !matches!(known, Err(Error::Gone { .. } | Error::NotFound { .. })) {
        return error.into();
    }
    let advice = "fork one of its forks, or another stream: `weir ls` lists them".to_owned();
    let what = format!("{source} was deleted and is kept for the forks it has: no more of it");
    anyhow::Error::from(error).context(Told { what, advice })
}

/// A stream with this end, if that is still to come.
fn with_life(context: &Context, life: LifeFlags) -> Result<Create, Usage> {
    let LifeFlags { ttl, expires_at, retention } = life;
    let end = expires_at.as_deref().and_then(date::parse);
    if end.is_some_and(|end| end.get() <= context.world.clock.wall_ms()) {
        return Err(Usage(PAST));
    }
    Ok(Create { ttl, expires_at, retention, ..Create::default() })
}

fn show(context: &Context, name: &str, made: &Info) -> anyhow::Result<Exit> {
    if !made.created && !made.in_doubt && context.output.style() == Style::Pretty {
        context.note(&format!("{name} was there already"));
    }
    let mut fact = info(name, made);
    fact["created"] = (!made.in_doubt).then_some(made.created).into();
    context.output.fact(&fact, &made.tail)?;
    Ok(Exit::Done)
}

pub(super) async fn head(context: Context, flags: StreamFlags) -> anyhow::Result<Exit> {
    let stream = context.client.stream(&flags.stream);
    let known = stream.head().await?;
    let mut fact = info(&flags.stream, &known);
    if context.output.style() != Style::Plain {
        // What is told beyond the protocol, and of no harm if it is not.
        let Known { made, records, .. } = stream.known().await.unwrap_or_default();
        fact["created_at"] = made.into();
        fact["records"] = records.into();
    }
    let state = if known.closed { "closed" } else { "open" };
    let plain = format!("{}\t{state}\t{}", known.tail, known.content_type);
    context.output.fact(&fact, &plain)?;
    Ok(Exit::Done)
}

pub(super) async fn close(context: Context, flags: StreamFlags) -> anyhow::Result<Exit> {
    let stream = context.client.stream(&flags.stream);
    let content_type = stream.head().await?.content_type;
    let append =
        Append { content_type: &content_type, body: bytes::Bytes::new(), key: None, closed: true };
    let done = stream.append(append).await?;
    let fact = json!({ "stream": flags.stream, "closed": true, "tail": done.tail });
    context.output.fact(&fact, &done.tail)?;
    Ok(Exit::Done)
}

pub(super) async fn rm(context: Context, flags: RmFlags) -> anyhow::Result<Exit> {
    let total = u64::try_from(flags.streams.len()).ok();
    let mut progress = Progress::of(Unit::Things("streams"), total);
    let (mut missing, mut gone) = (None, Vec::new());
    for name in &flags.streams {
        if context.interrupt.came() {
            progress.clear();
            say_gone(&context, &gone);
            return Ok(Exit::Interrupted);
        }
        let deleted = match context.client.stream(name).delete().await {
            Ok(()) => {
                gone.push(name.as_str());
                true
            }
            // One that is not there keeps none of the others.
            Err(error @ (Error::NotFound { .. } | Error::Gone { .. })) => {
                if !flags.force {
                    progress.clear();
                    missing = Some(context.voice.explain(&error.into()));
                }
                false
            }
            Err(error) => {
                progress.clear();
                say_gone(&context, &gone);
                return Err(error.into());
            }
        };
        if context.output.style() == Style::Json {
            progress.clear();
            context.output.fact(&json!({ "stream": name, "deleted": deleted }), "")?;
        }
        progress.add(1);
    }
    progress.clear();
    if missing.is_some() {
        say_gone(&context, &gone);
    }
    Ok(missing.map_or(Exit::Done, Exit::Partly))
}

/// Who reads of one that was not deleted wants to know of the others.
fn say_gone(context: &Context, gone: &[&str]) {
    if !gone.is_empty() && context.output.style() != Style::Json {
        context.note(&format!("deleted: {}", gone.join(", ")));
    }
}

//! `weir create`, `head`, `close`, `rm` and `fork`.

use serde_json::json;

use super::{
    Context,
    exit::Exit,
    flags::{CreateFlags, ForkFlags, LifeFlags, RmFlags, StreamFlags},
    output::{Style, info},
    progress::{Progress, Unit},
};
use crate::client::{Append, Create, Error, Info};

pub(super) async fn create(context: Context, flags: CreateFlags) -> anyhow::Result<Exit> {
    let name = &flags.on.stream;
    let body = flags.message.unwrap_or_default();
    let create = Create {
        content_type: Some(flags.content_type),
        closed: flags.closed,
        body: body.clone().into(),
        ..with_life(flags.life)
    };
    let made = context.client.stream(name).create(create).await?;
    if !made.created && !body.is_empty() {
        // A server does nothing with the body of a stream that is there.
        let message = "it was there already, and what it was to begin with was not appended: \
                       `weir append` does that";
        return Err(Error::Conflict { what: name.clone(), message: message.to_owned() }.into());
    }
    show(&context, name, &made)
}

pub(super) async fn fork(context: Context, flags: ForkFlags) -> anyhow::Result<Exit> {
    let fork = Some((flags.source, flags.at, flags.plus));
    let create = Create { fork, ..with_life(flags.life) };
    let made = context.client.stream(&flags.stream).create(create).await?;
    show(&context, &flags.stream, &made)
}

fn with_life(life: LifeFlags) -> Create {
    let LifeFlags { ttl, expires_at, retention } = life;
    Create { ttl, expires_at, retention, ..Create::default() }
}

fn show(context: &Context, name: &str, made: &Info) -> anyhow::Result<Exit> {
    if !made.created && context.output.style() == Style::Pretty {
        context.note(&format!("{name} was there already"));
    }
    let mut fact = info(name, made);
    fact["created"] = made.created.into();
    context.output.fact(&fact, &made.tail)?;
    Ok(Exit::Done)
}

pub(super) async fn head(context: Context, flags: StreamFlags) -> anyhow::Result<Exit> {
    let known = context.client.stream(&flags.stream).head().await?;
    let state = if known.closed { "closed" } else { "open" };
    let plain = format!("{}\t{state}\t{}", known.tail, known.content_type);
    context.output.fact(&info(&flags.stream, &known), &plain)?;
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
    let mut missing = None;
    for name in &flags.streams {
        if context.interrupt.came() {
            return Ok(Exit::Interrupted);
        }
        let deleted = match context.client.stream(name).delete().await {
            Ok(()) => true,
            // One that is not there keeps none of the others.
            Err(error @ (Error::NotFound { .. } | Error::Gone { .. })) => {
                if !flags.force {
                    progress.clear();
                    missing = Some(context.voice.explain(&error.into()));
                }
                false
            }
            Err(error) => return Err(error.into()),
        };
        progress.add(1);
        if context.output.style() == Style::Json {
            context.output.fact(&json!({ "stream": name, "deleted": deleted }), "")?;
        }
    }
    Ok(missing.map_or(Exit::Done, Exit::Partly))
}

//! `weir sub`: subscriptions, and a worker on the command line.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    Context,
    exit::{Exit, Usage},
    flags::{SubCommand, SubCreateFlags, SubPullFlags},
    output::{Form, Style, messages, one_line},
};
use crate::client::{Claim, Claimed, Follower, From, Live, PendingStream};

/// Said when all subscriptions are asked for.
const NO_LIST: &str = "the protocol has no list of subscriptions: `weir sub ls ID` shows the one of \
                       that ID";
/// Before work is asked for again when there was none.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a lease is renewed in its time.
const RENEWALS: u32 = 3;

pub(super) async fn run(context: Context, command: SubCommand) -> anyhow::Result<Exit> {
    let subscriptions = context.client.subscriptions();
    match command {
        SubCommand::Create(flags) => {
            let made = subscriptions.create(&flags.on.id, &body(&flags)).await?;
            context.output.document(&made)?;
        }
        SubCommand::Ls(flags) => {
            let Some(id) = &flags.id else { return Err(Usage(NO_LIST).into()) };
            let there = subscriptions.get(id).await?;
            match context.output.style() {
                Style::Plain => links(&context, &there)?,
                Style::Pretty | Style::Json => context.output.document(&there)?,
            }
        }
        SubCommand::Rm(flags) => {
            subscriptions.delete(&flags.id).await?;
            if context.output.style() == Style::Json {
                let fact = json!({ "subscription": flags.id, "deleted": true });
                context.output.fact(&fact, "")?;
            }
        }
        SubCommand::Pull(flags) => return pull(&context, &flags).await,
    }
    Ok(Exit::Done)
}

fn body(flags: &SubCreateFlags) -> Value {
    let mut body = Map::new();
    if let Some(url) = &flags.webhook {
        body.insert("type".into(), "webhook".into());
        body.insert("webhook".into(), json!({ "url": url }));
    }
    if let Some(stream) = &flags.wake_stream {
        body.insert("type".into(), "pull-wake".into());
        body.insert("wake_stream".into(), stream.clone().into());
    }
    if let Some(pattern) = &flags.pattern {
        body.insert("pattern".into(), pattern.clone().into());
    }
    if !flags.stream.is_empty() {
        body.insert("streams".into(), json!(flags.stream));
    }
    if let Some(lease) = flags.lease {
        let ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        body.insert("lease_ttl_ms".into(), ms.into());
    }
    if let Some(description) = &flags.description {
        body.insert("description".into(), description.clone().into());
    }
    Value::Object(body)
}

/// Streams of a subscription, one a line: name and how far it is acked.
fn links(context: &Context, there: &Value) -> anyhow::Result<()> {
    let mut out = String::new();
    for link in there.get("streams").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| link.get(field).and_then(Value::as_str).unwrap_or("-");
        out.push_str(&format!("{}\t{}\n", text("path"), text("acked_offset")));
    }
    context.output.print(out.as_bytes())
}

async fn pull(context: &Context, flags: &SubPullFlags) -> anyhow::Result<Exit> {
    let subscriptions = context.client.subscriptions();
    loop {
        let claimed = subscriptions.claim(&flags.on.id, &flags.worker).await?;
        let more = match claimed {
            Claimed::Nothing => false,
            // It comes back when the other one is done with it, or gone.
            Claimed::ByAnother(_) if flags.follow => false,
            Claimed::ByAnother(error) => return Err(error.into()),
            Claimed::Work(claim) => {
                let kept = keep(context, &claim);
                let more = work(context, &claim, flags.no_ack).await?;
                drop(kept);
                more
            }
        };
        if context.interrupt.came() {
            return Ok(Exit::Interrupted);
        }
        match (more, flags.follow) {
            (true, true) => {}
            (_, false) => return Ok(Exit::Done),
            (false, true) => tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = context.interrupt.once() => return Ok(Exit::Interrupted),
            },
        }
    }
}

/// Renews the lease until what is returned is dropped: whoever reads the output may be slow.
fn keep(context: &Context, claim: &Claim) -> Option<oneshot::Sender<()>> {
    let pause = claim.lease? / RENEWALS;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (subscriptions, claim) = (context.client.subscriptions(), claim.clone());
    let renew = async move {
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                () = tokio::time::sleep(pause) => {}
            }
            // That it is lost, the next ack is told.
            if subscriptions.ack(&claim, &[], false).await.is_err() {
                return;
            }
        }
    };
    context.world.tasks.spawn("lease", Box::pin(renew));
    Some(stop)
}

/// Prints what is new and acks it stream by stream, so that an end in between repeats little.
/// True if there is more.
async fn work(context: &Context, claim: &Claim, no_ack: bool) -> anyhow::Result<bool> {
    let subscriptions = context.client.subscriptions();
    let mut printed = Ok(());
    for stream in &claim.streams {
        if context.interrupt.came() {
            break;
        }
        match print(context, stream).await {
            Ok(upto) if !no_ack => {
                let acks = [(stream.name.clone(), upto)];
                subscriptions.ack(claim, &acks, false).await?;
            }
            Ok(_) => {}
            Err(error) => {
                printed = Err(error);
                break;
            }
        }
    }
    // Whatever happened, the next worker need not wait for the lease to end.
    let more = match no_ack || printed.is_err() {
        true => subscriptions.release(claim).await.map(|()| false),
        false => subscriptions.ack(claim, &[], true).await,
    };
    printed?;
    Ok(more?)
}

/// Prints the records of a stream that are not acked. Returns how far it came.
async fn print(context: &Context, pending: &PendingStream) -> anyhow::Result<String> {
    let stream = context.client.stream(&pending.name);
    let form = Form::of(&stream.head().await?.content_type);
    let from = match pending.acked.as_str() {
        "-1" => From::Start,
        offset => From::Offset(offset.to_owned()),
    };
    let mut follower = Follower::new(&stream, from, None, Live::No);
    let mut upto = pending.acked.clone();
    while let Some(batch) = follower.next().await? {
        match (context.output.style(), form) {
            (Style::Json, Form::Json) => {
                let name = Value::from(pending.name.clone());
                for message in messages(&batch.body)? {
                    let message = one_line(message.get());
                    let line = format!("{{\"stream\":{name},\"message\":{message}}}\n");
                    context.output.print(line.as_bytes())?;
                }
            }
            _ => context.output.batch_of(Some(&pending.name), &batch, form)?,
        }
        upto = batch.next;
        // What came after the claim belongs to the next one.
        if upto >= pending.tail {
            break;
        }
    }
    Ok(upto)
}

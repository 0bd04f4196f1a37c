//! `weir export`: a stream into a file, complete or not there.
//!
//! Called again it goes on in the file of the call before, if that is still the same stream: its
//! server says so, or else the last page that was written is read again and compared.

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    Context,
    draft::{Draft, REMADE, Replace, START, State, Wanted},
    exit::Exit,
    flags::ExportFlags,
    output::{Form, messages, one_line},
    progress::Progress,
    read,
};
use crate::client::{Error, Follower, From, Known, Live, Stream};

pub(super) async fn run(context: Context, flags: ExportFlags) -> anyhow::Result<Exit> {
    let stream = context.client.stream(&flags.on.stream);
    let start = start(flags.from.as_deref());
    if flags.file.as_os_str() == "-" {
        return read::print(&context, &flags.on.stream, start).await;
    }
    let asked = async {
        let info = stream.head().await?;
        Ok::<_, Error>((info, stream.known().await?))
    };
    let Some(asked) = context.unless_interrupted(asked).await else {
        return Ok(Exit::Interrupted);
    };
    let (info, Known { made, bytes: total, .. }) = asked?;
    let form = Form::of(&info.content_type);
    let replace = if flags.force { Replace::Anything } else { Replace::Nothing };
    let knows = made.is_some();
    let wanted = Wanted {
        source: format!("{}/{}", context.client.target(), stream.name()),
        stream: stream.name().to_owned(),
        made,
        start: place(&start),
    };
    let draft = Draft::open(&context.world, &flags.file, wanted, replace);
    let mut draft =
        draft.await.with_context(|| format!("cannot write {}", flags.file.display()))?;
    if draft.state.bytes > 0 && !(knows && draft.state.made.is_some()) {
        match (is_same(&stream, &draft, form).await?, replace) {
            (true, _) => {}
            (false, Replace::Anything) => draft.clear().await?,
            (false, Replace::Nothing) => bail!(REMADE),
        }
    }
    if draft.state.bytes > 0 {
        context.note(&format!("{} bytes are there from before", draft.state.bytes));
    }
    let from = draft.state.offset.clone().map_or(start, From::Offset);
    let mut progress = Progress::new(total);
    progress.skip(draft.state.bytes);
    let filled = fill(&context, &stream, from, form, &mut draft, &mut progress).await;
    progress.clear();
    if !matches!(filled, Ok(Exit::Done)) {
        let is_new = draft.state.offset.is_none() && flags.from.is_some();
        let filled = match filled {
            Err(error) if is_new && read::is_refused(&error) => {
                Err(error.context(read::no_offset(&flags.on.stream)))
            }
            filled => filled,
        };
        if filled.is_ok() && draft.state.bytes > 0 {
            context.note("the same command goes on where this one ended");
        }
        if let Err(error) = draft.leave().await {
            context.note(&format!("what there is of {} stays: {error:#}", flags.file.display()));
        }
        return filled;
    }
    let State { bytes, offset, messages, .. } = draft.state.clone();
    draft.finish().await.with_context(|| format!("cannot name {}", flags.file.display()))?;
    let fact = json!({
        "file": flags.file.display().to_string(),
        "bytes": bytes,
        "messages": messages.filter(|_| form == Form::Json),
        "offset": offset,
    });
    context.output.fact(&fact, offset.as_deref().unwrap_or("-"))?;
    Ok(Exit::Done)
}

/// Where an export begins.
fn start(from: Option<&str>) -> From {
    match from {
        None | Some("start" | START) => From::Start,
        Some(offset) => From::Offset(offset.to_owned()),
    }
}

/// Writes everything from somewhere on, unless somebody wants it to end before.
async fn fill(
    context: &Context,
    stream: &Stream,
    mut from: From,
    form: Form,
    draft: &mut Draft,
    progress: &mut Progress,
) -> anyhow::Result<Exit> {
    let mut follower = Follower::new(stream, from.clone(), None, Live::No);
    loop {
        let next = tokio::select! {
            biased;
            // What is written is whole: a page on its way is read again.
            () = context.interrupt.once() => return Ok(Exit::Interrupted),
            next = follower.next() => next,
        };
        let batch = match next {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Exit::Done),
            Err(Error::Gone { what, next: Some(next) }) => {
                let gap = format!(
                    "the stream has let go of what follows the {} bytes that are written: \
                     `weir export --from {next}` to another file writes what is left of it",
                    draft.state.bytes
                );
                return Err(Error::Gone { what, next: Some(next) }).context(gap);
            }
            Err(error) => return Err(error.into()),
        };
        let (text, count) = lines(&batch.body, form)?;
        progress.add(u64::try_from(text.len()).expect("a length fits"));
        draft.add(text, count, place(&from), batch.next.clone()).await?;
        from = From::Offset(batch.next);
    }
}

/// Whether the last page of a part is in the stream, where it was.
async fn is_same(stream: &Stream, draft: &Draft, form: Form) -> anyhow::Result<bool> {
    let Some(from) = draft.state.page_from.clone() else { return Ok(true) };
    let from = if from == START { From::Start } else { From::Offset(from) };
    let (page, mut found) = (draft.page().await?, Vec::new());
    let mut follower = Follower::new(stream, from, None, Live::No);
    // It may come in smaller pages now.
    while found.len() < page.len() {
        let batch = match follower.next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(false),
            Err(error) if error.did_nothing() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        found.extend(lines(&batch.body, form)?.0);
    }
    Ok(found.starts_with(&page))
}

/// A page as it is written, and how many messages it has.
fn lines(body: &[u8], form: Form) -> anyhow::Result<(Vec<u8>, u64)> {
    Ok(match form {
        Form::Json => {
            let messages = messages(body)?;
            let lines = messages.iter().map(|message| one_line(message.get()) + "\n");
            (lines.collect::<String>().into_bytes(), u64::try_from(messages.len())?)
        }
        Form::Text | Form::Binary => (body.to_vec(), 0),
    })
}

/// Where a page is read, as it is remembered.
fn place(from: &From) -> String {
    match from {
        From::Offset(offset) => offset.clone(),
        From::Start | From::Now | From::Since(_) => START.to_owned(),
    }
}

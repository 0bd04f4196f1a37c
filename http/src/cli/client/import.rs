//! `weir import`: a file into a stream, exactly once however often it is interrupted.
//!
//! The producer that sends it is named after the file's content, and after nothing else: how the
//! file is cut may be another each time, since the journal says how many of its bytes are stored.
//! It is read once before: a line that is no message is told before anything is stored.

use std::path::Path;

use anyhow::bail;
use ring::digest;

use super::{
    Context,
    again::Care,
    append,
    cut::{Cut, Cutter, Place},
    exit::Exit,
    flags::ImportFlags,
    input::{self, Input},
    output::Form,
    sink::{By, Goal, Sink, Source},
};
use crate::{
    client::{Error, Stream},
    wire::hex::hex,
};

/// Said of a file that is not there.
const NO_FILE: &str = "the stream comes first, then the file: `weir import STREAM FILE`; nothing \
                       was created";

pub(super) async fn run(context: Context, flags: ImportFlags) -> anyhow::Result<Exit> {
    if flags.file == Path::new("-") {
        bail!("the standard input can't be read again: import a file, or use `weir append`");
    }
    let stream = context.client.stream(&flags.on.stream);
    let input = Input::open(&context.world, &flags.file).await;
    let input = input.map_err(|error| input::explained(error, &flags.file, NO_FILE))?;
    if input.bytes().is_none() {
        bail!(
            "{} is no file and can't be read again: import a file, or use `weir append`",
            flags.file.display()
        );
    }
    let content_type = match stream.head().await {
        Ok(info) => info.content_type,
        Err(Error::NotFound { .. }) => flags.content_type.clone(),
        Err(error) => return Err(error.into()),
    };
    let cut = match Form::of(&content_type) {
        Form::Json => Cut::Messages(flags.batch),
        Form::Text => Cut::Lines(flags.batch),
        Form::Binary => Cut::Bytes,
    };
    let name = check(input, cut).await?;
    let goal = append::goal(&stream, Some(&flags.content_type)).await?;
    import(&context, &flags, &stream, goal, cut, &name).await
}

async fn import(
    context: &Context,
    flags: &ImportFlags,
    stream: &Stream,
    goal: Goal,
    cut: Cut,
    name: &str,
) -> anyhow::Result<Exit> {
    let input = Input::open(&context.world, &flags.file).await?;
    let total = input.bytes();
    let by = By::Producer(flags.producer_id.as_deref().unwrap_or(name));
    let source = Source { key: None, by, total };
    let mut sink = Sink::open(context, stream, goal, source).await?;
    let imported = append::lines(context, input, cut, &mut sink).await;
    append::conclude(context, sink, imported, flags.close, Care::Resumes).await
}

/// Reads a file and sees that it can be cut. Returns a name made of all that is in it.
async fn check(mut input: Input, cut: Cut) -> anyhow::Result<String> {
    let mut sum = digest::Context::new(&digest::SHA256);
    let (mut cutter, mut ready) = (Cutter::new(cut, Place::start(), None), Vec::new());
    let name = input.name();
    let refuse = |bad| anyhow::anyhow!("{name}: {bad}; nothing of it was stored by this call");
    loop {
        let piece = input.piece().await?;
        if piece.is_empty() {
            break;
        }
        sum.update(&piece);
        cutter.take(&piece, &mut ready).map_err(refuse)?;
        ready.clear();
    }
    cutter.finish(&mut ready).map_err(refuse)?;
    Ok(format!("import-{}", hex(&sum.finish().as_ref()[..12])))
}

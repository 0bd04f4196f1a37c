//! `weir import`: a file into a stream, exactly once however often it is interrupted.
//!
//! The file is cut into the same requests each time, and the producer that sends them is named
//! after the file's content and how it is cut: called again, the server says how many it has.

use std::path::Path;

use anyhow::bail;
use ring::digest;

use super::{
    Context, append, append::Sink, cut::Cut, exit::Exit, flags::ImportFlags, input::Input,
    output::Form,
};
use crate::client::{Create, Error};

pub(super) async fn run(context: Context, flags: ImportFlags) -> anyhow::Result<Exit> {
    if flags.file == Path::new("-") {
        bail!("the standard input can't be read again: import a file, or use `weir append`");
    }
    let stream = context.client.stream(&flags.stream);
    let mut input = Input::open(&context.world, &flags.file).await?;
    if input.bytes().is_none() {
        bail!(
            "{} is no file and can't be read again: import a file, or use `weir append`",
            flags.file.display()
        );
    }
    let content_type = match stream.head().await {
        Ok(info) => info.content_type,
        Err(Error::NotFound { .. }) => {
            let content_type = Some(flags.content_type.clone());
            stream.create(Create { content_type, ..Create::default() }).await?.content_type
        }
        Err(error) => return Err(error.into()),
    };
    let cut = match Form::of(&content_type) {
        Form::Json => Cut::Messages(flags.batch),
        Form::Text => Cut::Lines(flags.batch),
        Form::Binary => Cut::Bytes,
    };
    let total = input.bytes();
    let id = match &flags.producer_id {
        Some(id) => id.clone(),
        None => {
            let name = name(&mut input, cut).await?;
            input = Input::open(&context.world, &flags.file).await?;
            name
        }
    };
    let sink = Sink::open(&stream, content_type, None, Some(&id), total).await;
    let mut sink = match sink {
        Err(Error::Closed { .. }) if flags.close => {
            eprintln!("weir: {} is closed already: an earlier run came to the end", flags.stream);
            return Ok(Exit::Done);
        }
        sink => sink?,
    };
    let imported = append::lines(&context, input, cut, None, &mut sink).await;
    if matches!(imported, Ok(Exit::Done)) && flags.close {
        sink.close().await?;
    }
    let interrupted = !matches!(imported, Ok(Exit::Done));
    if interrupted {
        eprintln!("weir: the same command goes on where this one ended");
    }
    if imported.is_ok() {
        sink.report(&context, interrupted)?;
    }
    imported
}

/// A name made of all that is in a file, and how it is cut.
async fn name(input: &mut Input, cut: Cut) -> anyhow::Result<String> {
    let mut sum = digest::Context::new(&digest::SHA256);
    sum.update(format!("{cut:?}\n").as_bytes());
    loop {
        let piece = input.piece().await?;
        if piece.is_empty() {
            break;
        }
        sum.update(&piece);
    }
    let sum = sum.finish();
    let digits: String = sum.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("import-{digits}"))
}
